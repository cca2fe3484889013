/*
 * serve: a real master with real sockets and signals, and workers of our own: a worker
 * answers each connection with its slot and pid and can be told to misbehave.
 */
#include "t/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/handoff.h"
#include "common/proto.h"
#include "common/str.h"
#include "master/control.h"
#include "master/serve.h"

enum { WORKERS = 2, WAIT_MS = 60000, LISTENERS_MAX = 16 };

/* What the workers are told, and tell; shared by all processes of the test. */
static struct play {
	_Atomic int starts;
	_Atomic int migrations;
	_Atomic bool dies_early;   /* exits before it is ready */
	_Atomic bool is_silent;    /* sends no LOAD, and does not end when told to */
	_Atomic int busy_ms;       /* how long it computes when it is told to end */
	_Atomic bool accepts_none; /* leaves what comes in the accept queue */
	_Atomic int reopened;
	_Atomic int64_t last_drain_ms;
} * play;

/* ---- the worker ---- */

struct actor {
	const struct handoff *h;
	bool is_draining;
};

static void
say(const struct handoff *h, enum proto_type type)
{
	struct proto_message m = {.type = type, .slot = h->slot, .who = h->who};

	proto_send(h->master_fd, &m);
}

static void
answer_all(const struct handoff *h, int listen_fd)
{
	char text[64];
	int fd;

	if (play->accepts_none)
		return;
	while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		int len = snprintf(
		    text, sizeof(text), "%u %d %s", h->slot, (int)getpid(), h->conf->log.level);

		if (write(fd, text, (size_t)len) < 0)
			perror("write");
		close(fd);
	}
}

static bool
obey(struct actor *a)
{
	struct proto_message m;
	int got;

	while ((got = proto_recv(a->h->master_fd, &m)) > 0) {
		if (m.type == PROTO_REOPEN)
			play->reopened++;
		if (m.type == PROTO_DRAIN) {
			play->last_drain_ms = m.value;
			a->is_draining = !play->is_silent;
		}
	}
	return got != 0;
}

int
worker_main(const struct handoff *h)
{
	struct actor a = {.h = h};
	struct pollfd fds[LISTENERS_MAX + 1];
	uint32_t n = h->listener_count;

	play->starts++;
	if (play->dies_early)
		return 3;
	for (uint32_t i = 0; i < n; i++)
		fds[i] = (struct pollfd){h->listeners[i].fd, POLLIN, 0};
	fds[n] = (struct pollfd){h->master_fd, POLLIN, 0};
	shm_row_set_state(h->shm, h->who, SHM_READY);
	say(h, PROTO_READY);
	while (!a.is_draining) {
		poll(fds + (play->accepts_none ? n : 0), play->accepts_none ? 1 : n + 1, 20);
		for (uint32_t i = 0; i < n; i++)
			answer_all(h, h->listeners[i].fd);
		if (!obey(&a))
			return 0;
		if (!play->is_silent)
			say(h, PROTO_LOAD);
	}
	uint64_t told_ms = clock_mono_ms();
	while (clock_mono_ms() - told_ms < (uint64_t)play->busy_ms)
		;
	say(h, PROTO_BYE);
	return 0;
}

int
worker_migrate(const struct conf *conf)
{
	play->migrations++;
	return strcmp(conf->store.url, "sqlite:broken") == 0 ? 1 : 0;
}

int
worker_key_command(const struct conf *conf, int argc, char **argv)
{
	(void)conf, (void)argc, (void)argv;
	return 1;
}

/* ---- the server under test ---- */

struct host {
	char dir[64], config[96], log[96], address[64];
	pid_t master;
	uint16_t port;
};

static void
write_config(const struct host *t, const char *more)
{
	FILE *f = fopen(t->config, "w");

	assert_non_null(f);
	fprintf(f,
	    "listen: [\"127.0.0.1:0\", \"unix:%s/http.sock\"]\nworkers: %d\nrun_dir: %s/run\n"
	    "log: {file: \"%s\", level: %s}\n%s",
	    t->dir, WORKERS, t->dir, t->log, strstr(more, "debug") != NULL ? "debug" : "info",
	    strstr(more, "drain:") != NULL ? "" : "drain: {pause: 0s, timeout: 2s}\n");
	fputs(more, f);
	fclose(f);
}

