/*
 * conf: what loads, what is refused and how it is told, what wins over what, and
 * that no secret is ever shown.
 */
#include "t/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/check.h"
#include "common/conf.h"
#include "common/conf_spec.h"

static const struct conf_override *flags;
static size_t flag_count;

/* Loads "t.yaml" with this content (NULL: no file) and environment. NULL: see *errors. */
static struct conf *
load(const char *text, char *const *environment, struct buf *errors)
{
	struct conf_source source = {
	    .file = text != NULL ? "t.yaml" : NULL,
	    .text = str_of(text),
	    .environment = environment,
	    .overrides = flags,
	    .override_count = flag_count,
	};

	buf_clear(errors);
	return conf_load(&source, errors);
}

static struct conf *
load_good(const char *text, char *const *environment)
{
	struct buf errors = BUF_INIT;
	struct conf *conf = load(text, environment, &errors);

	if (conf == NULL)
		print_error("%s", errors.data);
	assert_non_null(conf);
	assert_int_equal(errors.len, 0);
	buf_fini(&errors);
	return conf;
}

/* Exactly these lines, and no configuration. */
static void
assert_errors(const char *text, char *const *environment, const char *expected)
{
	struct buf errors = BUF_INIT;

	assert_null(load(text, environment, &errors));
	assert_string_equal(errors.data, expected);
	buf_fini(&errors);
}

#define ENV(...) ((char *const *)(const char *const[]){__VA_ARGS__, NULL})

/* ---- what loads ---- */

static void
test_nothing_at_all_is_the_demo(void **state)
{
	struct conf *c = load_good(NULL, NULL);

	assert_int_equal(c->listen.n, 1);
	assert_string_equal(c->listen.v[0], "127.0.0.1:8080");
	assert_int_equal(c->workers, 0);
	assert_in_range(conf_workers(c), 1, 512);
	assert_int_equal(c->max_connections, 1000);
	assert_int_equal(c->http.keepalive_timeout_ms, 5000);
	assert_int_equal(c->http.max_header_bytes, 32768);
	assert_true(c->cors.allow_credentials);
	assert_string_equal(c->user, "");
	assert_int_equal(c->providers.n, 1);
	assert_string_equal(c->providers.v[0].name, "mock");
	assert_string_equal(c->providers.v[0].base_url, "http://127.0.0.1:8081/v1");
	assert_string_equal(c->providers.v[0].api_key, "");
	assert_int_equal(c->providers.v[0].http_client.connect_timeout_ms, 10000);
	assert_true(c->providers.v[0].http_client.backoff_factor == 0.5);
	assert_string_equal(c->models.v[0].name, "default");
	assert_string_equal(c->models.v[0].targets.v[0].provider, "mock");
	assert_true(c->models.v[0].price.input == -1);
	assert_string_equal(c->apps.v[0].id, "demo");
	assert_true(conf_list_has(&c->apps.v[0].client_may, "tools"));
	assert_int_equal(c->keys.n, 3);
	assert_string_equal(c->keys.v[0].secret, CONF_DEMO_CLIENT_KEY);
	assert_int_equal(c->keys.v[0].rate.limit, 60);
	assert_int_equal(c->keys.v[0].rate.window_ms, 60000);
	assert_string_equal(c->keys.v[2].secret, CONF_DEMO_ADMIN_KEY);
	assert_int_equal(c->mcp.servers.n, 0);
	assert_int_equal(c->warnings.n, 0);
	conf_free(&c);
	assert_null(c);
	conf_free(&c);
}

static void
test_the_demo_with_a_provider_key(void **state)
{
	struct conf *c = load_good(
	    NULL, ENV("OPENAI_API_KEY=sk-1", "DEMO_CLIENT_KEY=pc_mine00mine00mine00mine00"));

	assert_int_equal(c->providers.n, 1);
	assert_string_equal(c->providers.v[0].name, "openai");
	assert_string_equal(c->providers.v[0].api_key, "sk-1");
	assert_string_equal(c->models.v[0].targets.v[0].provider, "openai");
	assert_true(c->models.v[0].price.output == 0.6);
	assert_string_equal(c->keys.v[0].secret, "pc_mine00mine00mine00mine00");
	conf_free(&c);
	c = load_good(NULL, ENV("OPENAI_API_KEY="));
	assert_string_equal(c->providers.v[0].name, "mock");
	conf_free(&c);
}

static void
test_a_file_that_names_none_gets_the_demo_lists(void **state)
{
	struct conf *c = load_good("max_connections: 7\nconnection_queue_size: 9\n", NULL);

	assert_int_equal(c->max_connections, 7);
	assert_int_equal(c->connection_queue_size, 9);
	assert_int_equal(c->keys.n, 3);
	conf_free(&c);
	/* One of them named: the file means all of them. */
	c = load_good("providers: [{name: p, base_url: 'http://h/v1/'}]\n"
		      "models: [{name: m, targets: [{provider: p, model: x}]}]\n",
	    NULL);
	assert_int_equal(c->apps.n, 0);
	assert_int_equal(c->keys.n, 0);
	assert_string_equal(c->providers.v[0].base_url, "http://h/v1"); /* paths go behind it */
	conf_free(&c);
	c = load_good("", NULL);
	assert_int_equal(c->keys.n, 3);
	conf_free(&c);
}

