/*
 * tool_server - see tool_server.h.
 */
#include "master/tool_server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "master/oom.h"
#include "master/reap.h"
#include "master/signals.h"
#include "master/timer.h"

enum {
	GRACE_MS = 2000,         /* MCP, stdio: between closing its input, SIGTERM and SIGKILL */
	GOOD_LIFE_MS = 10000,    /* one that ran so long begins anew with the back-off */
	WORDS_PER_WINDOW = 8192, /* bytes of standard error in .. */
	WINDOW_MS = 1000,
	WORDS_LINE_MAX = 512,
	HOUR_MS = 3600 * 1000,
};

static uint64_t lives; /* of all programs */

struct tool_server {
	struct event_base *base;
	const struct tool_server_program *program;
	const struct tool_server_handlers *handlers;
	void *arg;
	enum tool_server_state state;
	pid_t pid; /* 0: none */
	uint64_t life, started_ms, backoff_ms;
	bool is_wanted, is_hung;
	uint64_t *restarts_ms; /* a ring: the last max_restarts */
	uint64_t restart_count;
	int in_fd, out_fd; /* ours of its pipes; -1: closed */

	int words_fd;
	struct event *on_words, *words_again, *deadline;
	char words[WORDS_LINE_MAX];
	size_t words_len, words_in_window;
	uint64_t window_ms;
};

/* ---- the program ---- */

struct tool_server_program *
tool_server_program_new(
    const struct conf_mcp_server *c, uint64_t backoff_ms, uint64_t backoff_max_ms)
{
	struct tool_server_program *p = xcalloc(1, sizeof(*p));

	p->name = xstrdup(c->name);
	p->command = xstrdup(c->command);
	p->argv = xcalloc(c->args.n + 2, sizeof(char *));
	p->argv[0] = xstrdup(c->command);
	for (size_t i = 0; i < c->args.n; i++)
		p->argv[i + 1] = xstrdup(c->args.v[i]);
	p->env = xcalloc(c->env.n + 1, sizeof(char *));
	for (size_t i = 0; i < c->env.n; i++)
		p->env[i] = xasprintf("%s=%s", c->env.v[i].name, c->env.v[i].value);
	p->is_per_worker = strcmp(c->per, "worker") == 0;
	p->max_memory_bytes = c->max_memory_bytes;
	p->max_restarts = (uint32_t)c->max_restarts;
	p->backoff_ms = backoff_ms;
	p->backoff_max_ms = backoff_max_ms;
	return p;
}

static void
free_texts(char **texts)
{
	for (size_t i = 0; texts[i] != NULL; i++)
		free(texts[i]);
	free(texts);
}

void
tool_server_program_free(struct tool_server_program **ref)
{
	struct tool_server_program *p = *ref;

	if (p == NULL)
		return;
	*ref = NULL;
	free_texts(p->argv);
	free_texts(p->env);
	free(p->name);
	free(p->command);
	free(p);
}

/* ---- in the child ---- */

static void
set_environment(const struct tool_server_program *p)
{
	static const char *const kept[] = {
	    "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG"};
	char *values[ARRAY_LEN(kept)];

	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		values[i] = getenv(kept[i]) != NULL ? xstrdup(getenv(kept[i])) : NULL;
	clearenv();
	for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
		if (values[i] != NULL)
			setenv(kept[i], values[i], 1);
	}
	for (size_t i = 0; p->env[i] != NULL; i++)
		putenv(p->env[i]);
}

static void
set_limits(const struct tool_server_program *p)
{
	struct rlimit none = {0, 0}, data = {p->max_memory_bytes, p->max_memory_bytes};

	setrlimit(RLIMIT_CORE, &none);
	if (p->max_memory_bytes > 0)
		setrlimit(RLIMIT_DATA, &data);
}

static _Noreturn void
become(const struct tool_server_program *p, const int in[2], const int out[2], const int words[2],
    pid_t master)
{
	static const char failed[] = "cannot be started: ";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != master)
		_exit(EXIT_FAILURE);
	oom_before_master();
	signals_reset_in_child();
	signal(SIGPIPE, SIG_DFL);
	setsid();
	/* The ends are above 2: the master has those. */
	dup2(in[0], STDIN_FILENO);
	dup2(out[1], STDOUT_FILENO);
	dup2(words[1], STDERR_FILENO);
	close_range(STDERR_FILENO + 1, ~0U, 0);
	set_environment(p);
	set_limits(p);
	execvp(p->command, p->argv);
	const char *why = strerror(errno);
	if (write(STDERR_FILENO, failed, sizeof(failed) - 1) > 0)
		(void)!write(STDERR_FILENO, why, strlen(why));
	_exit(127);
}

/* ---- what it says on standard error ---- */

static void
log_words(struct tool_server *t)
{
	if (t->words_len > 0)
		log_info("mcp server says server=%s text=%s", t->program->name,
		    log_quote(str_sub(t->words, t->words_len)).s);
	t->words_len = 0;
}