static void
host_init(struct host *t)
{
	*t = (struct host){.master = 0};
	memset(play, 0, sizeof(*play));
	strcpy(t->dir, "/tmp/parley-serve-XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->config, sizeof(t->config), "%s/parley.yaml", t->dir);
	snprintf(t->log, sizeof(t->log), "%s/log", t->dir);
}

static _Noreturn void
run_master(int argc, char **argv)
{
	struct options options;
	struct buf error = BUF_INIT;

	assert_true(options_parse(&options, argc, argv, &error));
	struct conf_source source = options_conf_source(&options, NULL);
	struct conf *conf = conf_load(&source, &error);
	if (conf == NULL) {
		fprintf(stderr, "%s", error.data);
		exit(78);
	}
	int status = serve(conf, &options, NULL);
	options_fini(&options);
	exit(status);
}

static pid_t
spawn_master(const struct host *t)
{
	char name[] = "parleyd", flag[] = "--config", file[sizeof(t->config)];
	char *argv[] = {name, flag, file, NULL};

	pid_t pid = fork();
	if (pid != 0)
		return pid;
	strcpy(file, t->config);
	run_master(3, argv);
}

static bool
log_has(const struct host *t, const char *text)
{
	static char all[1 << 20];
	FILE *f = fopen(t->log, "r");

	if (f == NULL)
		return false;
	all[fread(all, 1, sizeof(all) - 1, f)] = '\0';
	fclose(f);
	return strstr(all, text) != NULL;
}

#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		uint64_t end_ms_ = clock_mono_ms() + WAIT_MS;                                      \
		while (!(condition)) {                                                             \
			if (clock_mono_ms() > end_ms_)                                             \
				fail_msg("waited in vain for %s", #condition);                     \
			poll(NULL, 0, 2);                                                          \
		}                                                                                  \
	} while (0)

static uint16_t
read_port(const struct host *t)
{
	char path[96];
	unsigned port = 0;

	snprintf(path, sizeof(path), "%s/run/addresses", t->dir);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "http 127.0.0.1:%u", &port), 1);
	fclose(f);
	return (uint16_t)port;
}

static void
host_start(struct host *t, const char *more)
{
	host_init(t);
	write_config(t, more);
	t->master = spawn_master(t);
	WAIT_FOR(log_has(t, "server ready"));
	t->port = read_port(t);
}

static bool
has_ended(pid_t pid, int wait_ms)
{
	siginfo_t info = {.si_pid = 0};
	uint64_t end_ms = clock_mono_ms() + (uint64_t)wait_ms;

	while (info.si_pid == 0 && clock_mono_ms() < end_ms) {
		waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);
		poll(NULL, 0, 2);
	}
	return info.si_pid == pid;
}

static int
wait_status(pid_t pid)
{
	int status;

	WAIT_FOR(waitpid(pid, &status, WNOHANG) == pid);
	return status;
}

static void
remove_dir(const struct host *t)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", t->dir);
	assert_int_equal(system(command), 0);
}

static void
host_stop(struct host *t)
{
	kill(t->master, SIGTERM);
	int status = wait_status(t->master);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	remove_dir(t);
}

