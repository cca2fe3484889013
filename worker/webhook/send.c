/*
 * send - one request to an endpoint, with one webhook or several, and what came of it.
 *
 *   client_start --head, body--> the first bytes are kept --done, or enough--> verdict
 *
 * The id of a request with one webhook is that webhook's, always. One with several has an id of its
 * own, made of theirs, and says theirs inside: after a failure they may come in other company.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/id.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/provider/retry.h"
#include "worker/webhook/sign.h"
#include "worker/webhook/webhook_impl.h"

enum {
	HEADERS_OWN = 4,
	BODY_MAX = 64 << 10, /* of an answer: behind that it is not waited for its end */
};

struct request {
	struct target *target;
	struct list messages;
	size_t count;
	uint64_t transfer;
	uint64_t started_us, first_us;
	int status;
	uint64_t retry_after_ms;
	size_t body_bytes;
	struct buf kept;
	struct loop_post post; /* enough has come */
	bool has_enough;
};

/* ---- the result ---- */

/* What a database takes as text, and a person can read. */
static char *
readable(struct buf *kept)
{
	size_t len = kept->len;

	for (int cut = 0; cut < 4 && len > 0 && !str_is_utf8(str_sub(kept->data, len)); cut++)
		len--;
	if (!str_is_utf8(str_sub(kept->data, len))) {
		len = kept->len;
		for (size_t i = 0; i < len; i++)
			if ((unsigned char)kept->data[i] >= 0x80)
				kept->data[i] = '?';
	}
	for (size_t i = 0; i < len; i++)
		if (kept->data[i] == '\0')
			kept->data[i] = '?';
	return len > 0 ? xstrndup(kept->data, len) : NULL;
}

static double
dice(void)
{
	uint32_t n;

	crypto_random(&n, sizeof(n));
	return (double)n / 4294967296.0;
}

static void
count_attempt(const struct verdict *v)
{
	static const unsigned outcomes[] = {
	    [VERDICT_DELIVERED] = WEBHOOK_OUTCOME_DELIVERED,
	    [VERDICT_AGAIN] = WEBHOOK_OUTCOME_RETRIED,
	    [VERDICT_DEAD] = WEBHOOK_OUTCOME_DEAD,
	    [VERDICT_GONE] = WEBHOOK_OUTCOME_DEAD,
	};

	metric_add(METRIC_WEBHOOKS, outcomes[v->what], 0, 1);
}

static void
judge(struct request *r, struct message *m, enum client_outcome outcome, double luck)
{
	struct attempt a = {.outcome = outcome,
	    .status = r->status,
	    .before = m->attempts,
	    .retry_after_ms = r->retry_after_ms,
	    .dice = luck};
	struct verdict v = verdict_of(&a, r->target->webhooks->conf);

	m->was_tried = true;
	m->state = v.what == VERDICT_DELIVERED ? "delivered"
		   : v.what == VERDICT_AGAIN   ? "pending"
					       : "dead";
	m->error = v.error;
	m->due_in_ms = v.delay_ms;
	m->status = r->status;
	m->is_fault = v.counts_as_fault;
	m->is_gone = v.what == VERDICT_GONE;
	count_attempt(&v);
	if (strcmp(m->state, "dead") == 0)
		log_info("webhook dead id=%s endpoint=%s attempts=%llu status=%d error=%s", m->id,
		    r->target->id, (unsigned long long)m->attempts + 1, m->status, m->error);
}

static void
note_answer(struct target *t, bool is_fault, bool is_delivered, uint64_t took_ms)
{
	uint64_t limit = (uint64_t)t->webhooks->conf->breaker.failures;

	t->mean_ms = (t->mean_ms * 7 + took_ms) / 8;
	t->faults = is_fault ? t->faults + 1 : is_delivered ? 0 : t->faults;
	if (limit > 0 && t->faults >= limit) {
		t->is_open = true; /* the record will say so, too */
		target_give_back(t);
	}
}

static void
end(struct request *r, enum client_outcome outcome)
{
	uint64_t now_us = clock_mono_us(), took_us = now_us - r->started_us;
	struct target *t = r->target;
	double luck = dice();
	char *response = readable(&r->kept);
	bool is_fault = false, is_delivered = false;
	struct message *m;

	metric_observe_us(METRIC_WEBHOOK_SECONDS, 0, took_us);
	while ((m = list_first(&r->messages, struct message, node)) != NULL) {
		list_del(&m->node);
		m->first_ms = r->first_us > 0 ? (r->first_us - r->started_us) / 1000 : 0;
		m->total_ms = took_us / 1000;
		m->response = response != NULL ? xstrdup(response) : NULL;
		judge(r, m, outcome, luck);
		news_attempt(t->webhooks, m);
		is_fault = m->is_fault;
		is_delivered = strcmp(m->state, "delivered") == 0;
		settle_message(m);
	}
	free(response);
	buf_fini(&r->kept);
	free(r);
	note_answer(t, is_fault, is_delivered, took_us / 1000);
	target_answered(t);
}

/* ---- the answer ---- */

static void
on_head(void *arg, const struct client_head *head)
{
	struct request *r = arg;

	r->status = head->status;
	r->first_us = clock_mono_us();
	if (head->status == 429 || head->status == 503)
		r->retry_after_ms = retry_after_parse(head->retry_after, clock_wall_ms());
}

