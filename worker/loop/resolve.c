/* resolve - see resolve.h. */
#include "worker/loop/resolve.h"

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"

/* Belongs to the loop until the thread begins, then to both: who comes last frees it. */
struct resolve {
	struct loop *loop;
	char *host;
	char port[8];
	resolve_on_done *on_done;
	void *arg;
	struct loop_post post;
	struct netaddr addrs[RESOLVE_MAX];
	size_t count;
	const char *error;

	pthread_mutex_t lock;
	bool is_done, is_abandoned;
};

static void
resolve_free(struct resolve *r)
{
	pthread_mutex_destroy(&r->lock);
	free(r->host);
	free(r);
}

/* flags AI_NUMERICHOST: asks nobody. */
static void
look_up(struct resolve *r, int flags)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
	struct addrinfo *list = NULL;
	int err = getaddrinfo(r->host, r->port, &hints, &list);

	if (err != 0) {
		r->error = gai_strerror(err);
		return;
	}
	for (struct addrinfo *a = list; a != NULL && r->count < RESOLVE_MAX; a = a->ai_next) {
		struct netaddr *to = &r->addrs[r->count++];

		memcpy(&to->storage, a->ai_addr, a->ai_addrlen);
		to->len = a->ai_addrlen;
	}
	freeaddrinfo(list);
}

static void *
thread_main(void *arg)
{
	struct resolve *r = arg;

	look_up(r, AI_ADDRCONFIG);
	pthread_mutex_lock(&r->lock);
	bool is_abandoned = r->is_abandoned;
	r->is_done = true;
	if (!is_abandoned)
		loop_post(r->loop, &r->post);
	pthread_mutex_unlock(&r->lock);
	if (is_abandoned)
		resolve_free(r);
	return NULL;
}

static void
run_done(struct loop_post *post)
{
	struct resolve *r = container_of(post, struct resolve, post);

	pthread_mutex_lock(&r->lock); /* the thread has let go */
	pthread_mutex_unlock(&r->lock);
	r->on_done(r->arg, r->addrs, r->count, r->error);
	resolve_free(r);
}

static bool
start_thread(struct resolve *r)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 256 << 10);
	int err = pthread_create(&thread, &attr, thread_main, r);
	pthread_attr_destroy(&attr);
	return err == 0;
}

struct resolve *
resolve_start(
    struct loop *loop, const char *host, uint16_t port, resolve_on_done *on_done, void *arg)
{
	struct resolve *r = xcalloc(1, sizeof(*r));

	r->loop = loop;
	r->host = xstrdup(host);
	snprintf(r->port, sizeof(r->port), "%u", port);
	r->on_done = on_done;
	r->arg = arg;
	r->post.run = run_done;
	pthread_mutex_init(&r->lock, NULL);
	look_up(r, AI_NUMERICHOST);
	if (r->count == 0) {
		r->error = NULL;
		if (start_thread(r))
			return r;
		r->error = "no thread";
	}
	r->is_done = true;
	loop_post(loop, &r->post);
	return r;
}

void
resolve_cancel(struct resolve **ref)
{
	struct resolve *r = *ref;

	if (r == NULL)
		return;
	*ref = NULL;
	pthread_mutex_lock(&r->lock);
	r->is_abandoned = true;
	bool is_done = r->is_done;
	pthread_mutex_unlock(&r->lock);
	if (!is_done)
		return;
	loop_post_cancel(r->loop, &r->post);
	resolve_free(r);
}
