/*
 * key_main - `parleyd key create|list|revoke`: keys in the store, from a command line.
 *
 * It writes to the store itself, whether a server runs or not, and is no worker. That
 * running workers hear of it is the caller's business.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/conf_value.h"
#include "common/err.h"
#include "common/handoff.h"
#include "worker/session/keys.h"
#include "worker/store/store.h"

enum { ROWS_MAX = 1, LIST_ROWS = 1000 };
#define BUDGET_AMOUNT_MAX 1e9 /* as in the config */

static const char *const kind_names[] = {
    [KEY_CLIENT] = "client", [KEY_SERVER] = "server", [KEY_ADMIN] = "admin"};

struct key_command {
	const struct conf *conf;
	struct shm *shm; /* of our own: nobody else sees it */
	struct loop *loop;
	struct store *store;
	struct keys *keys;
	struct id after; /* the last key of a page that was not the last */
	bool is_done;
	int status;
};

struct key_args {
	const char *kind, *app, *device, *name, *expires_in, *id;
	const char *budget, *models, *rpm, *tpm, *rpd; /* of a server key */
};

static const char usage[] =
    "usage: parleyd [--config FILE] key create --kind client|server|admin [--app ID]\n"
    "                   [--device ID] [--name TEXT] [--expires 30d]\n"
    "           of a server key: [--budget AMOUNT[/day|week|month|total]] [--models NAME,PREFIX*]\n"
    "                   [--rpm REQUESTS] [--tpm TOKENS] [--rpd REQUESTS]\n"
    "       parleyd [--config FILE] key list [--app ID]\n"
    "       parleyd [--config FILE] key revoke KEY_ID\n";

static int
misused(const char *why)
{
	fprintf(stderr, "parleyd key: %s\n%s", why, usage);
	return EX_USAGE;
}

/* ---- the store, without a server ---- */

static bool
open_store(struct key_command *c)
{
	if (store_migrate(c->conf) != 0 || (c->store = store_new_direct(c->conf)) == NULL)
		return false;
	c->shm = shm_create(ROWS_MAX);
	check(c->shm != NULL);
	c->loop = loop_new();
	c->keys = keys_new(c->loop, c->conf, c->shm, c->store);
	return true;
}

static void
close_store(struct key_command *c)
{
	keys_free(&c->keys);
	store_free(&c->store);
	if (c->loop != NULL)
		loop_free(&c->loop);
	if (c->shm != NULL)
		shm_free(&c->shm);
}

static void
done(struct key_command *c, int err)
{
	c->is_done = true;
	c->status = err == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
	if (err != 0)
		fprintf(stderr, "parleyd key: %s\n", err_info(err)->text);
	loop_stop(c->loop);
}

/* The verbs may answer at once or from the loop. */
static int
finish(struct key_command *c)
{
	if (!c->is_done)
		loop_run(c->loop);
	return c->status;
}

/* ---- create ---- */

static void
on_created(void *arg, int err, const struct store_key *key, const char *secret)
{
	if (err == 0)
		printf("id      %s\nsecret  %s\n", key->id, secret);
	if (err == 0)
		fputs("The secret is not shown again.\n", stderr);
	done(arg, err);
}

static bool
kind_of(const char *name, enum key_kind *ret)
{
	for (size_t i = 0; name != NULL && i < ARRAY_LEN(kind_names); i++) {
		if (strcmp(kind_names[i], name) == 0) {
			*ret = (enum key_kind)i;
			return true;
		}
	}
	return false;
}

static bool
is_app(const struct conf *conf, const char *id)
{
	for (size_t i = 0; i < conf->apps.n; i++) {
		if (strcmp(conf->apps.v[i].id, id) == 0)
			return true;
	}
	return false;
}

