/* log - lines as text and JSON, levels, the limit on repeats, reopening. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/log_line.h"
#include "common/log_sink.h"

static char dir[] = "/tmp/log_test_XXXXXX", path[64], moved[64];

static char *
slurp(const char *file)
{
	static char all[1 << 20];
	FILE *f = fopen(file, "r");

	assert_non_null(f);
	all[fread(all, 1, sizeof(all) - 1, f)] = '\0';
	fclose(f);
	return all;
}

static size_t
count_lines(const char *text)
{
	size_t n = 0;

	for (; (text = strchr(text, '\n')) != NULL; text++)
		n++;
	return n;
}

static void
open_log(enum log_level level, bool is_json)
{
	struct log_conf conf = {
	    .level = level, .is_json = is_json, .is_access = true, .file = path};

	unlink(path);
	assert_int_equal(log_open(&conf), 0);
	log_set_identity(-1);
}

static int
setup(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/log", dir);
	snprintf(moved, sizeof(moved), "%s/log.1", dir);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	struct log_conf conf = {.level = LOG_INFO};
	log_open(&conf);
	unlink(path);
	unlink(moved);
	return rmdir(dir);
}

static void
test_text(void **state)
{
	(void)state;
	open_log(LOG_INFO, false);
	log_debug("not seen");
	log_info("worker ready slot=%d max_connections=%d", 0, 1000);
	log_set_identity(3);
	log_warn("two\nlines\x01 here");
	char *all = slurp(path), *second = strchr(all, '\n') + 1;

	assert_int_equal(count_lines(all), 2);
	assert_memory_equal(all + 24, " INFO  worker ready slot=0 max_connections=1000\n", 48);
	assert_string_equal(second + 24, " WARN  two?lines? here worker=3\n");
}

static void
test_levels(void **state)
{
	enum log_level level;

	(void)state;
	assert_true(log_level_parse("warn", &level) && level == LOG_WARN);
	assert_true(log_level_parse("debug", &level) && level == LOG_DEBUG);
	assert_false(log_level_parse("WARN", &level));
	assert_false(log_level_parse("", &level));
	open_log(LOG_ERROR, false);
	assert_false(log_wants(LOG_WARN));
	log_warn("no");
	log_error("yes");
	assert_int_equal(count_lines(slurp(path)), 1);
}

static json_t *
json_of(const char *message)
{
	struct log_line_head head = {1769862896789, "info", 42, 1};
	struct buf line = BUF_INIT;
	json_error_t error;

	log_line_json(&line, &head, str_of(message));
	assert_int_equal(line.data[line.len - 1], '\n');
	assert_null(memchr(line.data, '\n', line.len - 1));
	json_t *j = json_loadb(line.data, line.len, JSON_REJECT_DUPLICATES, &error);
	if (j == NULL)
		fail_msg("%s: %s", error.text, line.data);
	buf_fini(&line);
	return j;
}

static void
test_json_members(void **state)
{
	(void)state;
	json_t *j =
	    json_of("tool failed, again name=\"a \\\"b\\\" \\\\c\" slot=7 ok=true share=0.25 "
		    "zip=007 empty= url=http://x/?a=b tail");

	assert_string_equal(
	    json_string_value(json_object_get(j, "time")), "2026-01-31T12:34:56.789Z");
	assert_string_equal(
	    json_string_value(json_object_get(j, "msg")), "tool failed, again tail");
	assert_string_equal(json_string_value(json_object_get(j, "name")), "a \"b\" \\c");
	assert_int_equal(json_integer_value(json_object_get(j, "slot")), 1);
	assert_int_equal(json_integer_value(json_object_get(j, "pid")), 42);
	assert_int_equal(json_integer_value(json_object_get(j, "of_slot")), 7);
	assert_true(json_is_true(json_object_get(j, "ok")));
	assert_true(json_is_real(json_object_get(j, "share")));
	assert_string_equal(json_string_value(json_object_get(j, "zip")), "007");
	assert_string_equal(json_string_value(json_object_get(j, "empty")), "");
	assert_string_equal(json_string_value(json_object_get(j, "url")), "http://x/?a=b");
	json_decref(j);
}

/* Whatever the message, at whatever byte it is cut: one valid line. */
static void
test_json_any_cut(void **state)
{
	static const char whole[] =
	    "a \"b c=\"d e\\\"f\" g=\\ h=\"open \xc3\xa9 i=-1.5 j==k \xe2\x82\xac=x "
	    "l=1. m=\t n=\"\" o=\"x\"y p";

	(void)state;
	for (size_t len = 0; len < sizeof(whole); len++) {
		char message[sizeof(whole)];

		memcpy(message, whole, sizeof(whole));
		size_t n = log_line_clean(message, sizeof(whole) - 1, len);
		message[n] = '\0';
		assert_true(n <= len && n + 3 >= len);
		json_decref(json_of(message));
	}
}

