/*
 * log - levels, the limit on repeats, and the file.
 *
 * The mutex is this process's own: it is not shared memory, and it is held for one
 * write at most.
 */
#include "common/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log_line.h"
#include "common/log_sink.h"

enum { MESSAGE_MAX = 2048 };

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static struct {
	pthread_mutex_t mutex;
	enum log_level level;
	bool is_json, is_access;
	int slot;
	struct log_sink sink;
	char *file;
	struct buf line;
	struct log_site *owing; /* sites with suppressed lines, newest first */
	uint64_t untold;        /* lost lines that no line has told of */
	_Atomic uint64_t lost;  /* in all */
} lg = {.mutex = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO, .slot = -1, .sink = LOG_SINK_STDERR};

int
log_open(const struct log_conf *conf)
{
	bool is_file = conf->file != NULL && conf->file[0] != '\0';
	struct log_sink sink;
	int err = 0;

	if (!is_file)
		sink = log_sink_stderr();
	else if ((err = log_sink_open(&sink, conf->file)) != 0)
		return err;
	pthread_mutex_lock(&lg.mutex);
	log_sink_close(&lg.sink);
	lg.sink = sink;
	free(lg.file);
	lg.file = is_file ? xstrdup(conf->file) : NULL;
	lg.level = conf->level;
	lg.is_json = conf->is_json;
	lg.is_access = conf->is_access;
	pthread_mutex_unlock(&lg.mutex);
	return 0;
}

void
log_reopen(void)
{
	struct log_sink sink;
	int err = 0;

	pthread_mutex_lock(&lg.mutex);
	if (lg.file != NULL && (err = log_sink_open(&sink, lg.file)) == 0) {
		log_sink_close(&lg.sink);
		lg.sink = sink;
	}
	pthread_mutex_unlock(&lg.mutex);
	if (err != 0)
		log_error("log not reopened file=%s error=%s", lg.file,
		    log_quote(str_of(strerror(-err))).s);
}

void
log_set_identity(int slot)
{
	lg.slot = slot;
	lg.untold = 0; /* the master tells of its own */
	atomic_store(&lg.lost, 0);
}

int
log_fd(void)
{
	return lg.sink.fd;
}

int
log_stderr_fd(void)
{
	return log_sink_kept();
}

bool
log_wants(enum log_level level)
{
	return level >= lg.level;
}

bool
log_level_parse(const char *name, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return true;
		}
	}
	return false;
}

static void
format_line(const char *level, char *message, size_t len)
{
	struct log_line_head head = {clock_wall_ms(), level, (int)getpid(), lg.slot};
	size_t max = MESSAGE_MAX;

	/* Escapes may make the JSON form longer than a line may be: then with less of the message.
	 */
	do {
		len = log_line_clean(message, len, max);
		(lg.is_json ? log_line_json : log_line_text)(
		    &lg.line, &head, str_sub(message, len));
		max /= 2;
	} while (lg.line.len > LOG_LINE_MAX);
}

/* False: the log takes no lines, still. */
static bool
tell_of_lost(void)
{
	char message[64];

	if (lg.untold == 0)
		return true;
	int n = snprintf(message, sizeof(message), "log lines lost count=%" PRIu64, lg.untold);
	format_line(level_names[LOG_WARN], message, (size_t)n);
	if (!log_sink_write(&lg.sink, lg.line.data, lg.line.len))
		return false;
	lg.untold = 0;
	return true;
}

/* A log that cannot be written (full disk, a reader that does not read) must not stop the server:
 * the line is lost, and counted. */
static void
put(const char *level, char *message, size_t len)
{
	bool is_told = tell_of_lost();

	format_line(level, message, len);
	if (is_told && log_sink_write(&lg.sink, lg.line.data, lg.line.len))
		return;
	lg.untold++;
	atomic_fetch_add(&lg.lost, 1);
}