static const char contract[] =
    "listen: [\"127.0.0.1:8080\"]\n"
    "tls: {certificate: \"\", key: \"\", listen: [], http2: false}\n"
    "trusted_proxies: []\n"
    "workers: auto\n"
    "max_connections: 1000\n"
    "connection_queue_size: 500\n"
    "backlog: 2048\n"
    "run_dir: \"var\"\n"
    "http: {keepalive_timeout: 5s, max_keepalive_requests: 1000, max_request_line: 8KiB, "
    "max_incomplete: "
    "16KiB, max_header: 32KiB, max_body: 1MiB,\n"
    "       max_body_gateway: 32MiB}\n"
    "websocket: {max_message: 1MiB, ping_interval: 20s, ping_timeout: 10s}\n"
    "cors: {allow_origins: [\"*\"], allow_credentials: true}\n"
    "store: {url: \"sqlite:var/parley.db\", pool_size: 10, max_overflow: 5, acquire_timeout: 5s, "
    "recycle: "
    "3600s, grace: 30s}   # or postgres\n"
    "backplane: {url: \"\", key_prefix: \"parley:\"}\n"
    "stats: {interval: 10s, drift: 0.05, latency: 100ms}\n"
    "sessions: {reuse_window: 24h, idle_expiry: 24h, sweep_interval: 60s, history_tokens: 8000, "
    "retention: "
    "0}\n"
    "turns: {max_tool_hops: 8, total_timeout: 10m, retain_events: 5m}\n"
    "tools: {client_timeout: 60s, server_timeout: 60s}\n"
    "providers:\n"
    "  - name: openai\n"
    "    dialect: openai                   # or anthropic\n"
    "    base_url: \"https://api.openai.com/v1\"\n"
    "    api_key: \"${OPENAI_API_KEY}\"\n"
    "    http_client: {max_connections: 50, max_keepalive: 20, keepalive_expiry: 30s, "
    "connect_timeout: 10s, "
    "read_timeout: 60s, write_timeout: 10s,\n"
    "                  pool_timeout: 5s, first_token_timeout: 30s, stall_timeout: 60s, "
    "requests_per_minute: 3500, concurrent_requests: 25,\n"
    "                  max_retries: 3, backoff_factor: 0.5}\n"
    "    breaker: {failures: 5, failure_rate: 0.2, window: 60s, recovery: 60s}\n"
    "    health: {interval: 5m}\n"
    "models:\n"
    "  - name: default\n"
    "    targets: [{provider: openai, model: gpt-4o-mini, weight: 1, supports_prefill: false, "
    "context: "
    "128000}]\n"
    "    price: {input: 0.15, output: 0.60, cached: 0.075}\n"
    "apps:\n"
    "  - {id: demo, name: Demo, org: demo, system_prompt: \"\", trust_device_id: false, "
    "client_may: [tools], "
    "budget: {amount: 0, period: month},\n"
    "     knowledge: {url: \"\", top_k: 5}}\n"
    "keys:\n"
    "  - {kind: client, app: demo, secret: \"${DEMO_CLIENT_KEY}\", device_id: \"\", rate: {limit: "
    "60, window: "
    "60s}}\n"
    "  - {kind: server, app: demo, secret: \"${DEMO_SERVER_KEY}\", models: [\"*\"], rpm: 0, tpm: "
    "0, rpd: 0, "
    "budget: {amount: 0, period: month}}\n"
    "  - {kind: admin, secret: \"${PARLEY_ADMIN_KEY}\"}\n"
    "mcp: {auth: key, servers: [{name: files, command: \"mcp-server-filesystem\", args: "
    "[\"/srv\"], enabled: "
    "true}, {name: web, url: \"https://..\", headers: {}}], prefix: true}\n"
    "webhooks: {connections: 50, timeout: 10s, max_retries: 3, allow_private: false}\n"
    "tasks: {partitions: 30, prefetch: 25, concurrency: 50}\n"
    "drain: {pause: 5s, timeout: 30s}\n"
    "log: {level: info, format: text, access: false, file: \"\"}\n"
    "metrics: {listen: \"\"}\n";

static void
test_the_contract_without_its_variables(void **state)
{
	struct conf *c = load_good(contract, NULL);

	assert_string_equal(c->providers.v[0].api_key, "");
	assert_int_equal(c->keys.n, 0); /* an empty secret is no key */
	/* api_key, and each key twice: unset, left out */
	assert_int_equal(c->warnings.n, 7);
	assert_non_null(strstr(
	    c->warnings.v[0], "providers[0].api_key: the environment has no OPENAI_API_KEY"));
	assert_int_equal(c->mcp.servers.n, 2);
	assert_string_equal(c->mcp.servers.v[0].args.v[0], "/srv");
	assert_true(c->mcp.servers.v[1].enabled);
	conf_free(&c);
}

static void
test_the_contract_with_them(void **state)
{
	struct conf *c = load_good(
	    contract, ENV("OPENAI_API_KEY=sk-1", "DEMO_CLIENT_KEY=pc_0123456789abcdefABCDEF_-",
			  "DEMO_SERVER_KEY=ps_0123456789abcdefABCDEF_-",
			  "PARLEY_ADMIN_KEY=pa_0123456789abcdefABCDEF_-"));

	assert_int_equal(c->warnings.n, 0);
	assert_int_equal(c->keys.n, 3);
	assert_string_equal(c->keys.v[1].kind, "server");
	assert_string_equal(c->keys.v[1].models.v[0], "*");
	assert_true(c->models.v[0].price.cached == 0.075);
	conf_free(&c);
}

static void
test_json_is_yaml(void **state)
{
	struct conf *c = load_good(
	    "{\"workers\": 4, \"drain\": {\"pause\": \"0s\"}, \"log\": {\"access\": true},\n"
	    " \"stats\": {\"drift\": 1}, \"listen\": [\"127.0.0.1:0\", \"127.0.0.1:0\", "
	    "\"[::1]:0\"]}",
	    NULL);

	assert_int_equal(conf_workers(c), 4);
	assert_int_equal(c->drain.pause_ms, 0);
	assert_true(c->log.access);
	assert_int_equal(c->listen.n, 3);
	conf_free(&c);
}

/* ---- what is refused, and how it is told ---- */

static void
test_all_errors_at_once(void **state)
{
	assert_errors("max_conections: 5\n"
		      "max_connections: abc\n"
		      "http: {max_body: 3 furlongs, keepalive_timeout: 5,\n"
		      "       foo: 1}\n"
		      "keepalive_expiry: 5s\n"
		      "log:\n"
		      "  level: loud\n"
		      "  access: perhaps\n"
		      "stats: {drift: 7}\n"
		      "cors: 5\n"
		      "listen: 127.0.0.1:80\n",
	    NULL,
	    "t.yaml:11:1: listen: expected a list, as in [\"a\", \"b\"], got \"127.0.0.1:80\"\n"
	    "t.yaml:2:1: max_connections: expected a whole number from 1 to 10000000, got \"abc\"\n"
	    "t.yaml:3:30: http.keepalive_timeout: expected a duration (500ms, 30s, 5m, 1h, 1d) "
	    "from 0 to 1h, got "
	    "\"5\"\n"
	    "t.yaml:3:8: http.max_body: expected a size (512, 16KiB, 1MiB) from 1KiB to 1GiB, got "
	    "\"3 furlongs\"\n"
	    "t.yaml:4:8: http.foo: unknown key\n"
	    "t.yaml:10:1: cors: expected a map of options, got \"5\"\n"
	    "t.yaml:9:9: stats.drift: expected a number from 0 to 1, got \"7\"\n"
	    "t.yaml:7:3: log.level: expected debug, info, warn or error, got \"loud\"\n"
	    "t.yaml:8:3: log.access: expected true or false, got \"perhaps\"\n"
	    "t.yaml:1:1: max_conections: unknown key; did you mean max_connections?\n"
	    "t.yaml:5:1: keepalive_expiry: unknown key; did you mean "
	    "providers.http_client.keepalive_expiry?\n");
}

