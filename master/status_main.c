/*
 * status_main - once, or again and again on a terminal's second screen, so that what was
 * there before comes back at the end.
 */
#include "master/status_main.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "master/control.h"
#include "master/status_view.h"

enum { EXIT_NOT_RUNNING = 3, INTERVAL_MS = 1000, ROWS_OF_OURS = 2 };

/* The second screen, no cursor; and back. */
static const char enter_screen[] = "\033[?1049h\033[?25l", leave_screen[] = "\033[?25h\033[?1049l";

static volatile sig_atomic_t is_interrupted;

struct args {
	bool is_watch, is_json;
};

static struct args
parse_args(int argc, char **argv)
{
	struct args a = {false, false};

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			a.is_json = true;
		else
			a.is_watch = true;
	}
	return a;
}

static bool
has_color(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return (no == NULL || *no == '\0') && term != NULL && strcmp(term, "dumb") != 0;
}

/* NULL: *answer is why not, or the words of a server that speaks otherwise. */
static json_t *
ask(const struct conf *conf, struct buf *answer, int *ret_status)
{
	bool is_running, is_ok;

	buf_clear(answer);
	is_ok = control_ask(conf, "status", answer, &is_running);
	*ret_status = is_ok ? EXIT_SUCCESS : is_running ? EXIT_FAILURE : EXIT_NOT_RUNNING;
	return is_ok ? json_loadb(answer->data, answer->len, 0, NULL) : NULL;
}

static int
show_once(const struct conf *conf, bool is_json)
{
	struct status_view view = {.has_color = isatty(STDOUT_FILENO) && has_color()};
	struct buf answer = BUF_INIT, table = BUF_INIT;
	int status;
	json_t *now = ask(conf, &answer, &status);

	if (now != NULL && !is_json) {
		status_view_write(&view, now, &table);
		fputs(table.data, stdout);
	} else {
		fputs(answer.data, status == EXIT_SUCCESS ? stdout : stderr);
	}
	json_decref(now);
	buf_fini(&answer);
	buf_fini(&table);
	return status;
}

/* ---- watching ---- */

static void
on_interrupt(int sig)
{
	(void)sig;
	is_interrupted = 1;
}

static void
put_out(const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(STDOUT_FILENO, bytes, len);

		if (n < 0 && errno != EINTR)
			return;
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
}

/* From the top, each line up to the screen's end, then nothing: no flicker. */
static void
draw(const struct buf *table)
{
	struct buf screen = BUF_INIT;

	buf_add_cstr(&screen, "\033[H");
	for (size_t i = 0; i < table->len; i++) {
		if (table->data[i] == '\n')
			buf_add_cstr(&screen, "\033[K\r");
		buf_add_char(&screen, table->data[i]);
	}
	buf_add_cstr(&screen, "\033[J");
	put_out(screen.data, screen.len);
	buf_fini(&screen);
}

static unsigned
terminal_rows(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row <= ROWS_OF_OURS)
		return 0;
	return size.ws_row - ROWS_OF_OURS;
}

/* Keys come one by one, unseen. False: standard input is no terminal. */
static bool
take_keys(struct termios *ret_before)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, ret_before) != 0)
		return false;
	raw = *ret_before;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	return tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

/* Waits for the next look; false: q was pressed, or a signal came. */
static bool
wait_for_next(bool has_keys, uint64_t until_ms)
{
	struct pollfd keys = {.fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN};

	for (uint64_t now_ms; !is_interrupted && (now_ms = clock_mono_ms()) < until_ms;) {
		char key;

		if (poll(&keys, 1, (int)(until_ms - now_ms)) <= 0)
			continue;
		if (read(STDIN_FILENO, &key, 1) != 1)
			keys.fd = -1;
		else if (key == 'q' || key == 'Q')
			return false;
	}
	return !is_interrupted;
}

/* One look: draws it and keeps it to compare with the next. A server that is away is waited for. */
static void
look(const struct conf *conf, struct status_view *view, uint64_t *last_ms)
{
	struct buf answer = BUF_INIT, table = BUF_INIT;
	uint64_t now_ms = clock_mono_ms();
	int status;
	json_t *now = ask(conf, &answer, &status);

	view->rows = terminal_rows();
	view->since_ms = now_ms - *last_ms;
	if (now != NULL)
		status_view_write(view, now, &table);
	else
		buf_add_str(&table, buf_str(&answer));
	buf_add_cstr(&table, "\nq ends");
	draw(&table);
	json_decref((json_t *)view->before);
	view->before = now;
	*last_ms = now_ms;
	buf_fini(&answer);
	buf_fini(&table);
}

static int
watch(const struct conf *conf)
{
	struct status_view view = {.has_color = has_color()};
	struct sigaction action = {.sa_handler = on_interrupt};
	struct termios before;
	bool has_keys = take_keys(&before);
	uint64_t last_ms = 0;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	put_out(enter_screen, strlen(enter_screen));
	do
		look(conf, &view, &last_ms);
	while (wait_for_next(has_keys, last_ms + INTERVAL_MS));
	put_out(leave_screen, strlen(leave_screen));
	if (has_keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	json_decref((json_t *)view.before);
	return EXIT_SUCCESS;
}

int
status_command(const struct conf *conf, int argc, char **argv)
{
	struct args args = parse_args(argc, argv);

	if (args.is_watch && !args.is_json && isatty(STDOUT_FILENO))
		return watch(conf);
	return show_once(conf, args.is_json);
}