static void put_format(const char *level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void
put_vformat(const char *level, const char *fmt, va_list ap)
{
	char message[MESSAGE_MAX + 8];
	int n = vsnprintf(message, sizeof(message), fmt, ap);

	check(n >= 0);
	put(level, message, (size_t)n < sizeof(message) ? (size_t)n : sizeof(message) - 1);
}

static void
put_format(const char *level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	put_vformat(level, fmt, ap);
	va_end(ap);
}

/* The words of the format before its first pair or conversion. */
static int
tag_len(const char *fmt)
{
	size_t len = strcspn(fmt, "%=");

	if (fmt[len] == '=') {
		while (len > 0 && fmt[len] != ' ')
			len--;
	}
	while (len > 0 && fmt[len - 1] == ' ')
		len--;
	return (int)len;
}

static void
flush_due(uint64_t now_ms)
{
	for (struct log_site **at = &lg.owing; *at != NULL;) {
		struct log_site *site = *at;

		if (now_ms - site->window_start_ms < LOG_WINDOW_MS) {
			at = &site->next;
			continue;
		}
		*at = site->next;
		put_format(level_names[site->level], "%.*s repeated=%u", tag_len(site->fmt),
		    site->fmt, site->suppressed);
		site->suppressed = 0;
	}
}

static bool
site_allows(struct log_site *site, enum log_level level, const char *fmt, uint64_t now_ms)
{
	if (site->in_window == 0 || now_ms - site->window_start_ms >= LOG_WINDOW_MS) {
		site->window_start_ms = now_ms;
		site->in_window = 0;
	}
	if (site->in_window < LOG_BURST) {
		site->in_window++;
		return true;
	}
	if (site->suppressed++ == 0) {
		site->level = level;
		site->fmt = fmt;
		site->next = lg.owing;
		lg.owing = site;
	}
	return false;
}

void
log_flush(void)
{
	pthread_mutex_lock(&lg.mutex);
	flush_due(clock_mono_ms());
	tell_of_lost();
	pthread_mutex_unlock(&lg.mutex);
}

uint64_t
log_lost(void)
{
	return atomic_load(&lg.lost);
}

void
log_line(struct log_site *site, enum log_level level, const char *fmt, ...)
{
	uint64_t now_ms = clock_mono_ms();
	va_list ap;

	va_start(ap, fmt);
	pthread_mutex_lock(&lg.mutex);
	flush_due(now_ms);
	if (site_allows(site, level, fmt, now_ms))
		put_vformat(level_names[level], fmt, ap);
	pthread_mutex_unlock(&lg.mutex);
	va_end(ap);
}

void
log_access(const char *fmt, ...)
{
	va_list ap;

	if (!lg.is_access)
		return;
	va_start(ap, fmt);
	pthread_mutex_lock(&lg.mutex);
	put_vformat("access", fmt, ap);
	pthread_mutex_unlock(&lg.mutex);
	va_end(ap);
}

struct log_quoted
log_quote(struct str s)
{
	struct log_quoted q;
	size_t n = 0, room = sizeof(q.s) - 3; /* a quote, an escape's second half, NUL */
	bool is_plain = s.len > 0 && s.len < sizeof(q.s);

	for (size_t i = 0; i < s.len && is_plain; i++)
		is_plain = s.p[i] > ' ' && s.p[i] != '"' && s.p[i] != '\\' && s.p[i] != '=' &&
			   s.p[i] != 0x7f;
	if (is_plain) {
		memcpy(q.s, s.p, s.len);
		q.s[s.len] = '\0';
		return q;
	}
	q.s[n++] = '"';
	for (size_t i = 0; i < s.len && n < room; i++) {
		if (s.p[i] == '"' || s.p[i] == '\\')
			q.s[n++] = '\\';
		q.s[n++] = s.p[i];
	}
	q.s[n++] = '"';
	q.s[n] = '\0';
	return q;
}