static void
test_what_is_no_yaml(void **state)
{
	assert_errors("a: [1,\n", NULL,
	    "t.yaml:2:1: not valid YAML: did not find expected node content, while parsing a flow "
	    "node\n");
	assert_errors("a:\n\t- b\n", NULL,
	    "t.yaml:2:1: not valid YAML: found character that cannot start any token, while "
	    "scanning for the "
	    "next token\n");
	assert_errors(
	    "- a\n- b\n", NULL, "t.yaml:1:1: expected options, as in `max_connections: 1000`\n");
	assert_errors(
	    "just a text\n", NULL, "t.yaml:1:1: expected options, as in `max_connections: 1000`\n");
	assert_errors("workers: 1\n---\nworkers: 2\n", NULL, "t.yaml:2:1: expected one document\n");
	assert_errors(
	    "workers: \"1\\0\"\n", NULL, "t.yaml:1:10: expected a text without NUL characters\n");
}

static void
test_what_yaml_allows_and_we_do_not(void **state)
{
	assert_errors("workers: 1\nlog: {level: info}\nworkers: 2\n", NULL,
	    "t.yaml:3:1: workers: given twice: first in line 1\n");
	assert_errors("drain: &d {pause: 1s}\nlog: *d\n", NULL,
	    "t.yaml:2:6: aliases are not understood here: write the value\n");
	assert_errors("workers: !!int 1\n", NULL, "t.yaml:1:10: tags are not understood here\n");
	assert_errors("? {a: b}\n: c\n", NULL, "t.yaml:1:3: expected a key\n");
	assert_errors(
	    "a: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n", NULL, "t.yaml:1:19: nested too deeply\n");
}

static void
test_wrong_shapes(void **state)
{
	assert_errors("workers: [1]\nlog: [a]\nproviders: {name: x}\nmodels: none\nmcp: {servers: "
		      "[{name: a, command: c, "
		      "env: [x]}, 7]}\n",
	    NULL,
	    "t.yaml:1:1: workers: expected one value, got a list\n"
	    "t.yaml:3:1: providers: expected a list of maps, got a map\n"
	    "t.yaml:4:1: models: expected a list of maps, got \"none\"\n"
	    "t.yaml:5:39: mcp.servers[0].env: expected a map, as in {name: \"value\"}, got a list\n"
	    "t.yaml:5:50: mcp.servers[1]: expected a map of options, got \"7\"\n"
	    "t.yaml:2:1: log: expected a map of options, got a list\n"
	    "t.yaml:4:1: models: expected at least one model\n");
}

static void
test_what_must_be_given(void **state)
{
	assert_errors("providers:\n"
		      "  - api_key: x\n"
		      "models:\n"
		      "  - name: m\n"
		      "    targets: [{model: ''}]\n"
		      "keys:\n"
		      "  - app: nobody\n",
	    NULL,
	    "t.yaml:2:5: providers[0].name: must be given\n"
	    "t.yaml:2:5: providers[0].base_url: must be given\n"
	    "t.yaml:5:15: models[0].targets[0].provider: must be given\n"
	    "t.yaml:5:16: models[0].targets[0].model: expected a text that is not empty, got \"\"\n"
	    "t.yaml:7:5: keys[0].kind: must be given\n");
}

#define MODELS    "models: [{name: m, targets: [{provider: p, model: x}]}]\n"
#define PROVIDERS "providers: [{name: p, base_url: 'http://h/v1'}]\n"
#define APPS      "apps: [{id: a}]\n"

static void
test_numbers_that_do_not_go_together(void **state)
{
	assert_errors("connection_queue_size: 3000\n", NULL,
	    "t.yaml:1:1: connection_queue_size: expected at most backlog, which is 2048\n");
	assert_errors("backlog: 100\n", NULL,
	    "t.yaml:1:1: backlog: expected at least connection_queue_size, which is 500\n");
	assert_errors("http: {max_bodies: 1MiB}\n", NULL,
	    "t.yaml:1:8: http.max_bodies: expected at least http.max_body_gateway, which is "
	    "33554432\n");
	assert_errors("http: {max_body_gateway: 128MiB}\n", NULL,
	    "t.yaml:1:8: http.max_body_gateway: expected at most http2.max_bodies, which is "
	    "67108864\n");
	assert_errors("http: {max_body: 2MiB, max_body_gateway: 1MiB, max_bodies: 1MiB}\n", NULL,
	    "t.yaml:1:8: http.max_body: expected at most http.max_bodies, which is 1048576\n");
	struct conf *c = load_good("http: {max_bodies: 0}\n", NULL);
	assert_int_equal(c->http.max_bodies_bytes, 0);
	conf_free(&c);
	assert_errors("connection_queue_size: 0\n", NULL,
	    "t.yaml:1:1: connection_queue_size: expected a whole number from 1 to 65535, got "
	    "\"0\"\n");
	assert_errors("providers: [{name: p, base_url: 'http://h', http_client: {max_connections: "
		      "10}}]\n" MODELS,
	    NULL,
	    "t.yaml:1:59: providers[0].http_client.max_connections: expected at least "
	    "providers[0].http_client.max_keepalive, which is 20\n"
	    "t.yaml:1:59: providers[0].http_client.max_connections: expected at least "
	    "providers[0].http_client.concurrent_requests, which is 25\n");
	assert_errors("http: {max_request_line: 64KiB}\nwatchdog: {backoff: 20s}\nturns: "
		      "{feed_max: 64MiB, feed_total: "
		      "1MiB}\nrun_dir: ''\ngroup: g\n",
	    NULL,
	    "t.yaml:1:8: http.max_request_line: expected at most http.max_header\n"
	    "t.yaml:2:12: watchdog.backoff: expected at most watchdog.backoff_max\n"
	    "t.yaml:3:9: turns.feed_max: expected at most turns.feed_total\n"
	    "t.yaml:4:1: run_dir: expected a directory\n"
	    "t.yaml:5:1: group: needs user, too\n");
}

