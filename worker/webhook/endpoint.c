/* endpoint - see endpoint.h. */
#include "worker/webhook/endpoint.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/id.h"

#define SEALED_PREFIX "sealed:"

/* ---- URLs ---- */

struct parts {
	CURLU *url;
	char *scheme, *host, *port, *user;
};

static bool
parts_init(struct parts *p, const char *text)
{
	*p = (struct parts){.url = curl_url()};
	if (p->url == NULL || curl_url_set(p->url, CURLUPART_URL, text, 0) != CURLUE_OK ||
	    curl_url_get(p->url, CURLUPART_SCHEME, &p->scheme, 0) != CURLUE_OK ||
	    curl_url_get(p->url, CURLUPART_HOST, &p->host, 0) != CURLUE_OK ||
	    curl_url_get(p->url, CURLUPART_PORT, &p->port, CURLU_DEFAULT_PORT) != CURLUE_OK)
		return false;
	if (curl_url_get(p->url, CURLUPART_USER, &p->user, 0) != CURLUE_OK)
		p->user = NULL;
	return strcmp(p->scheme, "http") == 0 || strcmp(p->scheme, "https") == 0;
}

static void
parts_fini(struct parts *p)
{
	curl_free(p->scheme);
	curl_free(p->host);
	curl_free(p->port);
	curl_free(p->user);
	curl_url_cleanup(p->url);
}

static bool
is_port_open(const char *port)
{
	unsigned long n = strtoul(port, NULL, 10);

	return n == 80 || n == 443 || n >= 1024;
}

static const char *
check_url(const char *text, const struct conf_webhooks *conf)
{
	const char *wrong = NULL;
	struct parts p;

	if (strlen(text) > ENDPOINT_URL_MAX)
		return "The URL is too long.";
	if (!parts_init(&p, text))
		wrong = "Expected an http or https URL.";
	else if (p.user != NULL)
		wrong = "The URL must not hold a user name: use headers.";
	else if (!conf->allow_private && !is_port_open(p.port))
		wrong = "The port must be 80, 443 or at least 1024.";
	parts_fini(&p);
	return wrong;
}

/* ---- as somebody names it ---- */

static bool
is_ours(const char *header)
{
	static const char *const ours[] = {"webhook-id", "webhook-timestamp", "webhook-signature",
	    "content-length", "transfer-encoding", "host", "connection", "expect"};

	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (str_ieq(str_of(header), str_of(ours[i])))
			return true;
	return false;
}

