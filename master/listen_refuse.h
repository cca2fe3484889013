/*
 * listen_refuse - a listening TCP socket that lets nobody new in.
 *
 * Closing it would reset who waits in its queue, and with SO_REUSEPORT nobody else serves that
 * queue. So new handshakes are shut out first: those that have begun end, the queue is
 * emptied, then the socket can be closed without a loss. A client that is shut out is refused,
 * at once or, where its SYN was dropped, when it has sent it again after a second.
 */
#ifndef MASTER_LISTEN_REFUSE_H
#define MASTER_LISTEN_REFUSE_H

#include <stdbool.h>

void listen_refuse_tcp(int fd); /* logged when it cannot be */
/* As before; also where nothing was refused. False: it takes CAP_NET_RAW, the socket is of no use.
 */
bool listen_let_in_tcp(int fd);

#endif