/* False: not a budget. "10" is for all time, "10/month" begins anew each month. */
static bool
read_budget(const char *text, json_t **ret)
{
	enum budget_period period = BUDGET_TOTAL;
	char *end;
	double amount = strtod(text, &end);

	if (end == text || !(amount > 0 && amount <= BUDGET_AMOUNT_MAX))
		return false;
	if (*end != '\0' && (*end != '/' || !budget_period_parse(end + 1, &period)))
		return false;
	*ret = json_pack("{s:f,s:s}", "amount", amount, "period", budget_period_name(period));
	return true;
}

static json_t *
models_of(const char *text)
{
	struct str rest = str_of(text);
	json_t *list = json_array();

	while (rest.len > 0) {
		struct str one = str_trim(str_split(&rest, ','));

		if (one.len > 0)
			json_array_append_new(list, json_stringn(one.p, one.len));
	}
	return list;
}

static bool
set_count(json_t *limits, const char *name, const char *text)
{
	uint64_t n;

	if (text == NULL)
		return true;
	return str_to_u64(str_of(text), &n) && n <= UINT32_MAX &&
	       json_object_set_new(limits, name, json_integer((json_int_t)n)) == 0;
}

/* NULL, or what is wrong. *ret_json stays NULL without limits. */
static const char *
read_limits(const struct key_args *args, char **ret_json)
{
	json_t *limits = json_object(), *budget = NULL;
	const char *wrong = NULL;

	if (args->budget != NULL && !read_budget(args->budget, &budget))
		wrong = "--budget must be an amount above 0, and a period: 10/month, 0.5/day, "
			"100/total";
	else if (!set_count(limits, "rpm", args->rpm) || !set_count(limits, "tpm", args->tpm) ||
		 !set_count(limits, "rpd", args->rpd))
		wrong = "--rpm, --tpm and --rpd must be whole numbers";
	if (budget != NULL)
		json_object_set_new(limits, "budget", budget);
	if (args->models != NULL)
		json_object_set_new(limits, "models", models_of(args->models));
	if (args->models != NULL && json_array_size(json_object_get(limits, "models")) == 0)
		wrong = "--models must name models: gpt-4o,claude-*";
	if (wrong == NULL && json_object_size(limits) > 0)
		*ret_json = json_dumps(limits, JSON_COMPACT);
	json_decref(limits);
	return wrong;
}

static int
key_create(struct key_command *c, const struct key_args *args)
{
	struct keys_create create = {
	    .app_id = args->app, .device_id = args->device, .name = args->name};
	char *limits = NULL;
	const char *wrong;
	uint64_t life_ms;

	if (!kind_of(args->kind, &create.kind))
		return misused("--kind must be client, server or admin");
	if (create.kind == KEY_ADMIN && (args->app != NULL || args->device != NULL))
		return misused("an admin key has no --app and no --device");
	if (create.kind != KEY_ADMIN && (args->app == NULL || !is_app(c->conf, args->app)))
		return misused("--app must name one of the configured apps");
	if (create.kind != KEY_CLIENT && args->device != NULL)
		return misused("only a client key has a --device");
	if (args->expires_in != NULL) {
		if (!conf_parse_duration(str_of(args->expires_in), &life_ms) || life_ms == 0)
			return misused("--expires must be a duration: 12h, 30d");
		create.expires_at = clock_wall_ms() + (int64_t)life_ms;
	}
	if ((wrong = read_limits(args, &limits)) != NULL)
		return misused(wrong);
	if (limits != NULL && create.kind != KEY_SERVER) {
		free(limits);
		return misused("only a server key has a budget, models and limits");
	}
	create.limits_json = limits;
	int status = EXIT_FAILURE;
	if (open_store(c)) {
		keys_create(c->keys, &create, on_created, c);
		status = finish(c);
	}
	free(limits);
	return status;
}

/* ---- list ---- */

static const char *
or_dash(const char *text)
{
	return text != NULL && text[0] != '\0' ? text : "-";
}

static const char *
state_of(const struct store_key *key, int64_t now_ms)
{
	if (key->revoked_at != 0)
		return "revoked";
	return key->expires_at != 0 && key->expires_at <= now_ms ? "expired" : "valid";
}