static void
test_long_and_dirty(void **state)
{
	char big[8192];

	(void)state;
	memset(big, '"', sizeof(big));
	big[sizeof(big) - 1] = '\0';
	open_log(LOG_INFO, true);
	log_info("big %s", big);
	log_info("not utf-8 \xff\xfe key=\x80");
	log_access("GET /health status=%d", 200);
	char *line = slurp(path);
	size_t n = count_lines(line);
	assert_int_equal(n, 3);
	for (; n > 0; n--) {
		char *end = strchr(line, '\n');

		assert_true(end - line < LOG_LINE_MAX);
		json_t *j = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(j);
		if (n == 1)
			assert_string_equal(
			    json_string_value(json_object_get(j, "level")), "access");
		json_decref(j);
		line = end + 1;
	}
}

static void
test_repeats(void **state)
{
	struct log_site site = {0};

	(void)state;
	open_log(LOG_INFO, false);
	for (int i = 0; i < 100; i++)
		log_line(&site, LOG_WARN, "connection refused reason=%s n=%d", "capacity", i);
	assert_int_equal(count_lines(slurp(path)), LOG_BURST);
	log_flush();
	assert_int_equal(count_lines(slurp(path)), LOG_BURST);
	/* Its window is over, as seen from now. */
	site.window_start_ms -= LOG_WINDOW_MS;
	log_info("another site");
	char *all = slurp(path);
	assert_non_null(strstr(all, " WARN  connection refused repeated=80\n"));
	assert_int_equal(count_lines(all), LOG_BURST + 2);
	log_line(&site, LOG_WARN, "connection refused reason=%s n=%d", "capacity", 100);
	assert_non_null(strstr(slurp(path), "n=100\n"));
}

static void
test_repeats_of_a_level_hide_no_other(void **state)
{
	(void)state;
	open_log(LOG_INFO, false);
	for (int i = 0; i < 100; i++)
		log_at(i == 99 ? LOG_WARN : LOG_INFO, "program ended n=%d", i);
	char *all = slurp(path);
	assert_int_equal(count_lines(all), LOG_BURST + 1);
	assert_non_null(strstr(all, " WARN  program ended n=99\n"));
}

static void
test_reopen(void **state)
{
	(void)state;
	open_log(LOG_INFO, false);
	log_info("first");
	assert_int_equal(rename(path, moved), 0);
	log_info("second");
	log_reopen();
	log_info("third");
	assert_int_equal(count_lines(slurp(moved)), 2);
	assert_int_equal(count_lines(slurp(path)), 1);
	struct log_conf bad = {.file = "/nonexistent/dir/log"};
	assert_true(log_open(&bad) < 0);
	log_info("fourth");
	assert_int_equal(count_lines(slurp(path)), 2);
}

