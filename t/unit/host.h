/*
 * host - a real http_server in a child, for tests that speak to it over TCP. What
 * happens in it is told through memory that both share.
 *
 * The child ends in order when it is asked to, so that its leaks are seen.
 */
#ifndef T_UNIT_HOST_H
#define T_UNIT_HOST_H

#include "t/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/http/http.h"

enum { HOST_LIMIT_MS = 60000, HOST_LOOK_MS = 20 };

struct host {
	const struct http_route *routes; /* set by the test, as is what follows */
	size_t route_count;
	const struct conf_override *own;
	size_t own_count;
	size_t told_bytes;

	void *told; /* zeroed; the child writes, the test reads */
	_Atomic int *is_stopped;
	struct conf *conf;
	struct shm *shm;
	struct handoff_listener listener;
	struct sockaddr_in addr;
	pid_t pid;
	/* In the child. */
	struct loop *loop;
	struct http_server *server;
	struct loop_timer look;
};

static inline void *
host_share(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	check(p != MAP_FAILED);
	return p;
}

static inline void
host_on_look(struct loop_timer *t)
{
	struct host *h = container_of(t, struct host, look);

	if (getppid() == 1)
		_exit(1);
	if (atomic_load(h->is_stopped))
		loop_stop(h->loop);
	else
		loop_timer_set(h->loop, t, HOST_LOOK_MS);
}

static inline _Noreturn void
host_serve(struct host *h, struct shm_who who)
{
	struct log_conf log = {.level = LOG_ERROR};
	struct handoff handoff = {.conf = h->conf,
	    .shm = h->shm,
	    .who = who,
	    .listeners = &h->listener,
	    .listener_count = 1};

	signal(SIGPIPE, SIG_IGN);
	log_open(&log);
	metric_init(h->shm, who);
	h->loop = loop_new();
	h->server = http_server_new(h->loop, &handoff);
	http_server_add_routes(h->server, h->routes, h->route_count, h);
	check(http_server_start(h->server) == 0);
	h->look.on_fire = host_on_look;
	loop_timer_set(h->loop, &h->look, HOST_LOOK_MS);
	loop_run(h->loop);
	http_server_free(&h->server);
	loop_free(&h->loop);
	exit(0);
}

static inline void
host_start(struct host *h)
{
	struct conf_source source = {.overrides = h->own, .override_count = h->own_count};
	struct buf errors = BUF_INIT;
	socklen_t len = sizeof(h->addr);
	struct shm_who who;

	h->conf = conf_load(&source, &errors);
	if (h->conf == NULL)
		fail_msg("%s", errors.data);
	buf_fini(&errors);
	h->told = host_share(h->told_bytes);
	h->is_stopped = host_share(sizeof(*h->is_stopped));
	h->shm = shm_create(1);
	assert_true(shm_row_claim(h->shm, 0, 0, &who));
	h->listener = (struct handoff_listener){.is_loopback = true};
	h->listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	h->addr = (struct sockaddr_in){.sin_family = AF_INET};
	h->addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(h->listener.fd, (struct sockaddr *)&h->addr, len), 0);
	assert_int_equal(listen(h->listener.fd, 64), 0);
	assert_int_equal(getsockname(h->listener.fd, (struct sockaddr *)&h->addr, &len), 0);
	h->pid = fork();
	check(h->pid >= 0);
	if (h->pid == 0)
		host_serve(h, who);
}

/* It has not died before, and ends without a complaint. No connection may be open that was
 * upgraded. */
static inline void
host_stop(struct host *h)
{
	int status;

	atomic_store(h->is_stopped, 1);
	assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(h->listener.fd);
	munmap(h->told, h->told_bytes);
	munmap((void *)h->is_stopped, sizeof(*h->is_stopped));
	shm_free(&h->shm);
	conf_free(&h->conf);
}

/* Reads and writes of it fail after HOST_LIMIT_MS. */
static inline int
host_connect(const struct host *h)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct timeval limit = {.tv_sec = HOST_LIMIT_MS / 1000};

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	assert_int_equal(connect(fd, (const struct sockaddr *)&h->addr, sizeof(h->addr)), 0);
	return fd;
}

static inline bool
host_is_in_time(uint64_t until_ms)
{
	assert_true(clock_mono_ms() < until_ms);
	poll(NULL, 0, 2);
	return true;
}

/* Looks until it is true, for a bounded time; the statement after it is done meanwhile. */
#define HOST_WAIT(condition)                                                                       \
	for (uint64_t until_ms = clock_mono_ms() + HOST_LIMIT_MS;                                  \
	     !(condition) && host_is_in_time(until_ms);)

static inline void
host_wait(const _Atomic int *counter, int value)
{
	HOST_WAIT(atomic_load(counter) == value);
}

#endif