static void
test_addresses(void **state)
{
	assert_errors(
	    "listen: ['localhost:80', '127.0.0.1:80', '127.0.0.1:80']\n"
	    "tls: {listen: ['127.0.0.1:80'], key: k}\n"
	    "metrics: {listen: nowhere}\n"
	    "trusted_proxies: [10.0.0.0/8, 10.0.0.1/8]\n"
	    "cors: {allow_origins: ['https://a.example', 'https://a.example/', 'a.example']}\n",
	    NULL,
	    "t.yaml:1:10: listen[0]: expected an address like 127.0.0.1:8080, [::]:8080 or "
	    "unix:/run/parley/http.sock, got \"localhost:80\"\n"
	    "t.yaml:1:42: listen[2]: 127.0.0.1:80 is listened on twice\n"
	    "t.yaml:2:16: tls.listen[0]: 127.0.0.1:80 is listened on twice\n"
	    "t.yaml:3:11: metrics.listen: expected an address like 127.0.0.1:8080, [::]:8080 or "
	    "unix:/run/parley/http.sock, got \"nowhere\"\n"
	    "t.yaml:2:1: tls.certificate: must be given with tls.listen\n"
	    "t.yaml:2:33: tls.key: expected tls.certificate and tls.key together\n"
	    "t.yaml:4:31: trusted_proxies[1]: expected a network like 10.0.0.0/8, fd00::/8 or "
	    "192.0.2.1, got "
	    "\"10.0.0.1/8\"\n"
	    "t.yaml:5:45: cors.allow_origins[1]: expected \"*\" or an origin like "
	    "https://example.com, got "
	    "\"https://a.example/\"\n"
	    "t.yaml:5:67: cors.allow_origins[2]: expected \"*\" or an origin like "
	    "https://example.com, got "
	    "\"a.example\"\n");
	assert_errors("listen: []\n", NULL,
	    "t.yaml:1:1: listen: expected at least one address here or in tls.listen\n");
}

static void
test_references(void **state)
{
	assert_errors(
	    "providers: [{name: p, base_url: 'http://h'}, {name: p, base_url: 'http://i?x'}, "
	    "{name: 'a b', "
	    "base_url: 'ftp://h'}]\n"
	    "models: [{name: m, targets: [{provider: q, model: x}]}, {name: m, targets: []}]\n"
	    "apps: [{id: a, client_may: [tools, all]}, {id: a}]\n",
	    NULL,
	    "t.yaml:1:95: providers[2].base_url: expected an address that begins with http:// or "
	    "https://\n"
	    "t.yaml:1:47: providers[1].name: \"p\" is taken by providers[0]\n"
	    "t.yaml:1:56: providers[1].base_url: expected no query and no fragment\n"
	    "t.yaml:1:82: providers[2].name: expected 1 to 64 letters, digits and ._:/@+-\n"
	    "t.yaml:2:31: models[0].targets[0].provider: expected the name of one of providers, "
	    "got \"q\"\n"
	    "t.yaml:2:58: models[1].name: \"m\" is taken by models[0]\n"
	    "t.yaml:2:67: models[1].targets: expected at least one target\n"
	    "t.yaml:3:36: apps[0].client_may[1]: expected model or tools, got \"all\"\n"
	    "t.yaml:3:44: apps[1].id: \"a\" is taken by another app\n");
	assert_errors(PROVIDERS
	    "models: [{name: m, targets: [{provider: p, model: x}], price: {input: 1}}]\n",
	    NULL, "t.yaml:2:56: models[0].price: expected input and output together\n");
	assert_errors(PROVIDERS "models: [{name: m, targets: [{provider: p, model: x}], price: "
				"{input: -0.5, output: -0.5}}]\n",
	    NULL, "t.yaml:2:56: models[0].price: expected numbers from 0\n");
}

static void
test_keys(void **state)
{
	assert_errors(PROVIDERS MODELS APPS
	    "keys:\n"
	    "- {kind: client, app: b, secret: pc_0123456789abcdef01234567}\n"
	    "- {kind: server, app: a, secret: pc_1123456789abcdef01234567}\n"
	    "- {kind: client, app: a, secret: pc_tooshort}\n"
	    "- {kind: client, app: a, secret: 'pc_2123456789abcdef0123456!'}\n"
	    "- {kind: admin, app: a, secret: pa_0123456789abcdef01234567, device_id: d, rpm: 5}\n"
	    "- {kind: server, app: a, secret: ps_0123456789abcdef01234567, models: [m, n]}\n"
	    "- {kind: server, app: a, secret: ps_0123456789abcdef01234567}\n",
	    NULL,
	    "t.yaml:5:18: keys[0].app: expected the id of one of apps, got \"b\"\n"
	    "t.yaml:6:26: keys[1].secret: expected ps_ and at least 24 letters, digits, _ and -\n"
	    "t.yaml:7:26: keys[2].secret: expected pc_ and at least 24 letters, digits, _ and -\n"
	    "t.yaml:8:26: keys[3].secret: expected pc_ and at least 24 letters, digits, _ and -\n"
	    "t.yaml:9:17: keys[4].app: an admin key belongs to no app\n"
	    "t.yaml:9:62: keys[4].device_id: only a client key is bound to a device\n"
	    "t.yaml:9:3: keys[4]: rpm, tpm and rpd are for server keys; a client key has rate\n"
	    "t.yaml:10:75: keys[5].models[1]: expected \"*\", a prefix as \"gpt-*\", or the name "
	    "of one of models, got "
	    "\"n\"\n"
	    "t.yaml:11:26: keys[6].secret: is also the secret of keys[5]\n");
}

