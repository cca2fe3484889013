/*
 * host - one line to the master's control socket, its answer to the client.
 *
 *   connected --line--> WAITING --the end of the answer, or too late--> answered
 */
#include "worker/api/host.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/log.h"
#include "worker/api/endpoints.h"

enum {
	ANSWER_BYTES_MAX = 64 << 10,
	ANSWER_EXTRA_MS = 10000, /* beyond what a reload may take to show that it works */
	READ_BYTES = 4096,
};

struct host_asks {
	struct api *api;
	struct list all; /* struct ask */
};

struct ask {
	struct list node;
	struct api_call *call;
	struct loop *loop;
	struct loop_watch watch;
	struct loop_timer deadline;
	struct buf answer;
};

static void
ask_free(struct ask *a)
{
	list_del(&a->node);
	loop_timer_stop(a->loop, &a->deadline);
	loop_watch_stop(a->loop, &a->watch);
	close(a->watch.fd);
	buf_fini(&a->answer);
	free(a);
}

/* "ok\n" or "error ", then lines for people. */
static void
give_answer(struct ask *a)
{
	struct str text = buf_str(&a->answer);
	struct api_call *call = a->call;

	while (text.len > 0 && text.p[text.len - 1] == '\n')
		a->answer.data[--text.len] = '\0';
	if (str_starts(text, STR("ok\n"))) {
		call_reply_json(call, 202, json_pack("{s:s}", "message", text.p + strlen("ok\n")));
	} else if (str_starts(text, STR("error "))) {
		call_reply_error(call, E_CONFLICT, NULL, text.p + strlen("error "));
	} else {
		call_reply_retry(call, E_UNAVAILABLE, 1, "The master did not answer.");
	}
	ask_free(a);
}

static void
on_readable(struct loop_watch *w, uint32_t events)
{
	struct ask *a = container_of(w, struct ask, watch);
	ssize_t n = recv(w->fd, buf_reserve(&a->answer, READ_BYTES), READ_BYTES, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		a->answer.len += (size_t)n;
	buf_add(&a->answer, "", 0); /* the NUL */
	if (n <= 0 || a->answer.len >= ANSWER_BYTES_MAX)
		give_answer(a);
}

static void
on_deadline(struct loop_timer *t)
{
	struct ask *a = container_of(t, struct ask, deadline);

	buf_clear(&a->answer);
	give_answer(a);
}

/* A connected socket with the question on its way, or -1. */
static int
send_line(const struct conf *conf, const char *line)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	char *path = xasprintf("%s/control", conf->run_dir);
	bool fits = strlen(path) < sizeof(un.sun_path);

	if (fits)
		memcpy(un.sun_path, path, strlen(path) + 1);
	free(path);
	int fd = fits ? socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
	if (fd < 0)
		return -1;
	if (connect(fd, (const struct sockaddr *)&un, sizeof(un)) != 0 ||
	    send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void
ask_master(struct api_call *call, const char *line)
{
	struct api *api = call->api;
	int fd = send_line(api->conf, line);

	if (fd < 0) {
		log_warn("master not asked error=%s", log_quote(str_of(strerror(errno))).s);
		call_reply_retry(call, E_UNAVAILABLE, 1, "The master is not there.");
		return;
	}
	struct ask *a = xcalloc(1, sizeof(*a));
	a->call = call;
	a->loop = api->loop;
	a->watch.on_ready = on_readable;
	a->deadline.on_fire = on_deadline;
	list_add_tail(&api->host_asks->all, &a->node);
	loop_watch_start(a->loop, &a->watch, fd, EPOLLIN);
	loop_timer_set(
	    a->loop, &a->deadline, api->conf->watchdog.start_timeout_ms + ANSWER_EXTRA_MS);
}

static void
post_drain(struct api_call *call, struct http_req *req)
{
	(void)req;
	log_info("drain asked for key=%s", call->key_id);
	ask_master(call, "drain\n");
}

static void
post_reload(struct api_call *call, struct http_req *req)
{
	(void)req;
	log_info("reload asked for key=%s", call->key_id);
	ask_master(call, "reload\n");
}

struct host_asks *
host_asks_new(struct api *api)
{
	struct host_asks *asks = xcalloc(1, sizeof(*asks));

	asks->api = api;
	list_init(&asks->all);
	return asks;
}

void
host_asks_free(struct host_asks **ref)
{
	struct host_asks *asks = *ref;

	if (asks == NULL)
		return;
	*ref = NULL;
	list_for_safe (node, &asks->all) {
		struct ask *a = list_entry(node, struct ask, node);

		call_end(a->call);
		ask_free(a);
	}
	free(asks);
}

const struct api_endpoint host_endpoints[] = {
    {"POST", "/admin/v1/drain", HTTP_LONG | HTTP_SAME_ORIGIN, API_ADMIN, post_drain},
    {"POST", "/admin/v1/reload", HTTP_LONG | HTTP_SAME_ORIGIN, API_ADMIN, post_reload},
    {NULL, NULL, 0, 0, NULL},
};