static void
test_quote(void **state)
{
	char big[1000];

	(void)state;
	assert_string_equal(log_quote(STR("plain-1.5")).s, "plain-1.5");
	assert_string_equal(log_quote(STR("two words")).s, "\"two words\"");
	assert_string_equal(log_quote(STR("a=\"b\\")).s, "\"a=\\\"b\\\\\"");
	assert_string_equal(log_quote(STR_NONE).s, "\"\"");
	for (size_t len = 200; len < sizeof(big); len++) {
		memset(big, len % 2 ? '"' : 'x', len);
		struct log_quoted q = log_quote(str_sub(big, len));
		size_t n = strlen(q.s);

		assert_true(n < sizeof(q.s));
		assert_true(len < sizeof(q.s) && len % 2 == 0 ? n == len : q.s[n - 1] == '"');
	}
}

/* ---- a log that nobody reads ---- */

/* Everything that can be had from it now. */
static size_t
drain(int fd, char *out, size_t size)
{
	size_t len = 0;
	ssize_t n;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (len < size - 1 && (n = read(fd, out + len, size - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	return len;
}

/* In a process of its own, whose standard error this is: blocked it would hang until the alarm. */
static void
write_unread(int reader, int writer, bool is_another_users)
{
	static char text[4 << 20];
	struct log_site site = {0};
	uint64_t told = 0;
	size_t seen = 0;

	alarm(60);
	if (is_another_users && setuid(65534) != 0)
		_exit(99);
	dup2(writer, STDERR_FILENO);
	close(writer);
	struct log_conf conf = {.level = LOG_INFO, .is_access = true};
	if (log_open(&conf) != 0)
		_exit(1);
	for (int i = 0; i < 20000; i++)
		log_access("GET /health status=%d n=%d", 200, i);
	if (log_lost() == 0 || log_lost() >= 20000)
		_exit(2);
	uint64_t lost = log_lost();
	drain(reader, text, sizeof(text));
	if (strstr(text, "log lines lost") != NULL)
		_exit(3);
	seen = count_lines(text);
	log_line(&site, LOG_WARN, "again");
	drain(reader, text, sizeof(text));
	char *line = strstr(text, "log lines lost count=");
	if (line == NULL || sscanf(line, "log lines lost count=%lu\n", &told) != 1)
		_exit(4);
	if (told != lost || log_lost() != lost || seen + lost != 20000)
		_exit(5);
	if (strstr(line, "again\n") == NULL || count_lines(text) != 2)
		_exit(6);
	_exit(0);
}

static int
status_of_unread(int reader, int writer, bool is_another_users)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		write_unread(reader, writer, is_another_users);
	close(reader);
	close(writer);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void
test_unread(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(status_of_unread(ends[0], ends[1], false), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_int_equal(status_of_unread(ends[0], ends[1], false), 0);
	if (geteuid() != 0)
		return;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(status_of_unread(ends[0], ends[1], true), 0);
}

/* The mode of what others share stays as it is. */
static void
test_shared_mode(void **state)
{
	int ends[2], before = dup(STDERR_FILENO);

	(void)state;
	assert_int_equal(pipe(ends), 0);
	dup2(ends[1], STDERR_FILENO);
	struct log_sink sink = log_sink_stderr();
	int flags = fcntl(STDERR_FILENO, F_GETFL);
	dup2(before, STDERR_FILENO);
	assert_int_equal(flags & O_NONBLOCK, 0);
	assert_true(log_sink_write(&sink, "line\n", 5));
	close(before);
	close(ends[0]);
	close(ends[1]);
}

static void
test_no_reader(void **state)
{
	char fifo[80];

	(void)state;
	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	struct log_conf conf = {.file = fifo};
	assert_true(log_open(&conf) < 0); /* and does not wait for one */
	unlink(fifo);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_text),
	    cmocka_unit_test(test_levels),
	    cmocka_unit_test(test_json_members),
	    cmocka_unit_test(test_json_any_cut),
	    cmocka_unit_test(test_long_and_dirty),
	    cmocka_unit_test(test_repeats),
	    cmocka_unit_test(test_repeats_of_a_level_hide_no_other),
	    cmocka_unit_test(test_reopen),
	    cmocka_unit_test(test_quote),
	    cmocka_unit_test(test_unread),
	    cmocka_unit_test(test_shared_mode),
	    cmocka_unit_test(test_no_reader),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
