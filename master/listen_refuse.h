/*
 * listen_refuse - a listening TCP socket that lets nobody new in.
 *
 * Closing it would reset who waits in its queue, and with SO_REUSEPORT nobody else serves that
 * queue. So new handshakes are dropped by a filter first: those that have begun end, the queue
 * is emptied, then the socket can be closed without a loss. A client whose SYN was dropped
 * sends it again after a second, and is refused then.
 */
#ifndef MASTER_LISTEN_REFUSE_H
#define MASTER_LISTEN_REFUSE_H

void listen_refuse_tcp(int fd); /* logged when it cannot be */
void listen_let_in_tcp(int fd); /* as before; also where nothing was refused */

#endif
