/* fake_client - see fake_client.h. */
#include "t/replay/fake_client.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"

enum { REQUESTS_MAX = 1000 };

struct client {
	struct loop *loop;
};

struct client_pool {
	struct client *client;
	uint32_t in_use;
};

struct request {
	struct client_pool *pool; /* NULL: ended */
	char *url, *method;
	struct buf headers; /* "name: value\n" */
	struct buf body;
	struct client_handlers handlers;
	void *arg;
	struct loop_timer first_byte;
};

static struct request requests[REQUESTS_MAX];
static unsigned count;

/* ---- client.h ---- */

struct client *
client_new(struct loop *loop)
{
	struct client *c = xcalloc(1, sizeof(*c));

	c->loop = loop;
	return c;
}

void
client_free(struct client **c)
{
	free(*c);
	*c = NULL;
}

struct client_pool *
client_pool_new(struct client *c, const struct client_pool_conf *conf)
{
	struct client_pool *p = xcalloc(1, sizeof(*p));

	(void)conf;
	p->client = c;
	return p;
}

void
client_pool_free(struct client_pool **p)
{
	check((*p)->in_use == 0);
	free(*p);
	*p = NULL;
}

uint32_t
client_pool_in_use(const struct client_pool *p)
{
	return p->in_use;
}

uint32_t
client_pool_waiting(const struct client_pool *p)
{
	(void)p;
	return 0;
}

static void
request_close(struct request *r)
{
	loop_timer_stop(r->pool->client->loop, &r->first_byte);
	r->pool->in_use--;
	r->pool = NULL;
}

static void
on_no_first_byte(struct loop_timer *timer)
{
	struct request *r = container_of(timer, struct request, first_byte);

	fake_client_end((unsigned)(r - requests), CLIENT_TIMEOUT);
}

uint64_t
client_start(struct client_pool *p, const struct client_request *asked,
    const struct client_handlers *handlers, void *arg)
{
	check(count < REQUESTS_MAX);
	struct request *r = &requests[count++];

	*r = (struct request){.pool = p, .handlers = *handlers, .arg = arg};
	r->url = xstrdup(asked->url);
	r->method = xstrdup(asked->method);
	buf_add_str(&r->body, asked->body);
	for (size_t h = 0; h < asked->header_count; h++)
		buf_printf(
		    &r->headers, "%s: %s\n", asked->headers[h].name, asked->headers[h].value);
	r->first_byte.on_fire = on_no_first_byte;
	if (asked->first_byte_timeout_ms > 0)
		loop_timer_set(p->client->loop, &r->first_byte, asked->first_byte_timeout_ms);
	p->in_use++;
	return count; /* its index + 1 */
}

void
client_cancel(struct client *c, uint64_t handle)
{
	(void)c;
	check(handle > 0 && handle <= count);
	if (requests[handle - 1].pool != NULL)
		request_close(&requests[handle - 1]);
}

void
client_resume(struct client *c, uint64_t handle)
{
	(void)c, (void)handle;
}

/* ---- the upstream ---- */

unsigned
fake_client_requests(void)
{
	return count;
}

unsigned
fake_client_open(void)
{
	unsigned open = 0;

	for (unsigned i = 0; i < count; i++)
		open += requests[i].pool != NULL;
	return open;
}

bool
fake_client_is_open(unsigned i)
{
	check(i < count);
	return requests[i].pool != NULL;
}

const char *
fake_client_url(unsigned i)
{
	check(i < count);
	return requests[i].url;
}

const char *
fake_client_body(unsigned i)
{
	check(i < count);
	return requests[i].body.data;
}

const char *
fake_client_method(unsigned i)
{
	check(i < count);
	return requests[i].method;
}

const char *
fake_client_header(unsigned i, const char *name)
{
	static char value[256];
	struct str rest, line;

	check(i < count);
	rest = buf_str(&requests[i].headers);
	while (rest.len > 0) {
		line = str_split(&rest, '\n');
		struct str found = str_split(&line, ':');

		if (!str_ieq(found, str_of(name)))
			continue;
		line = str_trim(line);
		snprintf(value, sizeof(value), "%.*s", (int)line.len, line.p);
		return value;
	}
	return NULL;
}

void
fake_client_head_kept(unsigned i, int status, const char *type, const char *kept)
{
	struct client_head head = {
	    .status = status, .content_type = str_of(type), .kept = str_of(kept)};

	check(fake_client_is_open(i));
	requests[i].handlers.on_head(requests[i].arg, &head);
}

void
fake_client_head(unsigned i, int status, const char *type, const char *retry_after)
{
	struct client_head head = {
	    .status = status, .content_type = str_of(type), .retry_after = str_of(retry_after)};

	check(fake_client_is_open(i));
	requests[i].handlers.on_head(requests[i].arg, &head);
}

void
fake_client_say(unsigned i, const char *bytes)
{
	struct request *r = &requests[i];

	check(fake_client_is_open(i));
	loop_timer_stop(r->pool->client->loop, &r->first_byte);
	r->handlers.on_body(r->arg, str_of(bytes));
}

void
fake_client_end(unsigned i, enum client_outcome outcome)
{
	struct request *r = &requests[i];

	check(fake_client_is_open(i));
	request_close(r);
	r->handlers.on_done(r->arg, outcome, client_outcome_name(outcome));
}

const char *
client_outcome_name(enum client_outcome outcome)
{
	return outcome == CLIENT_OK ? "ok" : "not ok";
}

void
fake_client_stream(unsigned i)
{
	fake_client_head(i, 200, "text/event-stream", "");
}

void
fake_client_delta(unsigned i, const char *text)
{
	struct buf event = BUF_INIT;

	buf_add_cstr(&event, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"");
	buf_add_json_escaped(&event, str_of(text));
	buf_add_cstr(&event, "\"}}]}\n\n");
	fake_client_say(i, event.data);
	buf_fini(&event);
}

void
fake_client_finish(unsigned i)
{
	fake_client_say(i, "data: {\"choices\":[{\"index\":0,\"delta\":{},"
			   "\"finish_reason\":\"stop\"}]}\n\n");
}

void
fake_client_answer(unsigned i, const char *text)
{
	fake_client_stream(i);
	fake_client_delta(i, text);
	fake_client_finish(i);
	fake_client_say(i, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,"
			   "\"completion_tokens\":3}}\n\ndata: [DONE]\n\n");
	fake_client_end(i, CLIENT_OK);
}

void
fake_client_refuse(unsigned i, int status, const char *body, const char *retry_after)
{
	fake_client_head(i, status, "application/json", retry_after);
	if (*body != '\0')
		fake_client_say(i, body);
	fake_client_end(i, CLIENT_OK);
}

void
fake_client_forget(void)
{
	check(fake_client_open() == 0);
	for (unsigned i = 0; i < count; i++) {
		free(requests[i].url);
		free(requests[i].method);
		buf_fini(&requests[i].headers);
		buf_fini(&requests[i].body);
	}
	count = 0;
}