static int
connect_port(uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

struct greeting {
	unsigned slot;
	int pid;
	char level[16];
};

/* False: the connection was reset or nothing came in time. */
static bool
read_greeting(int fd, struct greeting *ret)
{
	struct pollfd p = {fd, POLLIN, 0};
	char text[64] = "";

	if (poll(&p, 1, WAIT_MS) != 1 || read(fd, text, sizeof(text) - 1) <= 0)
		return false;
	close(fd);
	return sscanf(text, "%u %d %15s", &ret->slot, &ret->pid, ret->level) == 3;
}

static struct greeting
greet(const struct host *t)
{
	struct greeting g;

	assert_true(read_greeting(connect_port(t->port), &g));
	return g;
}

/* A worker of that slot, found by asking often enough. */
static int
pid_of_slot(const struct host *t, unsigned slot)
{
	struct greeting g;

	for (int i = 0; i < 1000; i++) {
		g = greet(t);
		if (g.slot == slot)
			return g.pid;
	}
	fail_msg("slot %u never answered", slot);
	return 0;
}

/* ---- tests ---- */

static void
test_all_slots_serve_and_stop(void **state)
{
	struct host t;

	host_start(&t, "");
	assert_int_equal(play->migrations, 1);
	assert_int_not_equal(pid_of_slot(&t, 0), pid_of_slot(&t, 1));
	host_stop(&t);
}

static int
connect_unix(const struct host *t)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s/http.sock", t->dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void
test_a_unix_path_is_shared_and_a_stale_one_replaced(void **state)
{
	struct host t;
	struct greeting g;

	host_start(&t, "");
	assert_true(read_greeting(connect_unix(&t), &g));
	kill(t.master, SIGKILL); /* leaves the path behind */
	wait_status(t.master);
	t.master = spawn_master(&t);
	WAIT_FOR(play->starts == 2 * WORKERS && log_has(&t, "server ready"));
	assert_true(read_greeting(connect_unix(&t), &g));
	host_stop(&t);
}

static void
test_a_killed_worker_is_replaced_and_its_queue_served(void **state)
{
	enum { QUEUED = 32 };
	struct host t;
	int fds[QUEUED], served_by_successor = 0;
	struct greeting g;

	host_start(&t, "");
	int victim = pid_of_slot(&t, 0);
	play->accepts_none = true;
	poll(NULL, 0, 50); /* the workers see it within their 20 ms */
	for (int i = 0; i < QUEUED; i++)
		fds[i] = connect_port(t.port);
	uint64_t killed_ms = clock_mono_ms();
	kill(victim, SIGKILL);
	WAIT_FOR(play->starts == WORKERS + 1);
	assert_true(clock_mono_ms() - killed_ms < 100);
	play->accepts_none = false;
	for (int i = 0; i < QUEUED; i++) {
		assert_true(read_greeting(fds[i], &g));
		served_by_successor += g.slot == 0;
	}
	assert_true(served_by_successor > 0);
	assert_int_not_equal(pid_of_slot(&t, 0), victim);
	assert_true(log_has(&t, "worker died"));
	assert_true(log_has(&t, "signal=KILL"));
	host_stop(&t);
}

static void
test_a_worker_that_never_works_is_tried_again_later(void **state)
{
	struct host t;

	host_init(&t);
	play->dies_early = true;
	write_config(&t, "watchdog: {backoff: 20ms, backoff_max: 80ms}\n");
	t.master = spawn_master(&t);
	WAIT_FOR(play->starts >= 4 * WORKERS);
	assert_true(log_has(&t, "exit=3 was_ready=no"));
	play->dies_early = false;
	WAIT_FOR(log_has(&t, "server ready"));
	t.port = read_port(&t);
	greet(&t);
	host_stop(&t);
}

static void
test_a_silent_worker_is_aborted(void **state)
{
	struct host t;

	host_start(&t, "watchdog: {silence: 200ms}\n");
	int pid = pid_of_slot(&t, 1);
	kill(pid, SIGSTOP); /* takes no SIGABRT either */
	WAIT_FOR(log_has(&t, "worker stalled slot=1"));
	WAIT_FOR(play->starts == WORKERS + 1);
	assert_int_not_equal(pid_of_slot(&t, 1), pid);
	host_stop(&t);
}

static void
test_reload_rolls_through_the_slots(void **state)
{
	struct host t;

	host_start(&t, "");
	int before[WORKERS] = {pid_of_slot(&t, 0), pid_of_slot(&t, 1)};
	write_config(&t, "# debug\n");
	kill(t.master, SIGHUP);
	WAIT_FOR(log_has(&t, "reload done"));
	for (unsigned slot = 0; slot < WORKERS; slot++) {
		WAIT_FOR(pid_of_slot(&t, slot) != before[slot]);
		WAIT_FOR(kill(before[slot], 0) != 0);
	}
	assert_string_equal(greet(&t).level, "debug");
	host_stop(&t);
}

static void
test_reload_of_a_bad_config_changes_nothing(void **state)
{
	struct host t;

	host_start(&t, "");
	int before = pid_of_slot(&t, 0);
	write_config(&t, "max_conections: 5\n");
	kill(t.master, SIGHUP);
	WAIT_FOR(log_has(&t, "reload failed"));
	assert_true(log_has(&t, "max_conections"));
	assert_int_equal(pid_of_slot(&t, 0), before);
	assert_int_equal(play->starts, WORKERS);
	host_stop(&t);
}

static void
test_reload_is_given_up_when_no_worker_can_run_it(void **state)
{
	struct host t;

	host_start(&t, "");
	int before = pid_of_slot(&t, 0);
	play->dies_early = true;
	kill(t.master, SIGHUP);
	WAIT_FOR(log_has(&t, "reload failed"));
	play->dies_early = false;
	assert_int_equal(pid_of_slot(&t, 0), before);
	kill(t.master, SIGHUP);
	WAIT_FOR(log_has(&t, "reload done"));
	host_stop(&t);
}

static void
test_a_restart_key_is_named_and_stays(void **state)
{
	struct host t;

	host_start(&t, "");
	write_config(&t, "backlog: 1024\n");
	kill(t.master, SIGHUP);
	WAIT_FOR(log_has(&t, "key=backlog"));
	WAIT_FOR(log_has(&t, "reload done"));
	host_stop(&t);
}

static void
test_usr1_reopens_logs_everywhere(void **state)
{
	struct host t;
	char rotated[128];

	host_start(&t, "");
	snprintf(rotated, sizeof(rotated), "%s.1", t.log);
	assert_int_equal(rename(t.log, rotated), 0);
	kill(t.master, SIGUSR1);
	WAIT_FOR(play->reopened == WORKERS && log_has(&t, "log reopened"));
	host_stop(&t);
}

static void
test_a_second_stop_is_at_once(void **state)
{
	struct host t;

	host_start(&t, "drain: {pause: 60s, timeout: 60s}\n");
	kill(t.master, SIGTERM);
	WAIT_FOR(log_has(&t, "stopping pause_ms=60000"));
	greet(&t); /* the pause still serves */
	kill(t.master, SIGTERM);
	assert_false(has_ended(t.master, 100)); /* the same wish, told twice */
	WAIT_FOR(kill(t.master, SIGTERM) == 0 && has_ended(t.master, 700));
	int status = wait_status(t.master);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	remove_dir(&t);
	assert_int_equal(play->last_drain_ms, 0);
}

static void
test_a_worker_that_does_not_end_is_killed(void **state)
{
	struct host t;

	host_start(&t, "drain: {pause: 0s, timeout: 100ms}\nwatchdog: {silence: 10m}\n");
	play->is_silent = true;
	kill(t.master, SIGTERM);
	int status = wait_status(t.master);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_true(log_has(&t, "worker killed"));
	remove_dir(&t);
}

static void
test_a_worker_that_is_busy_ending_is_not_killed(void **state)
{
	struct host t;

	(void)state;
	host_start(&t, "drain: {pause: 0s, timeout: 100ms}\nwatchdog: {silence: 10m}\n");
	play->busy_ms = 2000;
	kill(t.master, SIGTERM);
	int status = wait_status(t.master);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_false(log_has(&t, "worker killed"));
	remove_dir(&t);
}

static void
test_workers_end_with_their_master(void **state)
{
	struct host t;

	host_start(&t, "");
	play->is_silent = true;
	int pids[WORKERS] = {pid_of_slot(&t, 0), pid_of_slot(&t, 1)};
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* the orphans become ours */
	kill(t.master, SIGKILL);
	wait_status(t.master);
	uint64_t died_ms = clock_mono_ms();
	for (int i = 0; i < WORKERS; i++)
		wait_status(pids[i]);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	assert_true(clock_mono_ms() - died_ms < 1000);
	remove_dir(&t);
}

static void
test_two_masters_do_not_share_a_run_dir(void **state)
{
	struct host t;

	host_start(&t, "");
	int status = wait_status(spawn_master(&t));
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
	assert_true(log_has(&t, "another server uses it"));
	greet(&t);
	host_stop(&t);
}

static void
test_a_taken_port_is_an_error(void **state)
{
	struct host t, other;
	char more[64];

	host_start(&t, "");
	struct play saved = *play;
	host_init(&other);
	*play = saved;
	snprintf(more, sizeof(more), "metrics: {listen: \"127.0.0.1:%u\"}\n", t.port);
	write_config(&other, more);
	int status = wait_status(spawn_master(&other));
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
	assert_true(log_has(&other, "another process listens there"));
	remove_dir(&other);
	host_stop(&t);
}

static void
test_a_failed_migration_stops_the_start(void **state)
{
	struct host t;

	host_init(&t);
	write_config(&t, "store: {url: \"sqlite:broken\"}\n");
	int status = wait_status(spawn_master(&t));
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
	assert_int_equal(play->starts, 0);
	assert_true(log_has(&t, "migration failed"));
	remove_dir(&t);
}

static struct buf
ask(const struct host *t, const char *verb, bool expected)
{
	struct conf_source source = {.file = t->config};
	struct buf out = BUF_INIT;
	bool is_running;

	struct conf *conf = conf_load(&source, &out);
	assert_non_null(conf);
	assert_true(control_ask(conf, verb, &out, &is_running) == expected);
	conf_free(&conf);
	return out;
}

static void
test_the_control_socket(void **state)
{
	struct host t;

	host_start(&t, "");
	struct buf out = ask(&t, "status", true);
	assert_non_null(strstr(out.data, "\"configured\":2,\"ready\":2,"));
	char pid[32];
	snprintf(pid, sizeof(pid), "\"pid\":%d,", pid_of_slot(&t, 1));
	assert_non_null(strstr(out.data, pid));
	buf_fini(&out);
	out = ask(&t, "reload", true);
	buf_fini(&out);
	WAIT_FOR(log_has(&t, "reload done"));
	out = ask(&t, "keys", true);
	buf_fini(&out);
	out = ask(&t, "dance", false);
	assert_string_equal(out.data, "unknown command\n");
	buf_fini(&out);
	out = ask(&t, "drain", true);
	buf_fini(&out);
	int status = wait_status(t.master);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	out = ask(&t, "status", false);
	assert_non_null(strstr(out.data, "no server is running"));
	buf_fini(&out);
	remove_dir(&t);
}

/* ---- systemd ---- */

/* Is it in what was told since told was empty? */
static bool
was_notified(int fd, struct buf *told, const char *text)
{
	char got[512];
	ssize_t n;

	while ((n = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT)) > 0) {
		buf_add(told, got, (size_t)n);
		buf_add_char(told, '\n');
	}
	return told->data != NULL && strstr(told->data, text) != NULL;
}