static void
print_key(const struct store_key *key, int64_t now_ms)
{
	char created[CLOCK_RFC3339_LEN + 1];

	clock_format(key->created_at, created);
	printf("%-30s  %-6s  %-7s  %-24s  %-16s  %-16s  %s\n", key->id, key->kind,
	    state_of(key, now_ms), created, or_dash(key->app_id), or_dash(key->device_id),
	    or_dash(key->name));
}

static void
on_listed(void *arg, int err, const struct store_key *keys, size_t count, bool has_more)
{
	struct key_command *c = arg;
	int64_t now_ms = clock_wall_ms();

	if (err == 0 && c->after.s[0] == '\0')
		printf("%-30s  %-6s  %-7s  %-24s  %-16s  %-16s  %s\n", "id", "kind", "state",
		    "created", "app", "device", "name");
	for (size_t i = 0; err == 0 && i < count; i++)
		print_key(&keys[i], now_ms);
	if (err == 0 && has_more && id_parse(str_of(keys[count - 1].id), "key", &c->after))
		return;
	c->after.s[0] = '\0';
	done(c, err);
}

static int
key_list(struct key_command *c, const struct key_args *args)
{
	if (!open_store(c))
		return EXIT_FAILURE;
	do {
		store_key_list(c->store, args->app, c->after.s[0] != '\0' ? c->after.s : NULL,
		    LIST_ROWS, on_listed, c);
	} while (c->after.s[0] != '\0');
	return finish(c);
}

/* ---- revoke ---- */

static void
on_revoked(void *arg, int err)
{
	done(arg, err);
}

static int
key_revoke(struct key_command *c, const struct key_args *args)
{
	struct id id;

	if (args->id == NULL || !id_parse(str_of(args->id), "key", &id))
		return misused("revoke needs the id of a key (key_..), as `key list` shows it");
	if (!open_store(c))
		return EXIT_FAILURE;
	keys_revoke(c->keys, id.s, on_revoked, c);
	return finish(c);
}

/* ---- the command line ---- */

static const char **
arg_of(struct key_args *args, const char *flag)
{
	const struct {
		const char *name;
		const char **value;
	} flags[] = {
	    {"--kind", &args->kind},
	    {"--app", &args->app},
	    {"--device", &args->device},
	    {"--name", &args->name},
	    {"--expires", &args->expires_in},
	    {"--expires-in", &args->expires_in}, /* as POST /v1/client-keys calls it */
	    {"--budget", &args->budget},
	    {"--models", &args->models},
	    {"--rpm", &args->rpm},
	    {"--tpm", &args->tpm},
	    {"--rpd", &args->rpd},
	};

	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		if (strcmp(flags[i].name, flag) == 0)
			return flags[i].value;
	}
	return NULL;
}

/* NULL, or what is wrong. */
static const char *
parse_args(struct key_args *args, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char **value = arg_of(args, argv[i]);

		if (value == NULL && (argv[i][0] == '-' || args->id != NULL))
			return "unknown option or too many arguments";
		if (value == NULL) {
			args->id = argv[i];
			continue;
		}
		if (i + 1 == argc)
			return "an option lacks its value";
		*value = argv[++i];
	}
	return NULL;
}

int
worker_key_command(const struct conf *conf, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct key_command *, const struct key_args *);
	} verbs[] = {{"create", key_create}, {"list", key_list}, {"revoke", key_revoke}};
	struct key_command c = {.conf = conf};
	struct key_args args = {NULL};

	if (argc > 0 && strcmp(argv[argc - 1], "--help") == 0) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	const char *wrong = parse_args(&args, argc, argv);
	if (wrong != NULL)
		return misused(wrong);
	for (size_t i = 0; argc > 0 && i < ARRAY_LEN(verbs); i++) {
		if (strcmp(verbs[i].name, argv[0]) == 0) {
			int status = verbs[i].run(&c, &args);

			close_store(&c);
			return status;
		}
	}
	return misused("create, list or revoke?");
}
