/*
 * conf_check - what must be true between options, and what a text must look like
 * beyond its type: addresses, networks, origins, names, keys.
 */
#include <stdio.h>

#include "common/check.h"
#include "common/conf_load.h"
#include "common/netaddr.h"
#include "common/redis_url.h"

enum { SECRET_RANDOM_MIN = 24, TICKET_SECRET_MIN = 32, NAME_MAX_LEN = 64 };

/* A key as conf_tree_find() and a message want it; valid until the next one is made. */
struct key {
	char text[192];
};

static const char *key_of(struct key *k, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static const char *
key_of(struct key *k, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(k->text, sizeof(k->text), fmt, ap);
	va_end(ap);
	return k->text;
}

static void fail(struct conf_loader *, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void warn(struct conf_loader *, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
fail(struct conf_loader *l, const char *key, const char *fmt, ...)
{
	struct buf message = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&message, fmt, ap);
	va_end(ap);
	conf_fail(l, conf_tree_find(l, key), key, "%s", message.data);
	buf_fini(&message);
}

static void
warn(struct conf_loader *l, const char *key, const char *fmt, ...)
{
	struct buf message = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&message, fmt, ap);
	va_end(ap);
	conf_warn(l, conf_tree_find(l, key), key, "%s", message.data);
	buf_fini(&message);
}

static bool
is_given(const struct conf_loader *l, const char *key)
{
	const struct conf_node *n = conf_tree_find(l, key);
	const char *name = strrchr(key, '.');

	return n != NULL && n->key != NULL && strcmp(n->key, name != NULL ? name + 1 : key) == 0;
}

/* Values of these keys: low <= high. Reported where the user can see it: the other may be a
 * default.
 */
static void
check_order(
    struct conf_loader *l, const char *low_key, int64_t low, const char *high_key, int64_t high)
{
	if (low <= high)
		return;
	if (is_given(l, high_key) && !is_given(l, low_key))
		fail(l, high_key, "expected at least %s, which is %lld", low_key, (long long)low);
	else
		fail(l, low_key, "expected at most %s, which is %lld", high_key, (long long)high);
}

/* Letters, digits and ._:/@+- : names appear in logs, labels and addresses. */
static bool
is_name(const char *s)
{
	size_t len = strlen(s);

	return len > 0 && len <= NAME_MAX_LEN &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/@+-") ==
		   len;
}

static void
check_name(struct conf_loader *l, const char *key, const char *name)
{
	if (*name != '\0' && !is_name(name)) /* an absent one was reported */
		fail(l, key, "expected 1 to %d letters, digits and ._:/@+-", NAME_MAX_LEN);
}

/* ---- listeners ---- */

/* What all three lists of addresses have in common. */
struct listeners {
	struct conf_loader *loader;
	const char *seen[256];
	size_t seen_count;
	const char *beyond; /* the first that is not loopback, or NULL */
	size_t count;       /* that take requests */
};

static void
check_address(struct listeners *ls, const char *key, const char *text, bool takes_requests)
{
	struct netaddr a;

	if (!netaddr_parse(str_of(text), &a)) {
		fail(ls->loader, key,
		    "expected an address like 127.0.0.1:8080, [::]:8080 or "
		    "unix:/run/parley/http.sock, got "
		    "\"%s\"",
		    text);
		return;
	}
	/* Port 0 is another one each time. */
	bool may_repeat = !netaddr_is_unix(&a) && netaddr_port(&a) == 0;
	for (size_t i = 0; i < ls->seen_count && !may_repeat; i++) {
		if (strcmp(ls->seen[i], text) == 0) {
			fail(ls->loader, key, "%s is listened on twice", text);
			return;
		}
	}
	if (ls->seen_count < ARRAY_LEN(ls->seen))
		ls->seen[ls->seen_count++] = text;
	else
		fail(ls->loader, key, "more than %zu addresses", ARRAY_LEN(ls->seen));
	if (takes_requests)
		ls->count++;
	if (takes_requests && ls->beyond == NULL && !netaddr_is_loopback(&a))
		ls->beyond = text;
}

static void
check_listeners(struct listeners *ls, const struct conf *c)
{
	struct key k = {""};

	for (size_t i = 0; i < c->listen.n; i++)
		check_address(ls, key_of(&k, "listen[%zu]", i), c->listen.v[i], true);
	for (size_t i = 0; i < c->tls.listen.n; i++)
		check_address(ls, key_of(&k, "tls.listen[%zu]", i), c->tls.listen.v[i], true);
	if (*c->metrics.listen != '\0')
		check_address(ls, "metrics.listen", c->metrics.listen, false);
	if (c->listen.n + c->tls.listen.n == 0)
		fail(ls->loader, "listen", "expected at least one address here or in tls.listen");
	if (c->tls.listen.n > 0 && *c->tls.certificate == '\0')
		fail(ls->loader, "tls.certificate", "must be given with tls.listen");
	if (*c->tls.ticket_secret != '\0' && strlen(c->tls.ticket_secret) < TICKET_SECRET_MIN)
		fail(ls->loader, "tls.ticket_secret", "expected at least 32 characters");
	if ((*c->tls.certificate == '\0') != (*c->tls.key == '\0'))
		fail(ls->loader, "tls.key", "expected tls.certificate and tls.key together");
}

static void
check_networks(struct conf_loader *l, const struct conf *c)
{
	struct netaddr_net net;
	struct key k = {""};

	for (size_t i = 0; i < c->trusted_proxies.n; i++) {
		const char *text = c->trusted_proxies.v[i];

		if (!netaddr_net_parse(str_of(text), &net))
			fail(l, key_of(&k, "trusted_proxies[%zu]", i),
			    "expected a network like 10.0.0.0/8, fd00::/8 or 192.0.2.1, got \"%s\"",
			    text);
	}
}

/* scheme://host[:port], nothing behind it. */
static bool
is_origin(const char *text)
{
	const char *sep = strstr(text, "://");

	return sep != NULL && sep > text && sep[3] != '\0' &&
	       strpbrk(sep + 3, "/?# *\t\r\n") == NULL;
}

static void
check_origins(struct conf_loader *l, const struct conf *c)
{
	struct key k = {""};

	for (size_t i = 0; i < c->cors.allow_origins.n; i++) {
		const char *text = c->cors.allow_origins.v[i];

		if (strcmp(text, "*") != 0 && !is_origin(text))
			fail(l, key_of(&k, "cors.allow_origins[%zu]", i),
			    "expected \"*\" or an origin like https://example.com, got \"%s\"",
			    text);
	}
}

/* One body that is allowed must fit. */
static void
check_room_for_body(
    struct conf_loader *l, const struct conf *c, const char *key, uint64_t bodies_bytes)
{
	bool is_gateway = c->http.max_body_gateway_bytes >= c->http.max_body_bytes;
	uint64_t bytes = is_gateway ? c->http.max_body_gateway_bytes : c->http.max_body_bytes;

	if (bodies_bytes > 0)
		check_order(l, is_gateway ? "http.max_body_gateway" : "http.max_body",
		    (int64_t)bytes, key, (int64_t)bodies_bytes);
}

static void
check_limits(struct conf_loader *l, const struct conf *c)
{
	check_order(l, "connection_queue_size", c->connection_queue_size, "backlog", c->backlog);
	check_room_for_body(l, c, "http.max_bodies", c->http.max_bodies_bytes);
	check_room_for_body(l, c, "http2.max_bodies", c->http2.max_bodies_bytes);
	if (c->http.max_request_line_bytes > c->http.max_header_bytes)
		fail(l, "http.max_request_line", "expected at most http.max_header");
	if (c->watchdog.backoff_ms > c->watchdog.backoff_max_ms)
		fail(l, "watchdog.backoff", "expected at most watchdog.backoff_max");
	if (c->turns.feed_max_bytes > c->turns.feed_total_bytes)
		fail(l, "turns.feed_max", "expected at most turns.feed_total");
	if (c->tools.server_timeout_ms > c->turns.total_timeout_ms)
		warn(l, "tools.server_timeout", "is longer than turns.total_timeout");
	if (c->tools.client_timeout_ms > c->turns.total_timeout_ms)
		warn(l, "tools.client_timeout", "is longer than turns.total_timeout");
	if (*c->run_dir == '\0')
		fail(l, "run_dir", "expected a directory");
	if (*c->group != '\0' && *c->user == '\0')
		fail(l, "group", "needs user, too");
}

/* ---- providers and models ---- */

static void
check_provider(struct conf_loader *l, size_t i, struct conf_provider *p)
{
	struct key k = {""}, k2 = {""};
	const struct conf_provider_http_client *h = &p->http_client;
	size_t len = strlen(p->base_url);

	check_name(l, key_of(&k, "providers[%zu].name", i), p->name);
	check_order(l, key_of(&k, "providers[%zu].http_client.max_keepalive", i), h->max_keepalive,
	    key_of(&k2, "providers[%zu].http_client.max_connections", i), h->max_connections);
	check_order(l, key_of(&k, "providers[%zu].http_client.concurrent_requests", i),
	    h->concurrent_requests, key_of(&k2, "providers[%zu].http_client.max_connections", i),
	    h->max_connections);
	for (size_t j = 0; j < i && *p->name != '\0'; j++) {
		if (strcmp(p->name, l->conf->providers.v[j].name) == 0)
			fail(l, key_of(&k, "providers[%zu].name", i),
			    "\"%s\" is taken by providers[%zu]", p->name, j);
	}
	if (strpbrk(p->base_url, "?#") != NULL)
		fail(l, key_of(&k, "providers[%zu].base_url", i),
		    "expected no query and no fragment");
	/* Paths are put behind it. */
	while (len > 0 && p->base_url[len - 1] == '/')
		len--;
	if (p->base_url[len] != '\0')
		p->base_url = arena_strdup(&l->conf->arena, str_sub(p->base_url, len));
}

static bool
knows_provider(const struct conf *c, const char *name)
{
	for (size_t i = 0; i < c->providers.n; i++) {
		if (strcmp(c->providers.v[i].name, name) == 0)
			return true;
	}
	return false;
}

static bool
knows_model(const struct conf *c, const char *name)
{
	for (size_t i = 0; i < c->models.n; i++) {
		if (strcmp(c->models.v[i].name, name) == 0)
			return true;
	}
	return false;
}

static void
check_model(struct conf_loader *l, size_t i, const struct conf_model *m)
{
	struct key k = {""};

	check_name(l, key_of(&k, "models[%zu].name", i), m->name);
	for (size_t j = 0; j < i && *m->name != '\0'; j++) {
		if (strcmp(m->name, l->conf->models.v[j].name) == 0)
			fail(l, key_of(&k, "models[%zu].name", i), "\"%s\" is taken by models[%zu]",
			    m->name, j);
	}
	if (m->targets.n == 0)
		fail(l, key_of(&k, "models[%zu].targets", i), "expected at least one target");
	for (size_t j = 0; j < m->targets.n; j++) {
		const char *provider = m->targets.v[j].provider;

		if (*provider != '\0' && !knows_provider(l->conf, provider))
			fail(l, key_of(&k, "models[%zu].targets[%zu].provider", i, j),
			    "expected the name of one of providers, got \"%s\"", provider);
	}
	/* -1 is none, and there is nothing between it and 0. */
	if ((m->price.input < 0 && m->price.input != -1) ||
	    (m->price.output < 0 && m->price.output != -1) ||
	    (m->price.cached < 0 && m->price.cached != -1))
		fail(l, key_of(&k, "models[%zu].price", i), "expected numbers from 0");
	if ((m->price.input < 0) != (m->price.output < 0))
		fail(l, key_of(&k, "models[%zu].price", i), "expected input and output together");
}

/* ---- apps and keys ---- */

static const struct conf_app *
find_app(const struct conf *c, const char *id)
{
	for (size_t i = 0; i < c->apps.n; i++) {
		if (strcmp(c->apps.v[i].id, id) == 0)
			return &c->apps.v[i];
	}
	return NULL;
}

static void
check_app(struct conf_loader *l, size_t i, const struct conf_app *a)
{
	struct key k = {""};

	check_name(l, key_of(&k, "apps[%zu].id", i), a->id);
	if (*a->id != '\0' && find_app(l->conf, a->id) != a)
		fail(l, key_of(&k, "apps[%zu].id", i), "\"%s\" is taken by another app", a->id);
	for (size_t j = 0; j < a->client_may.n; j++) {
		const char *what = a->client_may.v[j];

		if (strcmp(what, "model") != 0 && strcmp(what, "tools") != 0)
			fail(l, key_of(&k, "apps[%zu].client_may[%zu]", i, j),
			    "expected model or tools, got \"%s\"", what);
	}
}

static bool
is_secret_of(const char *prefix, const char *secret)
{
	size_t len = strlen(prefix);

	if (strncmp(secret, prefix, len) != 0)
		return false;
	const char *random = secret + len;
	return strlen(random) >= SECRET_RANDOM_MIN &&
	       random[strspn(random,
		   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")] == '\0';
}

static void
check_secret(
    struct conf_loader *l, size_t i, const struct conf_key *key, const struct listeners *ls)
{
	const char *prefix = strcmp(key->kind, "client") == 0   ? "pc_"
			     : strcmp(key->kind, "server") == 0 ? "ps_"
								: "pa_";
	struct key k = {""};

	if (!is_secret_of(prefix, key->secret))
		fail(l, key_of(&k, "keys[%zu].secret", i),
		    "expected %s and at least %d letters, digits, _ and -", prefix,
		    SECRET_RANDOM_MIN);
	for (size_t j = 0; j < i; j++) {
		if (strcmp(key->secret, l->conf->keys.v[j].secret) == 0)
			fail(l, key_of(&k, "keys[%zu].secret", i),
			    "is also the secret of keys[%zu]", j);
	}
	if (ls->beyond != NULL && conf_is_demo_secret(key->secret))
		fail(l, key_of(&k, "keys[%zu].secret", i),
		    "a demo key is refused on %s, which is not loopback: expected a secret of your "
		    "own",
		    ls->beyond);
}

static void
check_key_app(struct conf_loader *l, size_t i, const struct conf_key *key)
{
	bool is_admin = strcmp(key->kind, "admin") == 0;
	struct key k = {""};

	if (is_admin && *key->app != '\0')
		fail(l, key_of(&k, "keys[%zu].app", i), "an admin key belongs to no app");
	if (!is_admin && find_app(l->conf, key->app) == NULL)
		fail(l, key_of(&k, "keys[%zu].app", i),
		    "expected the id of one of apps, got \"%s\"", key->app);
}

static void
check_key(struct conf_loader *l, size_t i, const struct conf_key *key, const struct listeners *ls)
{
	bool is_server = strcmp(key->kind, "server") == 0;
	struct key k = {""};

	if (*key->kind == '\0')
		return; /* reported */
	check_key_app(l, i, key);
	if (*key->secret == '\0')
		warn(l, key_of(&k, "keys[%zu].secret", i), "is empty: the key is left out");
	else
		check_secret(l, i, key, ls);
	if (*key->device_id != '\0' && strcmp(key->kind, "client") != 0)
		fail(l, key_of(&k, "keys[%zu].device_id", i),
		    "only a client key is bound to a device");
	if (!is_server && (key->rpm > 0 || key->tpm > 0 || key->rpd > 0))
		fail(l, key_of(&k, "keys[%zu]", i),
		    "rpm, tpm and rpd are for server keys; a client key has rate");
	for (size_t j = 0; j < key->models.n; j++) {
		const char *model = key->models.v[j];

		size_t len = strlen(model);
		bool is_prefix = len > 0 && model[len - 1] == '*';

		if (!is_prefix && !knows_model(l->conf, model))
			fail(l, key_of(&k, "keys[%zu].models[%zu]", i, j),
			    "expected \"*\", a prefix as \"gpt-*\", or the name of one of models, "
			    "got "
			    "\"%s\"",
			    model);
	}
}

/* An empty secret must never become a key that an empty header opens. */
static void
drop_empty_keys(struct conf *c)
{
	size_t kept = 0;

	for (size_t i = 0; i < c->keys.n; i++) {
		if (*c->keys.v[i].secret != '\0')
			c->keys.v[kept++] = c->keys.v[i];
	}
	c->keys.n = kept;
}

/* ---- tool servers ---- */

/* The name goes before the tools' own, with `__` between. */
static bool
is_tool_prefix(const char *s)
{
	size_t len = strlen(s);

	return len > 0 && len <= 32 && strstr(s, "__") == NULL &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == len;
}

static bool
is_header(const struct conf_pair *h)
{
	return strpbrk(h->value, "\r\n") == NULL && strpbrk(h->name, ": \t\r\n") == NULL &&
	       *h->name != '\0';
}

static void
check_mcp_server(struct conf_loader *l, size_t i, const struct conf_mcp_server *s)
{
	struct key k = {""};

	if (*s->name == '\0')
		return; /* reported */
	if (!is_tool_prefix(s->name))
		fail(l, key_of(&k, "mcp.servers[%zu].name", i),
		    "expected 1 to 32 letters, digits, - and _, without __");
	if (l->conf->mcp.own_tools && strcmp(s->name, "parley") == 0)
		fail(l, key_of(&k, "mcp.servers[%zu].name", i),
		    "\"parley\" is what our own tools are named by: see mcp.own_tools");
	for (size_t j = 0; j < i; j++) {
		if (strcmp(s->name, l->conf->mcp.servers.v[j].name) == 0)
			fail(l, key_of(&k, "mcp.servers[%zu].name", i),
			    "\"%s\" is taken by mcp.servers[%zu]", s->name, j);
	}
	if ((*s->command == '\0') == (*s->url == '\0'))
		fail(l, key_of(&k, "mcp.servers[%zu]", i), "expected either command or url");
	if (*s->command == '\0' && (s->args.n > 0 || s->env.n > 0))
		fail(l, key_of(&k, "mcp.servers[%zu]", i), "args and env need command");
	if (*s->url == '\0' && s->headers.n > 0)
		fail(l, key_of(&k, "mcp.servers[%zu].headers", i), "headers need url");
	for (size_t j = 0; j < s->may_ask.n; j++) {
		const char *what = s->may_ask.v[j];

		if (strcmp(what, "sampling") != 0 && strcmp(what, "elicitation") != 0 &&
		    strcmp(what, "roots") != 0)
			fail(l, key_of(&k, "mcp.servers[%zu].may_ask[%zu]", i, j),
			    "expected sampling, elicitation or roots, got \"%s\"", what);
	}
	for (size_t j = 0; j < s->headers.n; j++) {
		if (!is_header(&s->headers.v[j]))
			fail(l, key_of(&k, "mcp.servers[%zu].headers", i),
			    "expected names and values of one line");
	}
}

static bool
knows_mcp_server(const struct conf *c, const char *name)
{
	for (size_t i = 0; i < c->mcp.servers.n; i++) {
		if (strcmp(c->mcp.servers.v[i].name, name) == 0)
			return true;
	}
	return false;
}

static void
check_mcp(struct conf_loader *l)
{
	const struct conf *c = l->conf;
	struct key k = {""};

	for (size_t i = 0; i < c->mcp.servers.n; i++)
		check_mcp_server(l, i, &c->mcp.servers.v[i]);
	for (size_t i = 0; i < c->apps.n; i++) {
		const struct conf_list *names = &c->apps.v[i].mcp_servers;

		for (size_t j = 0; j < names->n; j++) {
			if (strcmp(names->v[j], "*") != 0 && !knows_mcp_server(c, names->v[j]))
				fail(l, key_of(&k, "apps[%zu].mcp_servers[%zu]", i, j),
				    "expected \"*\" or the name of one of mcp.servers, got \"%s\"",
				    names->v[j]);
		}
	}
	check_order(l, "mcp.backoff", (int64_t)c->mcp.backoff_ms, "mcp.backoff_max",
	    (int64_t)c->mcp.backoff_max_ms);
}

/* The name is part of an id that is shown in URLs. */
static bool
is_endpoint_name(const char *name)
{
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
		   strlen(name) &&
	       strlen(name) <= NAME_MAX_LEN;
}

static void
check_webhooks(struct conf_loader *l, const struct conf_webhooks *w)
{
	struct key k = {""};

	if (*w->encryption_key != '\0' && strlen(w->encryption_key) < TICKET_SECRET_MIN)
		fail(l, "webhooks.encryption_key", "expected at least 32 characters");
	check_order(l, "webhooks.backoff", (int64_t)w->backoff_ms, "webhooks.backoff_max",
	    (int64_t)w->backoff_max_ms);
	for (size_t i = 0; i < w->endpoints.n; i++) {
		const struct conf_webhook *e = &w->endpoints.v[i];

		if (!is_endpoint_name(e->name))
			fail(l, key_of(&k, "webhooks.endpoints[%zu].name", i),
			    "expected 1 to %d letters, digits, - _ and .", NAME_MAX_LEN);
		for (size_t j = 0; j < e->headers.n; j++) {
			if (!is_header(&e->headers.v[j]))
				fail(l, key_of(&k, "webhooks.endpoints[%zu].headers", i),
				    "expected names and values of one line");
		}
	}
}

static void
check_backplane(struct conf_loader *l, const struct conf_backplane *b)
{
	struct redis_url url;
	const char *wrong = b->url[0] != '\0' ? redis_url_parse(str_of(b->url), &url) : NULL;

	if (wrong != NULL)
		fail(l, "backplane.url", "%s", wrong);
}

void
conf_check_all(struct conf_loader *l)
{
	struct conf *c = l->conf;
	struct listeners ls = {.loader = l};

	check_listeners(&ls, c);
	check_networks(l, c);
	check_origins(l, c);
	check_limits(l, c);
	check_backplane(l, &c->backplane);
	for (size_t i = 0; i < c->providers.n; i++)
		check_provider(l, i, &c->providers.v[i]);
	if (c->models.n == 0)
		fail(l, "models", "expected at least one model");
	for (size_t i = 0; i < c->models.n; i++)
		check_model(l, i, &c->models.v[i]);
	for (size_t i = 0; i < c->apps.n; i++)
		check_app(l, i, &c->apps.v[i]);
	for (size_t i = 0; i < c->keys.n; i++)
		check_key(l, i, &c->keys.v[i], &ls);
	check_mcp(l);
	check_webhooks(l, &c->webhooks);
	if (strcmp(c->mcp.auth, "none") == 0 && ls.beyond != NULL)
		fail(l, "mcp.auth", "none is refused on %s, which is not loopback", ls.beyond);
	drop_empty_keys(c);
}