/* A line at a time, its beginning. */
static void
take_words(struct tool_server *t, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n')
			log_words(t);
		else if (t->words_len < sizeof(t->words) && p[i] != '\r')
			t->words[t->words_len++] = p[i];
	}
}

/* True: it has said enough for now. Its pipe fills, and it waits. */
static bool
is_too_loud(struct tool_server *t, size_t n)
{
	uint64_t now_ms = clock_mono_ms();

	if (now_ms - t->window_ms >= WINDOW_MS) {
		t->window_ms = now_ms;
		t->words_in_window = 0;
	}
	t->words_in_window += n;
	return t->words_in_window >= WORDS_PER_WINDOW;
}

static void
on_words(evutil_socket_t fd, short what, void *arg)
{
	struct tool_server *t = arg;
	char room[4096];
	ssize_t n = read((int)fd, room, sizeof(room));

	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		event_del(t->on_words);
		log_words(t);
		return;
	}
	take_words(t, room, (size_t)n);
	if (is_too_loud(t, (size_t)n)) {
		event_del(t->on_words);
		timer_set(t->words_again, WINDOW_MS);
	}
}

static void
on_words_again(evutil_socket_t fd, short what, void *arg)
{
	struct tool_server *t = arg;

	(void)fd, (void)what;
	if (t->on_words != NULL)
		event_add(t->on_words, NULL);
}

/* ---- its life ---- */

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void
close_pipes(struct tool_server *t)
{
	close_fd(&t->in_fd);
	close_fd(&t->out_fd);
	evtimer_del(t->words_again);
	if (t->on_words != NULL)
		event_free(t->on_words);
	t->on_words = NULL;
	close_fd(&t->words_fd);
}

/* How long until it may be started again, by the limit. */
static uint64_t
wait_ms(const struct tool_server *t)
{
	uint32_t max = t->program->max_restarts;
	uint64_t now_ms = clock_mono_ms();

	if (max == 0 || t->restart_count < max)
		return 0;
	uint64_t free_ms = t->restarts_ms[t->restart_count % max] + HOUR_MS;
	return free_ms > now_ms ? free_ms - now_ms : 0;
}

static void
count_restart(struct tool_server *t)
{
	uint32_t max = t->program->max_restarts;

	if (max > 0)
		t->restarts_ms[t->restart_count % max] = clock_mono_ms();
	t->restart_count++;
	metric_add(METRIC_MCP_RESTARTS, metric_label(LABEL_MCP_SERVER, str_of(t->program->name)),
	    t->is_hung ? MCP_RESTART_HUNG : MCP_RESTART_ENDED, 1);
}

static void
pause_it(struct tool_server *t)
{
	uint64_t limit_ms = wait_ms(t);

	t->state = TOOL_SERVER_PAUSED;
	if (limit_ms > t->backoff_ms)
		log_warn("mcp server restarted too often server=%s max=%u next_ms=%" PRIu64,
		    t->program->name, t->program->max_restarts, limit_ms);
	timer_set(t->deadline, limit_ms > t->backoff_ms ? limit_ms : t->backoff_ms);
	t->backoff_ms = t->backoff_ms * 2 < t->program->backoff_max_ms ? t->backoff_ms * 2
								       : t->program->backoff_max_ms;
}

static bool
open_pipes(int in[2], int out[2], int words[2])
{
	in[0] = out[0] = words[0] = in[1] = out[1] = words[1] = -1;
	if (pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 &&
	    pipe2(words, O_CLOEXEC) == 0) {
		fcntl(in[1], F_SETFL, O_NONBLOCK);
		fcntl(out[0], F_SETFL, O_NONBLOCK);
		fcntl(words[0], F_SETFL, O_NONBLOCK);
		return true;
	}
	return false;
}

static void
close_all(int in[2], int out[2], int words[2])
{
	for (int i = 0; i < 2; i++) {
		close_fd(&in[i]);
		close_fd(&out[i]);
		close_fd(&words[i]);
	}
}

static bool
spawn(struct tool_server *t)
{
	pid_t master = getpid();
	int in[2], out[2], words[2];

	if (!open_pipes(in, out, words)) {
		close_all(in, out, words);
		return false;
	}
	signals_block();
	pid_t pid = fork();
	if (pid == 0)
		become(t->program, in, out, words, master);
	signals_unblock();
	if (pid < 0) {
		close_all(in, out, words);
		return false;
	}
	t->pid = pid;
	t->in_fd = in[1];
	t->out_fd = out[0];
	t->words_fd = words[0];
	in[1] = out[0] = words[0] = -1;
	close_all(in, out, words);
	return true;
}

static void
run(struct tool_server *t)
{
	if (!spawn(t)) {
		log_error("mcp server not started server=%s error=\"%s\"", t->program->name,
		    strerror(errno));
		pause_it(t);
		return;
	}
	if (t->life != 0)
		count_restart(t);
	t->state = TOOL_SERVER_RUNNING;
	t->is_hung = false;
	t->life = ++lives;
	t->started_ms = clock_mono_ms();
	t->words_len = t->words_in_window = 0;
	t->on_words = event_new(t->base, t->words_fd, EV_READ | EV_PERSIST, on_words, t);
	check(t->on_words != NULL && event_add(t->on_words, NULL) == 0);
	log_info("mcp server started server=%s pid=%d", t->program->name, (int)t->pid);
	t->handlers->on_started(t->arg, t);
}