static void
test_systemd_is_told(void **state)
{
	struct host t;
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct buf told = BUF_INIT;

	host_init(&t);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s/notify", t.dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	setenv("NOTIFY_SOCKET", un.sun_path, 1);
	setenv("WATCHDOG_USEC", "200000", 1);
	write_config(&t, "");
	t.master = spawn_master(&t);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	WAIT_FOR(was_notified(fd, &told, "FDNAME=parley-http"));
	WAIT_FOR(was_notified(fd, &told, "READY=1"));
	WAIT_FOR(was_notified(fd, &told, "WATCHDOG=1"));
	WAIT_FOR(was_notified(fd, &told, "STATUS=running, 2 of 2 workers ready"));
	buf_clear(&told);
	kill(t.master, SIGHUP);
	WAIT_FOR(was_notified(fd, &told, "RELOADING=1\nMONOTONIC_USEC="));
	WAIT_FOR(was_notified(fd, &told, "READY=1"));
	kill(t.master, SIGTERM);
	WAIT_FOR(was_notified(fd, &told, "STOPPING=1"));
	int status = wait_status(t.master);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	buf_fini(&told);
	close(fd);
	remove_dir(&t);
}

/* ---- a stand-in for systemd: it hears, keeps descriptors, and gives them to the next master ----
 */