static void
test_demo_keys_stay_on_loopback(void **state)
{
	static const char *const beyond[] = {"0.0.0.0:80", "[::]:80", ":80", "10.0.0.1:80"};
	static const char *const near[] = {"127.0.0.1:80", "[::1]:80", "unix:/run/x"};
	struct buf errors = BUF_INIT;

	for (size_t i = 0; i < ARRAY_LEN(beyond); i++) {
		char *variable = xasprintf("PARLEY_LISTEN=127.0.0.1:1,%s", beyond[i]);

		assert_null(load(NULL, ENV(variable), &errors));
		assert_non_null(strstr(errors.data, "keys[0].secret: a demo key is refused on "));
		assert_non_null(strstr(errors.data, beyond[i]));
		assert_non_null(strstr(errors.data, "keys[2].secret: a demo key"));
		assert_null(strstr(errors.data, "pc_demo"));
		free(variable);
	}
	for (size_t i = 0; i < ARRAY_LEN(near); i++) {
		char *variable = xasprintf("PARLEY_LISTEN=%s", near[i]);
		struct conf *c = load_good(NULL, ENV(variable));

		conf_free(&c);
		free(variable);
	}
	/* One's own keys may go anywhere; so may a server without any. */
	struct conf *c =
	    load_good("listen: ['0.0.0.0:80']\n" PROVIDERS MODELS APPS
		      "keys: [{kind: client, app: a, secret: pc_0123456789abcdef01234567}]\n",
		NULL);
	conf_free(&c);
	assert_null(
	    load("tls: {certificate: c, key: k, listen: ['0.0.0.0:443']}\n", NULL, &errors));
	assert_non_null(strstr(errors.data, "a demo key is refused on 0.0.0.0:443"));
	assert_errors("listen: ['0.0.0.0:80']\nmcp: {auth: none}\nkeys: []\n" PROVIDERS MODELS,
	    NULL, "t.yaml:2:7: mcp.auth: none is refused on 0.0.0.0:80, which is not loopback\n");
	buf_fini(&errors);
}

static void
test_tool_server_options(void **state)
{
	assert_errors("mcp:\n"
		      "  backoff: 10s\n"
		      "  backoff_max: 5s\n"
		      "  servers:\n"
		      "  - {name: a, command: c, per: core}\n"
		      "  - {name: b, url: 'http://h', prefix: maybe, probe_timeout: 1ms}\n",
	    NULL,
	    "t.yaml:5:27: mcp.servers[0].per: expected host or worker, got \"core\"\n"
	    "t.yaml:6:32: mcp.servers[1].prefix: expected auto, true or false, got \"maybe\"\n"
	    "t.yaml:6:47: mcp.servers[1].probe_timeout: expected a duration (500ms, 30s, 5m, 1h, "
	    "1d) from 10ms to 1h, got \"1ms\"\n"
	    "t.yaml:2:3: mcp.backoff: expected at most mcp.backoff_max, which is 5000\n");
	assert_errors("mcp: {servers: [{name: a, command: c}]}\n"
		      "apps: [{id: x, mcp_servers: [a, z]}]\n" PROVIDERS MODELS,
	    NULL,
	    "t.yaml:2:33: apps[0].mcp_servers[1]: expected \"*\" or the name of one of "
	    "mcp.servers, got \"z\"\n");
	struct conf *c = load_good(
	    "mcp: {servers: [{name: a, command: c, prefix: false, tools: [x, y]}]}\n", NULL);
	assert_string_equal(c->mcp.servers.v[0].prefix, "false");
	assert_int_equal(c->mcp.servers.v[0].tools.n, 2);
	assert_string_equal(c->apps.v[0].mcp_servers.v[0], "*");
	conf_free(&c);
}

static void
test_tool_servers(void **state)
{
	assert_errors("mcp: {servers: [\n"
		      "{name: a__b, command: c},\n"
		      "{name: x},\n"
		      "{name: y, command: c, url: 'http://h'},\n"
		      "{name: y, url: 'http://h', args: [z]},\n"
		      "{name: z, command: c, headers: {a: b}},\n"
		      "{name: w, url: 'http://h', headers: {'a:': b, c: \"d\\nX: y\"}}]}\n",
	    NULL,
	    "t.yaml:2:2: mcp.servers[0].name: expected 1 to 32 letters, digits, - and _, without "
	    "__\n"
	    "t.yaml:3:1: mcp.servers[1]: expected either command or url\n"
	    "t.yaml:4:1: mcp.servers[2]: expected either command or url\n"
	    "t.yaml:5:2: mcp.servers[3].name: \"y\" is taken by mcp.servers[2]\n"
	    "t.yaml:5:1: mcp.servers[3]: args and env need command\n"
	    "t.yaml:6:23: mcp.servers[4].headers: headers need url\n"
	    "t.yaml:7:28: mcp.servers[5].headers: expected names and values of one line\n"
	    "t.yaml:7:28: mcp.servers[5].headers: expected names and values of one line\n");
}

static void
test_many_errors_are_cut(void **state)
{
	struct buf text = BUF_INIT, errors = BUF_INIT;
	size_t lines = 0;

	for (int i = 0; i < 500; i++)
		buf_printf(&text, "unknown_%d: 1\n", i);
	assert_null(load(text.data, NULL, &errors));
	for (size_t i = 0; i < errors.len; i++)
		lines += errors.data[i] == '\n';
	assert_int_equal(lines, 101);
	assert_non_null(strstr(errors.data, "t.yaml: too many errors, the rest is not shown\n"));
	buf_clear(&text);
	for (int i = 0; i < 5000; i++)
		buf_printf(&text, "k%d: 1\n", i);
	assert_errors(text.data, NULL, "t.yaml:4097:1: k4096: more than 4096 entries\n");
	buf_fini(&text);
	buf_fini(&errors);
}

/* What the file says cannot forge a line of ours. */
static void
test_messages_stay_on_their_line(void **state)
{
	assert_errors("\"a\\nt.yaml:1:1: b\": 1\nlog: {level: \"x\\ny\"}\n", NULL,
	    "t.yaml:2:7: log.level: expected debug, info, warn or error, got \"x\\ny\"\n"
	    "t.yaml:1:1: a\\nt.yaml:1:1: b: unknown key\n");
}

/* ---- the environment and the flags ---- */

static void
test_precedence(void **state)
{
	static const struct conf_override two[] = {{"max_connections", "44", "--max-connections"},
	    {"listen", "127.0.0.1:4,127.0.0.1:5", "--listen"}};
	const char *file = "max_connections: 22\nlisten: ['127.0.0.1:2']\nlog: {level: warn}\n";
	char *const *env = ENV(
	    "PARLEY_MAX_CONNECTIONS=33", "PARLEY_LISTEN=127.0.0.1:3", "PARLEY_LOG__FORMAT=json");
	struct conf *c = load_good(file, NULL);

	assert_int_equal(c->max_connections, 22);
	conf_free(&c);
	c = load_good(file, env);
	assert_int_equal(c->max_connections, 33);
	assert_string_equal(c->listen.v[0], "127.0.0.1:3");
	assert_string_equal(c->log.level, "warn");
	assert_string_equal(c->log.format, "json");
	conf_free(&c);
	flags = two;
	flag_count = 2;
	c = load_good(file, env);
	flag_count = 0;
	assert_int_equal(c->max_connections, 44);
	assert_int_equal(c->listen.n, 2);
	assert_string_equal(c->listen.v[1], "127.0.0.1:5");
	conf_free(&c);
}