static const char *
check_header(const struct client_header *h)
{
	if (*h->name == '\0' || strlen(h->name) > 128 || strlen(h->value) > 1024)
		return "A header is too long, or without a name.";
	for (const char *c = h->name; *c != '\0'; c++)
		if (*c <= ' ' || *c >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", *c) != NULL)
			return "A header's name is not one.";
	for (const char *c = h->value; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' && *c != '\t')
			return "A header's value must be one line.";
	return is_ours(h->name) ? "That header is the server's to send." : NULL;
}

const char *
endpoint_check(
    const struct endpoint_named *n, const struct conf_webhooks *conf, const char **ret_field)
{
	const char *wrong = check_url(n->url, conf);

	*ret_field = "url";
	if (wrong != NULL)
		return wrong;
	*ret_field = "secret";
	if (n->secret != NULL && (*n->secret == '\0' || strlen(n->secret) > ENDPOINT_SECRET_MAX))
		return "The secret is empty or too long.";
	*ret_field = "headers";
	if (n->header_count > ENDPOINT_HEADERS_MAX)
		return "Too many headers.";
	for (size_t i = 0; i < n->header_count; i++)
		if ((wrong = check_header(&n->headers[i])) != NULL)
			return wrong;
	return NULL;
}

/* ---- as the record keeps it ---- */

static void
key_of(const struct conf_webhooks *conf, uint8_t key[SHA256_LEN])
{
	crypto_sha256(str_of(conf->encryption_key), key);
}

static const char *
seal(const struct conf_webhooks *conf, struct arena *arena, const char *text)
{
	struct buf sealed = BUF_INIT, out = BUF_INIT;
	uint8_t key[SHA256_LEN];

	if (text == NULL || *conf->encryption_key == '\0')
		return text;
	key_of(conf, key);
	crypto_seal(key, str_of(text), &sealed);
	buf_add_cstr(&out, SEALED_PREFIX);
	crypto_base64(buf_str(&sealed), &out);
	text = arena_strdup(arena, buf_str(&out));
	buf_fini(&sealed);
	buf_fini(&out);
	return text;
}

/* NULL: sealed with another key. */
static const char *
unseal(const struct conf_webhooks *conf, struct arena *arena, const char *text)
{
	struct buf sealed = BUF_INIT, out = BUF_INIT;
	struct str rest = str_of(text);
	uint8_t key[SHA256_LEN];
	const char *opened = NULL;

	if (!str_starts(rest, STR(SEALED_PREFIX)))
		return text;
	rest = str_sub(rest.p + sizeof(SEALED_PREFIX) - 1, rest.len - (sizeof(SEALED_PREFIX) - 1));
	key_of(conf, key);
	if (crypto_base64_decode(rest, &sealed) && crypto_open(key, buf_str(&sealed), &out))
		opened = arena_strdup(arena, buf_str(&out));
	buf_fini(&sealed);
	buf_fini(&out);
	return opened;
}

static const char *
dump_headers(const struct endpoint_named *n, struct arena *arena)
{
	json_t *json = json_object();
	const char *text;
	char *dumped;

	for (size_t i = 0; i < n->header_count; i++)
		json_object_set_new(json, n->headers[i].name, json_string(n->headers[i].value));
	dumped = json_dumps(json, JSON_COMPACT);
	text = n->header_count > 0 ? arena_strdup(arena, str_of(dumped)) : NULL;
	free(dumped);
	json_decref(json);
	return text;
}

void
endpoint_format(const struct endpoint_named *n, const struct conf_webhooks *conf,
    struct arena *arena, struct store_webhook_endpoint *ret)
{
	const char *headers = dump_headers(n, arena);
	struct buf all = BUF_INIT;
	uint8_t hash[SHA256_LEN];
	struct id id;

	buf_printf(&all, "%s%c%s%c%s%c%s%c%llu", n->app_id, 0, n->url, 0,
	    n->secret != NULL ? n->secret : "", 0, headers != NULL ? headers : "", 0,
	    (unsigned long long)n->batch);
	crypto_sha256(buf_str(&all), hash);
	buf_fini(&all);
	id = id_of_bits("whe", hash);
	*ret = (struct store_webhook_endpoint){
	    .id = arena_strdup(arena, id_str(&id)),
	    .app_id = n->app_id,
	    .url = n->url,
	    .secrets = seal(conf, arena, n->secret),
	    .headers = seal(conf, arena, headers),
	    .batch = n->batch,
	    .created_at = clock_wall_ms(),
	};
}

/* ---- of the configuration ---- */

/* Without what may be a password in it. */
static const char *
shown_url(const char *text, struct arena *arena)
{
	char *shown = NULL;
	struct parts p;

	if (parts_init(&p, text) && p.user != NULL) {
		curl_url_set(p.url, CURLUPART_USER, NULL, 0);
		curl_url_set(p.url, CURLUPART_PASSWORD, NULL, 0);
		if (curl_url_get(p.url, CURLUPART_URL, &shown, 0) == CURLUE_OK)
			text = arena_strdup(arena, str_of(shown));
		curl_free(shown);
	}
	parts_fini(&p);
	return text;
}

void
endpoint_of_conf(
    const struct conf_webhook *c, struct arena *arena, struct store_webhook_endpoint *ret)
{
	*ret = (struct store_webhook_endpoint){
	    .id = arena_printf(arena, ENDPOINT_CONF_PREFIX "%s", c->name),
	    .url = shown_url(c->url, arena),
	    .batch = (uint64_t)c->batch,
	    .created_at = clock_wall_ms(),
	};
}

const struct conf_webhook *
endpoint_conf(const struct conf_webhooks *conf, const char *id)
{
	size_t len = sizeof(ENDPOINT_CONF_PREFIX) - 1;

	if (strncmp(id, ENDPOINT_CONF_PREFIX, len) != 0)
		return NULL;
	for (size_t i = 0; i < conf->endpoints.n; i++)
		if (strcmp(conf->endpoints.v[i].name, id + len) == 0)
			return &conf->endpoints.v[i];
	return NULL;
}

/* What comes many times is for who asks for it: not for "*". */
static bool
is_in(const struct conf_list *list, const char *text, bool is_many)
{
	for (size_t i = 0; i < list->n; i++) {
		size_t len = strlen(list->v[i]);

		if (is_many && strcmp(list->v[i], "*") == 0)
			continue;

		if (strcmp(list->v[i], text) == 0)
			return true;
		if (len > 0 && list->v[i][len - 1] == '*' &&
		    strncmp(list->v[i], text, len - 1) == 0)
			return true;
	}
	return false;
}

bool
endpoint_wants(const struct conf_webhook *c, const char *app_id, const char *event)
{
	return is_in(&c->apps, app_id, false) &&
	       is_in(&c->events, event, strcmp(event, "task.progress") == 0);
}

/* ---- ready for requests ---- */

static void
take_header(struct endpoint *e, const char *name, const char *value)
{
	if (e->header_count < ENDPOINT_HEADERS_MAX)
		e->headers[e->header_count++] = (struct client_header){
		    arena_strdup(&e->arena, str_of(name)), arena_strdup(&e->arena, str_of(value))};
}

static bool
take_recorded(
    struct endpoint *e, const struct conf_webhooks *conf, const struct store_webhook_endpoint *row)
{
	const char *secret = row->secrets, *headers = row->headers, *name;
	json_t *json, *value;

	e->url = arena_strdup(&e->arena, str_of(row->url));
	e->batch = row->batch;
	if (secret != NULL && (secret = unseal(conf, &e->arena, secret)) == NULL)
		return false;
	if (headers != NULL && (headers = unseal(conf, &e->arena, headers)) == NULL)
		return false;
	e->secrets[0] = secret != NULL ? arena_strdup(&e->arena, str_of(secret)) : NULL;
	json = headers != NULL ? json_loads(headers, 0, NULL) : NULL;
	json_object_foreach(json, name, value)
	{
		if (json_is_string(value))
			take_header(e, name, json_string_value(value));
	}
	json_decref(json);
	return true;
}

static void
take_conf(struct endpoint *e, const struct conf_webhook *c)
{
	e->url = c->url;
	e->batch = (uint64_t)c->batch;
	e->secrets[0] = c->secret;
	e->secrets[1] = c->old_secret;
	for (size_t i = 0; i < c->headers.n; i++)
		take_header(e, c->headers.v[i].name, c->headers.v[i].value);
}

bool
endpoint_init(
    struct endpoint *e, const struct conf_webhooks *conf, const struct store_webhook_endpoint *row)
{
	const struct conf_webhook *c = endpoint_conf(conf, row->id);
	struct parts p;

	*e = (struct endpoint){.batch = 1};
	if (c != NULL)
		take_conf(e, c);
	else if (str_starts(str_of(row->id), STR(ENDPOINT_CONF_PREFIX)) ||
		 !take_recorded(e, conf, row))
		return false;
	if (e->batch == 0)
		e->batch = 1;
	bool is_well = parts_init(&p, e->url);
	e->host = is_well ? arena_printf(&e->arena, "%s://%s:%s", p.scheme, p.host, p.port) : "";
	parts_fini(&p);
	return is_well;
}

void
endpoint_fini(struct endpoint *e)
{
	arena_fini(&e->arena);
}