struct keeper {
	int fd;
	char path[96];
	struct buf told;
	int kept[LISTENERS_MAX];
	char names[LISTENERS_MAX][32];
	int kept_count;
	struct ucred last; /* who said the last */
};

static void
keeper_open(struct keeper *k, const struct host *t)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int on = 1;

	*k = (struct keeper){.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
	snprintf(un.sun_path, sizeof(un.sun_path), "%s/notify", t->dir);
	assert_int_equal(bind(k->fd, (struct sockaddr *)&un, sizeof(un)), 0);
	setsockopt(k->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	setenv("NOTIFY_SOCKET", un.sun_path, 1);
}

static void
keeper_forget(struct keeper *k, const char *name)
{
	int left = 0;

	for (int i = 0; i < k->kept_count; i++) {
		if (strcmp(k->names[i], name) == 0) {
			close(k->kept[i]);
			continue;
		}
		k->kept[left] = k->kept[i];
		memmove(k->names[left++], k->names[i], sizeof(k->names[0]));
	}
	k->kept_count = left;
}

static void
keeper_take(struct keeper *k, struct msghdr *m, const char *text)
{
	char name[32] = "";

	sscanf(text, "FDSTORE%*[^\n]\nFDNAME=%31[^\n]", name);
	if (strncmp(text, "FDSTOREREMOVE=1", 15) == 0)
		keeper_forget(k, name);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_type == SCM_CREDENTIALS)
			memcpy(&k->last, CMSG_DATA(c), sizeof(k->last));
		if (c->cmsg_type == SCM_RIGHTS) {
			assert_true(k->kept_count < LISTENERS_MAX);
			strcpy(k->names[k->kept_count], name);
			memcpy(&k->kept[k->kept_count++], CMSG_DATA(c), sizeof(int));
		}
	}
}