static void
test_variables(void **state)
{
	struct conf *c = load_good(
	    "providers: [{name: my-llm, base_url: 'http://h'}]\nmodels: [{name: m, targets: "
	    "[{provider: my-llm, model: x}]}]\n",
	    ENV("PARLEY_HTTP__MAX_BODY=2MiB", "PARLEY_CORS__ALLOW_ORIGINS=https://a, https://b,",
		"PARLEY_PROVIDERS__0__BASE_URL=http://i",
		"PARLEY_PROVIDERS__MY_LLM__HTTP_CLIENT__MAX_RETRIES=0",
		"PARLEY_PROVIDERS__1__NAME=second", "PARLEY_PROVIDERS__1__BASE_URL=http://j",
		"PARLEY_MODELS__M__TARGETS__0__WEIGHT=5", "PARLEY_CORS__ALLOW_CREDENTIALS=0",
		"PARLEY_TLS__LISTEN=", "PARLEY_MAX_CONNECTIONS=", "PARLEY_LOG__FILE=", "PARLEY=1",
		"PARLEY_=1", "HOME=/", "nonsense", "PARLEY_PORT=tcp://1.2.3.4:80",
		"PARLEY_ADMIN_KEY=x"));

	assert_int_equal(c->http.max_body_bytes, 2 << 20);
	assert_int_equal(c->cors.allow_origins.n, 2);
	assert_string_equal(c->cors.allow_origins.v[1], "https://b");
	assert_string_equal(c->providers.v[0].base_url, "http://i");
	assert_int_equal(c->providers.v[0].http_client.max_retries, 0);
	assert_int_equal(c->providers.n, 2);
	assert_string_equal(c->providers.v[1].name, "second");
	assert_int_equal(c->models.v[0].targets.v[0].weight, 5);
	assert_false(c->cors.allow_credentials);
	assert_int_equal(c->max_connections, 1000); /* X: ${X:-} */
	assert_int_equal(c->warnings.n, 0);
	conf_free(&c);
}

static void
test_well_known_variables(void **state)
{
	const char *file = "workers: 2\n"
			   "store: {url_file: /nowhere}\n"
			   "providers: [{name: openai, base_url: 'http://h', api_key: old}, {name: "
			   "open-router, base_url: "
			   "'http://i'}]\n"
			   "models: [{name: m, targets: [{provider: openai, model: x}]}]\n";
	struct conf *c = load_good(
	    file, ENV("WORKERS=3", "DATABASE_URL=postgres://u:p@h/d", "REDIS_URL=redis://h",
		      "OPENAI_API_KEY=new", "OPEN_ROUTER_API_KEY=or"));

	assert_int_equal(c->workers, 3);
	assert_string_equal(c->store.url, "postgres://u:p@h/d"); /* in place of url_file */
	assert_string_equal(c->backplane.url, "redis://h");
	assert_string_equal(c->providers.v[0].api_key, "new");
	assert_string_equal(c->providers.v[1].api_key, "or");
	conf_free(&c);
	/* Ours are more specific; empty ones are as if unset. */
	c = load_good("store: {url: 'sqlite:x'}\n",
	    ENV("WORKERS=3", "PARLEY_WORKERS=5", "DATABASE_URL=", "REDIS_URL="));
	assert_int_equal(c->workers, 5);
	assert_string_equal(c->store.url, "sqlite:x");
	conf_free(&c);
}

static void
test_wrong_variables_and_flags(void **state)
{
	static const struct conf_override two[] = {
	    {"log.level", "loud", "--log-level"}, {"nonsense.x", "1", "--set"}};

	assert_errors(NULL,
	    ENV("WORKERS=many", "DATABASE_URL=mysql://root:hunter2@h/d",
		"PARLEY_HTTP__MAX_BODY=big", "PARLEY_HTTP__MAX_BODI=1",
		"PARLEY_PROVIDERS__7__NAME=x", "PARLEY_PROVIDERS=x__y", "PARLEY_LOG__FILE=\xff"),
	    "PARLEY_HTTP__MAX_BODI: names no option; expected PARLEY_SECTION__KEY, as in "
	    "PARLEY_HTTP__MAX_BODY\n"
	    "PARLEY_PROVIDERS__7__NAME: names no option; expected PARLEY_SECTION__KEY, as in "
	    "PARLEY_HTTP__MAX_BODY\n"
	    "WORKERS: workers: expected auto or a whole number from 1 to 512, got \"many\"\n"
	    "PARLEY_HTTP__MAX_BODY: http.max_body: expected a size (512, 16KiB, 1MiB) from 1KiB to "
	    "1GiB, got "
	    "\"big\"\n"
	    "DATABASE_URL: store.url: expected an address that begins with sqlite:, postgres:// or "
	    "postgresql://\n"
	    "PARLEY_LOG__FILE: log.file: expected text in UTF-8, got \"\xff\"\n");
	flags = two;
	flag_count = 2;
	assert_errors(NULL, NULL,
	    "--set: nonsense.x: unknown key\n"
	    "--log-level: log.level: expected debug, info, warn or error, got \"loud\"\n");
	flag_count = 0;
	struct conf *c = load_good(NULL, ENV("PARLEY_MAX_CONECTIONS=5"));
	assert_int_equal(c->warnings.n, 1);
	assert_string_equal(c->warnings.v[0],
	    "PARLEY_MAX_CONECTIONS: names no option; did you mean PARLEY_MAX_CONNECTIONS?");
	conf_free(&c);
}