/* Its whole session: what it has started itself, too. */
static void
signal_it(const struct tool_server *t, int number)
{
	if (kill(-t->pid, number) != 0)
		kill(t->pid, number);
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct tool_server *t = arg;

	(void)fd, (void)what;
	switch (t->state) {
	case TOOL_SERVER_PAUSED:
		t->state = TOOL_SERVER_IDLE;
		if (t->is_wanted)
			run(t);
		break;
	case TOOL_SERVER_CLOSING:
		t->state = TOOL_SERVER_ENDING;
		signal_it(t, SIGTERM);
		timer_set(t->deadline, GRACE_MS);
		break;
	case TOOL_SERVER_ENDING:
		t->state = TOOL_SERVER_KILLED;
		log_info("mcp server killed server=%s pid=%d", t->program->name, (int)t->pid);
		signal_it(t, SIGKILL);
		break;
	default:
		break;
	}
}

static void
log_end(const struct tool_server *t, int status)
{
	char how[REAP_TEXT_MAX];
	bool was_told = t->state != TOOL_SERVER_RUNNING;

	reap_describe(status, how);
	log_at(was_told ? LOG_INFO : LOG_WARN,
	    "mcp server ended server=%s pid=%d %s uptime_ms=%" PRIu64, t->program->name,
	    (int)t->pid, how, clock_mono_ms() - t->started_ms);
}

static void
ended(struct tool_server *t, int status)
{
	take_words(t, "\n", 1);
	log_end(t, status);
	kill(-t->pid, SIGKILL); /* what it has left behind */
	t->pid = 0;
	close_pipes(t);
	evtimer_del(t->deadline);
	if (clock_mono_ms() - t->started_ms >= GOOD_LIFE_MS)
		t->backoff_ms = t->program->backoff_ms;
	t->state = TOOL_SERVER_IDLE;
	t->handlers->on_ended(t->arg, t);
	if (t->is_wanted && t->state == TOOL_SERVER_IDLE)
		pause_it(t);
}

bool
tool_server_ended(struct tool_server *t, pid_t pid, int status)
{
	if (t->pid == 0 || t->pid != pid)
		return false;
	ended(t, status);
	return true;
}

/* ---- verbs ---- */

void
tool_server_start(struct tool_server *t)
{
	t->is_wanted = true;
	if (t->state == TOOL_SERVER_IDLE)
		run(t);
}

static void
close_input(struct tool_server *t)
{
	t->state = TOOL_SERVER_CLOSING;
	close_fd(&t->in_fd);
	timer_set(t->deadline, GRACE_MS);
}

void
tool_server_stop(struct tool_server *t)
{
	t->is_wanted = false;
	if (t->state == TOOL_SERVER_RUNNING) {
		close_input(t);
	} else if (t->state == TOOL_SERVER_PAUSED) {
		evtimer_del(t->deadline);
		t->state = TOOL_SERVER_IDLE;
	}
}

void
tool_server_restart(struct tool_server *t)
{
	if (t->state != TOOL_SERVER_RUNNING)
		return;
	t->is_hung = true;
	close_input(t);
}

enum tool_server_state
tool_server_state(const struct tool_server *t)
{
	return t->state;
}

const struct tool_server_program *
tool_server_program(const struct tool_server *t)
{
	return t->program;
}

uint64_t
tool_server_life(const struct tool_server *t)
{
	return t->life;
}

void
tool_server_pipes(const struct tool_server *t, int ret[2])
{
	check(t->state == TOOL_SERVER_RUNNING);
	ret[0] = t->in_fd;
	ret[1] = t->out_fd;
}

struct tool_server *
tool_server_new(struct event_base *base, const struct tool_server_program *program,
    const struct tool_server_handlers *handlers, void *arg)
{
	struct tool_server *t = xcalloc(1, sizeof(*t));

	t->base = base;
	t->program = program;
	t->handlers = handlers;
	t->arg = arg;
	t->backoff_ms = program->backoff_ms;
	t->restarts_ms = xcalloc(program->max_restarts + 1, sizeof(uint64_t));
	t->in_fd = t->out_fd = t->words_fd = -1;
	t->deadline = timer_new(base, on_deadline, t);
	t->words_again = timer_new(base, on_words_again, t);
	return t;
}

void
tool_server_free(struct tool_server **ref)
{
	struct tool_server *t = *ref;

	if (t == NULL)
		return;
	*ref = NULL;
	if (t->pid != 0) {
		signal_it(t, SIGKILL);
		while (waitpid(t->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close_pipes(t);
	event_free(t->deadline);
	event_free(t->words_again);
	free(t->restarts_ms);
	free(t);
}