static bool
keeper_heard(struct keeper *k, const char *text)
{
	char got[1024];
	union {
		struct cmsghdr head;
		char bytes[256];
	} control;
	ssize_t n;

	for (;;) {
		struct iovec iov = {got, sizeof(got) - 1};
		struct msghdr m = {.msg_iov = &iov,
		    .msg_iovlen = 1,
		    .msg_control = &control,
		    .msg_controllen = sizeof(control)};

		if ((n = recvmsg(k->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) <= 0)
			break;
		got[n] = '\0';
		keeper_take(k, &m, got);
		buf_add(&k->told, got, (size_t)n);
		buf_add_char(&k->told, '\n');
	}
	return k->told.data != NULL && strstr(k->told.data, text) != NULL;
}

static void
keeper_close(struct keeper *k)
{
	for (int i = 0; i < k->kept_count; i++)
		close(k->kept[i]);
	close(k->fd);
	buf_fini(&k->told);
	unsetenv("NOTIFY_SOCKET");
}

/* The next master gets what was kept, as LISTEN_FDS. */
static pid_t
spawn_master_with(const struct host *t, const struct keeper *k)
{
	char text[32], names[LISTENERS_MAX * 16] = "";

	pid_t pid = fork();
	if (pid != 0)
		return pid;
	for (int i = 0; i < k->kept_count; i++) {
		dup2(k->kept[i], 100 + i); /* out of the way */
		strcat(names, i > 0 ? ":parley-http" : "parley-http");
	}
	for (int i = 0; i < k->kept_count; i++)
		dup2(100 + i, 3 + i);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	setenv("LISTEN_PID", text, 1);
	snprintf(text, sizeof(text), "%d", k->kept_count);
	setenv("LISTEN_FDS", text, 1);
	setenv("LISTEN_FDNAMES", names, 1);
	char name[] = "parleyd", flag[] = "--config", file[sizeof(t->config)];
	char *argv[] = {name, flag, file, NULL};
	strcpy(file, t->config);
	run_master(3, argv);
}

static void
test_a_master_that_died_leaves_its_sockets_to_the_next(void **state)
{
	enum { QUEUED = 16 };
	struct host t;
	struct keeper k;
	struct greeting g;
	int fds[QUEUED];
	char more[96];

	(void)state;
	host_init(&t);
	keeper_open(&k, &t);
	/* A port of our own choosing, as a production host has. */
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	int probe = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(probe, (struct sockaddr *)&in, len), 0);
	assert_int_equal(getsockname(probe, (struct sockaddr *)&in, &len), 0);
	close(probe);
	t.port = ntohs(in.sin_port);
	snprintf(more, sizeof(more), "metrics: {listen: \"127.0.0.1:%u\"}\n", t.port);
	write_config(&t, more);
	t.master = spawn_master(&t);
	WAIT_FOR(keeper_heard(&k, "READY=1"));
	assert_int_equal(k.kept_count, 2 * WORKERS + 1);
	kill(t.master, SIGKILL);
	wait_status(t.master);
	for (int i = 0; i < QUEUED; i++) /* nobody is refused while there is no server */
		fds[i] = connect_port(t.port);
	buf_clear(&k.told);
	int before = play->starts;
	t.master = spawn_master_with(&t, &k);
	WAIT_FOR(play->starts == before + WORKERS && keeper_heard(&k, "READY=1"));
	for (int i = 0; i < QUEUED; i++)
		assert_true(read_greeting(fds[i], &g));
	/* In good order it takes them out of the store. */
	kill(t.master, SIGTERM);
	WAIT_FOR(keeper_heard(&k, "FDSTOREREMOVE=1\nFDNAME=parley-metrics"));
	int status = wait_status(t.master);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	keeper_close(&k);
	remove_dir(&t);
}