static void
test_substitution(void **state)
{
	char *const *env = ENV("DIR=/d", "EMPTY=", "N=7");
	struct conf *c = load_good("run_dir: \"${DIR}/run\"\n"
				   "pid_file: ${DIR}${EMPTY}/${NONE:-x}/${EMPTY:-y}/${DIR:-z}\n"
				   "max_connections: ${N}\n"
				   "log: {file: '$${DIR} $5 {} $'}\n"
				   "cors: {allow_origins: ['https://${NONE:-host}']}\n",
	    env);

	assert_string_equal(c->run_dir, "/d/run");
	assert_string_equal(c->pid_file, "/d/x/y//d");
	assert_int_equal(c->max_connections, 7);
	assert_string_equal(c->log.file, "${DIR} $5 {} $");
	assert_string_equal(c->cors.allow_origins.v[0], "https://host");
	conf_free(&c);
	assert_errors(
	    "run_dir: ${NONE}/x\nmax_connections: ${WORD}\nlog: {file: '${1X}', level: '${DIR'}\n",
	    ENV("WORD=hunter2"),
	    "t.yaml:3:13: file: expected ${NAME} or ${NAME:-text}; write $${ for a plain ${\n"
	    "t.yaml:3:29: level: expected a } after ${\n"
	    "t.yaml:2:1: max_connections: expected a whole number from 1 to 10000000\n"
	    "t.yaml:1:1: run_dir: the environment has no NONE\n"
	    "t.yaml:3:22: log.level: expected debug, info, warn or error, got \"${DIR\"\n");
}

/* ---- secrets ---- */

static void
put_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void
test_secrets_from_files(void **state)
{
	char path[] = "/tmp/parley-conf-XXXXXX";
	struct buf text = BUF_INIT, errors = BUF_INIT;

	close(mkstemp(path));
	put_file(path, "sk-from-file\n");
	buf_printf(&text,
	    "providers: [{name: p, base_url: 'http://h', api_key_file: '%s'}]\n" MODELS, path);
	struct conf *c = load_good(text.data, NULL);
	assert_string_equal(c->providers.v[0].api_key, "sk-from-file");
	conf_free(&c);
	/* The variable replaces it; and a file by variable replaces a value. */
	c = load_good(text.data, ENV("P_API_KEY=env"));
	assert_string_equal(c->providers.v[0].api_key, "env");
	conf_free(&c);
	/* Binary is no secret; nothing is as if absent. */
	FILE *f = fopen(path, "w");
	assert_int_equal(fwrite("a\0b\n", 1, 4, f), 4);
	fclose(f);
	assert_null(load(text.data, NULL, &errors));
	assert_non_null(strstr(errors.data, "providers[0].api_key_file: expected a readable file"));
	put_file(path, "\n");
	c = load_good(text.data, NULL);
	assert_string_equal(c->providers.v[0].api_key, "");
	conf_free(&c);
	put_file(path, "sqlite:y");
	char *variable = xasprintf("PARLEY_STORE__URL_FILE=%s", path);
	c = load_good("store: {url: 'sqlite:x'}\n", ENV(variable));
	assert_string_equal(c->store.url, "sqlite:y");
	conf_free(&c);
	free(variable);
	assert_int_equal(unlink(path), 0);
	assert_null(load(text.data, NULL, &errors));
	assert_non_null(strstr(errors.data, "providers[0].api_key_file: expected a readable file "
					    "of at most 64KiB of text: No such file"));
	assert_errors("store: {url: 'sqlite:x', url_file: /dev/zero}\n", NULL,
	    "t.yaml:1:26: store.url: expected url or url_file, got both\n");
	assert_errors("store: {url_file: /dev/zero}\n", NULL,
	    "t.yaml:1:9: store.url_file: expected a readable file of at most 64KiB of text: "
	    "Invalid argument\n");
	assert_errors("providers: [~]\nmodels: []\n", NULL,
	    "t.yaml:1:13: providers[0].name: must be given\n"
	    "t.yaml:1:13: providers[0].base_url: must be given\n"
	    "t.yaml:2:1: models: expected at least one model\n");
	assert_errors("providers: [{name: p, base_url_file: x}]\n" MODELS, NULL,
	    "t.yaml:1:13: providers[0].base_url: must be given\n"
	    "t.yaml:1:23: providers[0].base_url_file: unknown key\n");
	buf_fini(&text);
	buf_fini(&errors);
}

static const char with_secrets[] =
    "store: {url: 'postgres://user:hunter2@host/db?sslmode=require&password=hunter2'}\n"
    "backplane: {url: 'redis://:hunter2@host:6379/0'}\n"
    "providers: [{name: p, base_url: 'https://hunter2@h/v1', api_key: sk-hunter2}]\n" MODELS
    "apps: [{id: a, knowledge: {url: 'http://u:hun?ter2/x@h/hunter3?key=hunter2'}}]\n"
    "keys: [{kind: client, app: a, secret: pc_hunter2hunter2hunter2hunter2}]\n"
    "mcp: {servers: [{name: s, command: c, env: {TOKEN: hunter2}}, {name: t, url: 'http://h', "
    "headers: "
    "{Authorization: 'Bearer hunter2'}}]}\n";

static void
test_secrets_are_never_printed(void **state)
{
	struct conf *c = load_good(with_secrets, NULL);
	struct buf out = BUF_INIT;

	conf_print(c, &out);
	assert_null(strstr(out.data, "hunter2"));
	assert_null(strstr(out.data, "ter2"));
	assert_non_null(strstr(
	    out.data, "  url: \"postgres://user:***@host/db?sslmode=require&password=***\"\n"));
	assert_non_null(strstr(out.data, "  url: \"redis://:***@host:6379/0\"\n"));
	assert_non_null(strstr(out.data, "base_url: \"https://***@h/v1\"\n"));
	assert_non_null(strstr(out.data, "url: \"http://u:***@h/hunter3?key=***\"\n"));
	assert_non_null(strstr(out.data, "env: {\"TOKEN\": \"***\"}\n"));
	buf_fini(&out);
	conf_free(&c);
}

static void
test_secrets_are_not_in_errors(void **state)
{
	struct buf errors = BUF_INIT;

	assert_null(
	    load("providers: [{name: p, base_url: 'hunter2://h', api_key: [hunter2]}]\n" MODELS APPS
		 "store: {url: 'hunter2:x'}\n"
		 "keys: [{kind: client, app: a, secret: hunter2}, {kind: server, app: a, secret: "
		 "{hunter2: 1}}]\n"
		 "mcp: {servers: [{name: s, command: c, env: {TOKEN: [hunter2]}}]}\n"
		 "log: {level: '${SECRET}'}\n",
		ENV("SECRET=hunter2", "P_API_KEY=\xffhunter2"), &errors));
	assert_null(strstr(errors.data, "hunter2"));
	assert_non_null(
	    strstr(errors.data, "P_API_KEY: providers[0].api_key: expected text in UTF-8\n"));
	buf_fini(&errors);
}

