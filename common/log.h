/*
 * log - one line per event, for the one who is woken.
 *
 *   2026-01-31T12:34:56.789Z INFO  worker ready slot=0 max_connections=1000
 *
 * The message is a short tag in words followed by key=value pairs (the fmt
 * writes them); values with spaces are written by %s inside double quotes by
 * the caller or through log_quote(). Never a body, a key or a token: leaving
 * them out is the caller's business. A worker's lines end in worker=<slot>. In
 * JSON form the line becomes {"time","level","pid","slot","msg"} with the pairs
 * as members; a pair whose name is one of these five is called "of_<name>".
 * Repeats are limited: at most LOG_BURST lines per call site, level and ten
 * seconds, then one "repeated=N" line with the first words of what was left out.
 *
 * One line is one write(2) of at most LOG_LINE_MAX bytes, so lines of several
 * processes do not mix, also in a pipe. It never waits: a line that the log does not take
 * (nobody reads the pipe, the disk is full) is lost and counted, and when lines pass again
 * the first says "log lines lost count=N". Control characters and what is not
 * UTF-8 become '?'. Lines may come from any thread.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum {
	LOG_LEVELS = LOG_ERROR + 1,
	LOG_BURST = 20,
	LOG_WINDOW_MS = 10000,
	LOG_LINE_MAX = 4096, /* with its newline: PIPE_BUF */
};

struct log_site { /* a call site's memory, zeroed */
	uint64_t window_start_ms;
	uint32_t in_window, suppressed;
	enum log_level level;
	const char *fmt;
	struct log_site *next; /* of the sites that owe a "repeated" line */
};

struct log_conf {
	enum log_level level;
	bool is_json;
	bool is_access;   /* log.access */
	const char *file; /* NULL or "": standard error */
};

int log_open(
    const struct log_conf *);    /* 0 or -errno; copied. Before it: text, info, standard error */
void log_reopen(void);           /* after rotation: the same file name again */
void log_set_identity(int slot); /* -1: the master */
/* What closes descriptors spares these: where lines go, and standard error opened anew (or -1). */
int log_fd(void);
int log_stderr_fd(void);
bool log_wants(enum log_level);
bool log_level_parse(const char *name, enum log_level *ret); /* debug info warn error */

/* A value as it may stand after `key=`: quoted and escaped when it must be, cut when it is long.
 * log_info("tool failed name=%s", log_quote(name).s); */
struct log_quoted {
	char s[256];
};
struct log_quoted log_quote(struct str);

/* Writes the "repeated" lines that are due, and that lines were lost. Every log_line() does it too;
 * a quiet process calls this now and then. */
void log_flush(void);

/* Lines of this process that were lost; of a worker since log_set_identity(). Any thread. */
uint64_t log_lost(void);

void log_line(struct log_site *, enum log_level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define LOG_FROM_(site, level, ...)                                                                \
	do {                                                                                       \
		if (log_wants(level))                                                              \
			log_line(site, level, __VA_ARGS__);                                        \
	} while (0)
#define LOG_SITE_(level, ...)                                                                      \
	do {                                                                                       \
		static struct log_site log_site_;                                                  \
		LOG_FROM_(&log_site_, level, __VA_ARGS__);                                         \
	} while (0)
#define log_debug(...) LOG_SITE_(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  LOG_SITE_(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  LOG_SITE_(LOG_WARN, __VA_ARGS__)
#define log_error(...) LOG_SITE_(LOG_ERROR, __VA_ARGS__)
/* Where the level is found out: many lines of one level hide none of another. */
#define log_at(level, ...)                                                                         \
	do {                                                                                       \
		static struct log_site log_sites_[LOG_LEVELS];                                     \
		enum log_level log_level_ = (level);                                               \
		LOG_FROM_(&log_sites_[log_level_], log_level_, __VA_ARGS__);                       \
	} while (0)

/* The access log: whole lines, not limited, only when log.access is on. */
void log_access(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