static void
test_an_address_that_is_configured_no_more_is_not_kept(void **state)
{
	struct host t;
	struct keeper k;
	char more[160];

	(void)state;
	host_init(&t);
	keeper_open(&k, &t);
	snprintf(more, sizeof(more), "metrics: {listen: \"unix:%s/metrics\"}\n", t.dir);
	write_config(&t, more);
	t.master = spawn_master(&t);
	WAIT_FOR(keeper_heard(&k, "READY=1"));
	int kept = k.kept_count;
	assert_true(kept > 1 && strcmp(k.names[kept - 1], "parley-metrics") == 0);
	kill(t.master, SIGKILL);
	wait_status(t.master);
	buf_clear(&k.told);
	write_config(&t, "");
	t.master = spawn_master_with(&t, &k);
	WAIT_FOR(keeper_heard(&k, "READY=1"));
	assert_true(k.kept_count > 0);
	for (int i = 0; i < k.kept_count; i++)
		assert_string_equal(k.names[i], "parley-http");
	keeper_close(&k);
	host_stop(&t);
}

static void
test_a_new_binary_takes_over_and_systemd_is_told(void **state)
{
	struct host t;
	struct keeper k;
	char text[32];
	int pid = 0;

	(void)state;
	host_init(&t);
	keeper_open(&k, &t);
	write_config(&t, "");
	t.master = spawn_master(&t);
	WAIT_FOR(keeper_heard(&k, "READY=1"));
	t.port = read_port(&t);
	int before = pid_of_slot(&t, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* the new master becomes ours */
	buf_clear(&k.told);
	kill(t.master, SIGUSR2);
	WAIT_FOR(keeper_heard(&k, "READY=1"));
	const char *told = strstr(k.told.data, "MAINPID=");
	assert_non_null(told);
	assert_int_equal(sscanf(told, "MAINPID=%d", &pid), 1);
	assert_int_not_equal(pid, t.master);
	assert_true(told < strstr(k.told.data, "READY=1"));
	assert_null(strstr(k.told.data, "STOPPING=1"));
	int status = wait_status(t.master);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(read_port(&t), t.port);
	assert_int_not_equal(pid_of_slot(&t, 0), before);
	snprintf(text, sizeof(text), "\"pid\":%d,", pid);
	struct buf out = ask(&t, "status", true);
	assert_non_null(strstr(out.data, text));
	buf_fini(&out);
	WAIT_FOR(keeper_heard(&k, "STATUS=running, 2 of 2"));
	assert_int_equal(k.last.pid, pid);
	t.master = pid;
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	keeper_close(&k);
	host_stop(&t);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_all_slots_serve_and_stop),
	    cmocka_unit_test(test_a_unix_path_is_shared_and_a_stale_one_replaced),
	    cmocka_unit_test(test_a_killed_worker_is_replaced_and_its_queue_served),
	    cmocka_unit_test(test_a_worker_that_never_works_is_tried_again_later),
	    cmocka_unit_test(test_a_silent_worker_is_aborted),
	    cmocka_unit_test(test_reload_rolls_through_the_slots),
	    cmocka_unit_test(test_reload_of_a_bad_config_changes_nothing),
	    cmocka_unit_test(test_reload_is_given_up_when_no_worker_can_run_it),
	    cmocka_unit_test(test_a_restart_key_is_named_and_stays),
	    cmocka_unit_test(test_usr1_reopens_logs_everywhere),
	    cmocka_unit_test(test_a_second_stop_is_at_once),
	    cmocka_unit_test(test_a_worker_that_does_not_end_is_killed),
	    cmocka_unit_test(test_a_worker_that_is_busy_ending_is_not_killed),
	    cmocka_unit_test(test_workers_end_with_their_master),
	    cmocka_unit_test(test_two_masters_do_not_share_a_run_dir),
	    cmocka_unit_test(test_a_taken_port_is_an_error),
	    cmocka_unit_test(test_a_failed_migration_stops_the_start),
	    cmocka_unit_test(test_the_control_socket),
	    cmocka_unit_test(test_systemd_is_told),
	    cmocka_unit_test(test_a_master_that_died_leaves_its_sockets_to_the_next),
	    cmocka_unit_test(test_an_address_that_is_configured_no_more_is_not_kept),
	    cmocka_unit_test(test_a_new_binary_takes_over_and_systemd_is_told),
	};

	play = mmap(NULL, sizeof(*play), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (getenv("PARLEY_BEQUEST") != NULL) /* a master has started its successor: us */
		run_master(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
