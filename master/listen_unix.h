/*
 * listen_unix - a listening Unix socket at a path.
 */
#ifndef MASTER_LISTEN_UNIX_H
#define MASTER_LISTEN_UNIX_H

#include <sys/types.h>

/*
 * Bound, listening, non-blocking, close-on-exec. A socket that a dead server left at the
 * path is replaced; one that is answered, or a file of another kind, is not.
 * -errno: -EADDRINUSE (someone listens), -EEXIST (not a socket), -ENAMETOOLONG, ..
 */
int listen_unix(const char *path, mode_t mode, int backlog);

#endif
