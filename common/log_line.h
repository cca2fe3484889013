/*
 * log_line - how a line of the log looks, as text and as JSON.
 * Pure: no file, no clock. For log.c.
 */
#ifndef COMMON_LOG_LINE_H
#define COMMON_LOG_LINE_H

#include "common/buf.h"
#include "common/log.h"

struct log_line_head {
	int64_t wall_ms;
	const char *level; /* "info"; "access" */
	int pid;
	int slot; /* -1: the master */
};

/* Cuts a message to max bytes at the start of a character and makes it one clean line, in place.
 * Returns its new length. */
size_t log_line_clean(char *message, size_t len, size_t max);

/* The message is clean. One line with its newline replaces what is in `out`. */
void log_line_text(struct buf *out, const struct log_line_head *, struct str message);
void log_line_json(struct buf *out, const struct log_line_head *, struct str message);

#endif
