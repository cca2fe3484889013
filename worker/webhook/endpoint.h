/*
 * endpoint - where webhooks go: as somebody names it, as the record keeps it, as a request wants
 * it.
 *
 * Those of the configuration are "conf:NAME"; what is secret about them never leaves it. One that a
 * task names has an id made of all that it is ("whe_.."), so whoever names the same means the same;
 * its secret and headers lie in the record, sealed where webhooks.encryption_key is given. Pure.
 */
#ifndef WORKER_WEBHOOK_ENDPOINT_H
#define WORKER_WEBHOOK_ENDPOINT_H

#include "common/arena.h"
#include "common/conf.h"
#include "worker/client/client.h"
#include "worker/store/store.h"

#define ENDPOINT_CONF_PREFIX "conf:"

enum {
	ENDPOINT_ID_MAX = 80,
	ENDPOINT_URL_MAX = 2048,
	ENDPOINT_SECRET_MAX = 256,
	ENDPOINT_HEADERS_MAX = 16,
	ENDPOINT_BATCH_MAX = 1000,
};

struct endpoint_named { /* by a task */
	const char *app_id, *url;
	const char *secret; /* NULL: not signed */
	const struct client_header *headers;
	size_t header_count;
	uint64_t batch;
};
/* NULL: it will do. Else what is wrong, for the one who named it; *ret_field says where: "url",
 * "secret", "headers". */
const char *endpoint_check(
    const struct endpoint_named *, const struct conf_webhooks *, const char **ret_field);
/* As it is to be written into the record; from the arena. It was checked. */
void endpoint_format(const struct endpoint_named *, const struct conf_webhooks *, struct arena *,
    struct store_webhook_endpoint *ret);

/* One of the configuration, as the record knows it. */
void endpoint_of_conf(
    const struct conf_webhook *, struct arena *, struct store_webhook_endpoint *ret);
/* By id; NULL: none, or not of the configuration. */
const struct conf_webhook *endpoint_conf(const struct conf_webhooks *, const char *id);
bool endpoint_wants(const struct conf_webhook *, const char *app_id, const char *event);

struct endpoint { /* ready for requests; texts in its arena */
	struct arena arena;
	const char *url;
	const char *host; /* scheme, name and port: whose connections are counted */
	const char *secrets[2];
	struct client_header headers[ENDPOINT_HEADERS_MAX];
	size_t header_count;
	uint64_t batch;
};
/* False: not of this worker's configuration, or sealed with another key. endpoint_fini() is fine in
 * either case. */
bool endpoint_init(
    struct endpoint *, const struct conf_webhooks *, const struct store_webhook_endpoint *);
void endpoint_fini(struct endpoint *);

#endif