/* ---- what becomes of it ---- */

static void
test_what_is_printed_loads_again(void **state)
{
	struct conf *first = load_good(NULL, NULL);
	struct buf printed = BUF_INIT, again = BUF_INIT;

	conf_print(first, &printed);
	/* Apart from the secrets, which are not in it. */
	for (char *at; (at = strstr(printed.data, "secret: \"***\"")) != NULL;)
		memcpy(at, "secret: \"\"   ", 13);
	struct conf *second = load_good(printed.data, NULL);
	assert_int_equal(second->keys.n, 0);
	assert_int_equal(second->models.n, 1);
	conf_print(second, &again);
	char *keys = strstr(printed.data, "\nkeys:");
	assert_memory_equal(printed.data, again.data, keys - printed.data);
	assert_string_equal(strstr(printed.data, "\nmcp:"), strstr(again.data, "\nmcp:"));
	conf_free(&first);
	conf_free(&second);
	buf_fini(&printed);
	buf_fini(&again);
}

static void
test_what_needs_a_restart(void **state)
{
	struct conf *old = load_good("backlog: 3000\n", NULL),
		    *new = load_good("backlog: 3000\n", NULL);
	struct buf keys = BUF_INIT;

	assert_int_equal(conf_diff_needs_restart(old, new, &keys), 0);
	conf_free(&new);
	new =
	    load_good("max_connections: 5\nlog: {level: debug}\nkeys: []\n" PROVIDERS MODELS, NULL);
	assert_int_equal(conf_diff_needs_restart(old, new, &keys), 1); /* the backlog went back */
	assert_string_equal(keys.data, "backlog\n");
	conf_free(&new);
	buf_clear(&keys);
	new = load_good("backlog: 3000\nunix_mode: '0600'\nworkers: 3\nlisten: ['127.0.0.1:9']\n"
			"store: {url: 'postgres://u:other@h/d'}\n",
	    NULL);
	assert_int_equal(conf_diff_needs_restart(old, new, &keys), 3);
	assert_string_equal(keys.data, "listen\nunix_mode\nstore.url\n");
	conf_free(&old);
	buf_clear(&keys);
	/* A password alone is a difference, though it prints the same. */
	old = load_good("backlog: 3000\nunix_mode: '0600'\nlisten: ['127.0.0.1:9']\n"
			"store: {url: 'postgres://u:this@h/d'}\n",
	    NULL);
	assert_int_equal(conf_diff_needs_restart(old, new, &keys), 1);
	assert_string_equal(keys.data, "store.url\n");
	conf_free(&old);
	conf_free(&new);
	buf_fini(&keys);
}

static void
test_files(void **state)
{
	char path[] = "/tmp/parley-conf-XXXXXX";
	struct conf_source source = {.file = path};
	struct buf errors = BUF_INIT;

	close(mkstemp(path));
	put_file(path, "max_connections: 12\n");
	struct conf *c = conf_load(&source, &errors);
	assert_non_null(c);
	assert_int_equal(c->max_connections, 12);
	conf_free(&c);
	assert_int_equal(truncate(path, 2 << 20), 0);
	assert_null(conf_load(&source, &errors));
	assert_non_null(strstr(errors.data, ": expected a file of at most 1MiB\n"));
	unlink(path);
	buf_clear(&errors);
	assert_null(conf_load(&source, &errors));
	assert_non_null(strstr(errors.data, ": cannot be read: No such file or directory\n"));
	assert_int_equal(strncmp(errors.data, path, strlen(path)), 0);
	source.file = "/tmp";
	assert_null(conf_load(&source, &errors));
	buf_fini(&errors);
}

/* ---- the table ---- */

static size_t
check_level(const struct conf_opt *level, bool is_in_list)
{
	size_t count = 0;

	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		assert_true(strlen(o->help) > 3);
		assert_int_equal(o->help[strlen(o->help) - 1], '.');
		assert_ptr_equal(conf_spec_find(level, str_of(o->name)), o); /* once */
		if (is_in_list)
			assert_true(
			    o->type == CONF_SECTION || o->is_live); /* conf_diff_needs_restart */
		else
			assert_non_null(
			    o->type == CONF_SECTION || o->type == CONF_LIST_OF ? "" : o->def);
		if (o->type == CONF_SECTION || o->type == CONF_LIST_OF)
			count +=
			    check_level(conf_spec_inside(o), is_in_list || o->type == CONF_LIST_OF);
		count++;
	}
	return count;
}

static void
test_the_table(void **state)
{
	assert_in_range(check_level(conf_spec(), false), 150, 1000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_nothing_at_all_is_the_demo),
	    cmocka_unit_test(test_the_demo_with_a_provider_key),
	    cmocka_unit_test(test_a_file_that_names_none_gets_the_demo_lists),
	    cmocka_unit_test(test_the_contract_without_its_variables),
	    cmocka_unit_test(test_the_contract_with_them),
	    cmocka_unit_test(test_json_is_yaml),
	    cmocka_unit_test(test_all_errors_at_once),
	    cmocka_unit_test(test_what_is_no_yaml),
	    cmocka_unit_test(test_what_yaml_allows_and_we_do_not),
	    cmocka_unit_test(test_wrong_shapes),
	    cmocka_unit_test(test_what_must_be_given),
	    cmocka_unit_test(test_numbers_that_do_not_go_together),
	    cmocka_unit_test(test_addresses),
	    cmocka_unit_test(test_references),
	    cmocka_unit_test(test_keys),
	    cmocka_unit_test(test_demo_keys_stay_on_loopback),
	    cmocka_unit_test(test_tool_servers),
	    cmocka_unit_test(test_tool_server_options),
	    cmocka_unit_test(test_many_errors_are_cut),
	    cmocka_unit_test(test_messages_stay_on_their_line),
	    cmocka_unit_test(test_precedence),
	    cmocka_unit_test(test_variables),
	    cmocka_unit_test(test_well_known_variables),
	    cmocka_unit_test(test_wrong_variables_and_flags),
	    cmocka_unit_test(test_substitution),
	    cmocka_unit_test(test_secrets_from_files),
	    cmocka_unit_test(test_secrets_are_never_printed),
	    cmocka_unit_test(test_secrets_are_not_in_errors),
	    cmocka_unit_test(test_what_is_printed_loads_again),
	    cmocka_unit_test(test_what_needs_a_restart),
	    cmocka_unit_test(test_files),
	    cmocka_unit_test(test_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