static void
on_enough(struct loop_post *post)
{
	struct request *r = container_of(post, struct request, post);

	if (r->transfer != 0)
		client_cancel(r->target->webhooks->client, r->transfer);
	end(r, CLIENT_OK);
}

static bool
on_body(void *arg, struct str bytes)
{
	struct request *r = arg;
	size_t most = (size_t)r->target->webhooks->conf->max_response_bytes, room = 0;

	if (r->has_enough)
		return false;
	if (r->kept.len < most)
		room = most - r->kept.len;
	buf_add_str(&r->kept, str_sub(bytes.p, bytes.len < room ? bytes.len : room));
	r->body_bytes += bytes.len;
	if (r->body_bytes <= BODY_MAX)
		return true;
	r->has_enough = true;
	r->post.run = on_enough;
	loop_post(r->target->webhooks->loop, &r->post);
	return false;
}

static void
on_done(void *arg, enum client_outcome outcome, const char *detail)
{
	struct request *r = arg;

	r->transfer = 0;
	if (r->has_enough)
		return; /* is just being ended */
	if (outcome != CLIENT_OK)
		log_debug("webhook attempt endpoint=%s outcome=%s reason=\"%s\"", r->target->id,
		    client_outcome_name(outcome), detail);
	/* Its status counts, but a success that broke off may be somebody else's. */
	if (outcome != CLIENT_OK && r->status >= 200 && r->status < 300)
		r->status = 0;
	end(r, outcome);
}

/* ---- the request ---- */

/* Of several: of their ids. */
static struct id
id_of(const struct request *r)
{
	const struct message *first = list_first(&r->messages, struct message, node);
	struct buf all = BUF_INIT;
	uint8_t hash[SHA256_LEN];
	struct id id;

	if (r->count == 1) {
		size_t len = strlen(first->id);

		check(len < sizeof(id.s));
		memcpy(id.s, first->id, len + 1);
		return id;
	}
	list_for (node, &r->messages) {
		buf_add_cstr(&all, list_entry(node, struct message, node)->id);
		buf_add_char(&all, ' ');
	}
	crypto_sha256(buf_str(&all), hash);
	buf_fini(&all);
	return id_of_bits("whb", hash);
}

static void
format_batch(const struct request *r, int64_t now, struct buf *out)
{
	char at[CLOCK_RFC3339_LEN + 1];
	const char *comma = "";

	clock_format(now, at);
	buf_printf(out, "{\"type\":\"webhook.batch\",\"timestamp\":\"%s\",\"webhooks\":[", at);
	list_for (node, &r->messages) {
		const struct message *m = list_entry(node, struct message, node);

		buf_printf(out, "%s{\"id\":\"%s\",\"payload\":", comma, m->id);
		buf_add_cstr(out, m->body);
		buf_add_char(out, '}');
		comma = ",";
	}
	buf_add_cstr(out, "]}");
}

static size_t
add_headers(const struct target *t, struct client_header *headers, const char *id,
    const char *timestamp, const char *signature)
{
	size_t n = 0;

	headers[n++] = (struct client_header){"Content-Type", "application/json"};
	headers[n++] = (struct client_header){"webhook-id", id};
	headers[n++] = (struct client_header){"webhook-timestamp", timestamp};
	if (*signature != '\0')
		headers[n++] = (struct client_header){"webhook-signature", signature};
	for (size_t i = 0; i < t->endpoint.header_count; i++)
		headers[n++] = t->endpoint.headers[i];
	return n;
}

static void
start(struct request *r, struct str body, const char *id, int64_t now)
{
	static const struct client_handlers handlers = {on_head, on_body, on_done};
	struct client_header headers[HEADERS_OWN + ENDPOINT_HEADERS_MAX];
	const struct target *t = r->target;
	struct webhooks *w = t->webhooks;
	struct buf signature = BUF_INIT;
	char timestamp[24];

	snprintf(timestamp, sizeof(timestamp), "%lld", (long long)(now / 1000));
	sign_webhook(t->endpoint.secrets, ARRAY_LEN(t->endpoint.secrets), str_of(id),
	    (uint64_t)now / 1000, body, &signature);
	r->started_us = clock_mono_us();
	r->transfer = client_start(t->host->pool,
	    &(struct client_request){
		.method = "POST",
		.url = t->endpoint.url,
		.headers = headers,
		.header_count =
		    add_headers(t, headers, id, timestamp, signature.len > 0 ? signature.data : ""),
		.body = body,
		.total_timeout_ms = (uint32_t)w->conf->timeout_ms,
		.refuses_private = !w->conf->allow_private,
	    },
	    &handlers, r);
	buf_fini(&signature);
}

void
send_messages(struct target *t, struct list *messages, size_t count)
{
	struct request *r = xcalloc(1, sizeof(*r));
	int64_t now = clock_wall_ms();
	struct buf batch = BUF_INIT;
	struct message *m;

	r->target = t;
	r->count = count;
	list_init(&r->messages);
	while ((m = list_first(messages, struct message, node)) != NULL) {
		list_del(&m->node);
		list_add_tail(&r->messages, &m->node);
	}
	struct id id = id_of(r);
	if (t->endpoint.batch > 1)
		format_batch(r, now, &batch);
	m = list_first(&r->messages, struct message, node);
	start(r, t->endpoint.batch > 1 ? buf_str(&batch) : str_of(m->body), id.s, now);
	buf_fini(&batch);
}
