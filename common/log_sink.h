/*
 * log_sink - where lines go, without ever waiting for whoever should read them.
 *
 * What stands behind standard error is shared with other programs, so its mode is not ours to
 * change: a pipe or a terminal is opened anew for us, a socket is asked each time. A pipe that
 * belongs to another user cannot be opened; then a line is written only where there is much room.
 * A file on a disk is simply written.
 *
 * Not thread-safe: log.c's mutex is around it.
 */
#ifndef COMMON_LOG_SINK_H
#define COMMON_LOG_SINK_H

#include <stdbool.h>
#include <stddef.h>

struct log_sink {
	int fd;
	enum { LOG_SINK_WRITE, LOG_SINK_SEND, LOG_SINK_ASK } how;
	bool is_ours; /* closed with the sink */
	bool is_cut;  /* the last line is there in part */
};

#define LOG_SINK_STDERR ((struct log_sink){.fd = 2})

/* Standard error as it is now. Keeps a descriptor of it for ever, for the next call and for
 * log_sink_raw(): after the process has become somebody else it could not be had again. */
struct log_sink log_sink_stderr(void);
int log_sink_open(struct log_sink *, const char *file); /* appends; 0 or -errno */
void log_sink_close(struct log_sink *);

/* A whole line with its newline, of at most PIPE_BUF bytes. False: it is lost, all of it or its
 * end (no reader, no room). */
bool log_sink_write(struct log_sink *, const char *line, size_t len);

/* That descriptor, or -1. */
int log_sink_kept(void);

/* For the last words of a process, also in a signal handler: standard error, if it takes something
 * now; else -1. */
int log_sink_raw(void);

#endif
