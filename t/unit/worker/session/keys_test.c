/*
 * keys_test - who a secret belongs to: of the config, of the store, cached,
 * revoked, expired; seen by another worker, and by `parleyd key` from outside.
 */
#include "t/unit/worker/store/world.h"

#include "common/crypto.h"
#include "common/shm.h"
#include "worker/session/key_text.h"
#include "worker/session/keys.h"

#define CONF_SECRET "pc_configured0000000000000000000"

static struct world w;
static struct shm *shm;
static struct keys *keys, *other; /* of this worker and of another one */

static struct {
	int err;
	bool is_inside; /* called from within the verb */
	enum key_kind kind;
	char id[64], app[64], device[64], secret[128];
	struct limiter_rule rate;
	uint32_t rpm;
	const struct conf_app *conf_app;
} got;

static struct conf_app apps[] = {{.id = "demo"}};
static struct conf_key conf_keys[] = {
    {.kind = "client",
	.name = "",
	.app = "demo",
	.secret = CONF_SECRET,
	.device_id = "",
	.rate = {.limit = 60, .window_ms = 1000}},
    {.kind = "admin", .name = "", .app = "", .secret = "", .device_id = ""},
};

static int
setup(void **state)
{
	world_init(&w);
	w.conf.apps.v = apps;
	w.conf.apps.n = ARRAY_LEN(apps);
	w.conf.keys.v = conf_keys;
	w.conf.keys.n = ARRAY_LEN(conf_keys);
	w.conf.auth.cache_size = 16;
	world_start(&w);
	shm = shm_create(2);
	assert_non_null(shm);
	keys = keys_new(w.loop, &w.conf, shm, w.store);
	other = keys_new(w.loop, &w.conf, shm, w.store);
	return 0;
}

static int
teardown(void **state)
{
	keys_free(&keys);
	keys_free(&other);
	world_fini(&w);
	shm_free(&shm);
	return 0;
}

static void
on_principal(void *arg, int err, const struct principal *p)
{
	got.err = err;
	if (p != NULL) {
		got.kind = p->kind;
		snprintf(got.id, sizeof(got.id), "%s", p->key_id);
		snprintf(got.app, sizeof(got.app), "%s", p->app_id != NULL ? p->app_id : "-");
		snprintf(got.device, sizeof(got.device), "%s",
		    p->device_id != NULL ? p->device_id : "-");
		got.rate = p->rate;
		got.rpm = p->rpm;
		got.conf_app = p->app;
	}
	world_came(&w);
}

static int
ask(struct keys *whose, const char *secret)
{
	memset(&got, 0, sizeof(got));
	world_expect(&w);
	keys_check(whose, str_of(secret), on_principal, NULL);
	got.is_inside = w.pending == 0;
	world_wait(&w);
	return got.err;
}

static void
on_created(void *arg, int err, const struct store_key *key, const char *secret)
{
	got.err = err;
	if (err == 0) {
		snprintf(got.id, sizeof(got.id), "%s", key->id);
		snprintf(got.secret, sizeof(got.secret), "%s", secret);
	}
	world_came(&w);
}

static void
on_done(void *arg, int err)
{
	got.err = err;
	world_came(&w);
}

static void
create(const struct keys_create *what, char secret[128], char id[64])
{
	memset(&got, 0, sizeof(got));
	world_expect(&w);
	keys_create(keys, what, on_created, NULL);
	world_wait(&w);
	assert_int_equal(got.err, 0);
	strcpy(secret, got.secret);
	strcpy(id, got.id);
}

static int
revoke_key(const char *id)
{
	world_expect(&w);
	keys_revoke(keys, id, on_done, NULL);
	world_wait(&w);
	return got.err;
}

static int changes; /* that were told */

static void
on_change(void *arg)
{
	changes++;
}

static void
configured_keys_need_no_store(void **state)
{
	assert_int_equal(ask(keys, CONF_SECRET), 0);
	assert_true(got.is_inside);
	assert_int_equal(got.kind, KEY_CLIENT);
	assert_string_equal(got.app, "demo");
	assert_string_equal(got.device, "-");
	assert_int_equal(got.rate.limit, 60);
	assert_int_equal(got.rate.window_ms, 1000);
	assert_ptr_equal(got.conf_app, &apps[0]);
	assert_int_equal(strncmp(got.id, "key_conf_", 9), 0);
}

static void
what_is_no_key_is_refused(void **state)
{
	static const char *const bad[] = {"", "pc_", "pc_short", "xx_0123456789012345678901234567",
	    "ps_no_such_key_01234567890123456789", CONF_SECRET "x"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(ask(keys, bad[i]), E_UNAUTHORIZED);
	/* The second time without the store. */
	assert_int_equal(ask(keys, bad[4]), E_UNAUTHORIZED);
	assert_true(got.is_inside);
}

static void
stored_keys_are_found_and_cached(void **state)
{
	char secret[128], id[64];

	create(&(struct keys_create){.kind = KEY_SERVER,
		   .app_id = "demo",
		   .limits_json = "{\"limit\":5,\"window_ms\":2000,\"rpm\":7,\"tpm\":\"x\"}"},
	    secret, id);
	assert_int_equal(strncmp(secret, "ps_", 3), 0);
	assert_int_equal(strlen(secret), KEY_SECRET_LEN);
	assert_int_equal(ask(keys, secret), 0);
	assert_false(got.is_inside);
	assert_string_equal(got.id, id);
	assert_int_equal(got.kind, KEY_SERVER);
	assert_int_equal(got.rate.limit, 5);
	assert_int_equal(got.rate.window_ms, 2000);
	assert_int_equal(got.rpm, 7);
	assert_int_equal(ask(keys, secret), 0);
	assert_true(got.is_inside);
	create(&(struct keys_create){.kind = KEY_CLIENT, .app_id = "gone"}, secret, id);
	assert_int_equal(ask(keys, secret), E_UNAUTHORIZED); /* no such app is configured */
}

static void
revocation_is_seen_by_others_at_once(void **state)
{
	char secret[128], id[64];

	create(&(struct keys_create){.kind = KEY_CLIENT, .app_id = "demo", .device_id = "d"},
	    secret, id);
	assert_int_equal(ask(other, secret), 0);
	assert_string_equal(got.device, "d");
	assert_int_equal(ask(other, secret), 0);
	assert_true(got.is_inside);
	assert_int_equal(revoke_key(id), 0);
	assert_int_equal(ask(other, secret), E_UNAUTHORIZED);
	assert_int_equal(ask(keys, secret), E_UNAUTHORIZED);
	assert_int_equal(revoke_key("key_none"), E_NOT_FOUND);
}

static void
revocation_from_outside_is_seen_within_a_second(void **state)
{
	struct store *direct = store_new_direct(&w.conf);
	char secret[128], id[64];
	uint64_t since_ms;

	create(&(struct keys_create){.kind = KEY_CLIENT, .app_id = "demo"}, secret, id);
	assert_int_equal(ask(keys, secret), 0);
	world_expect(&w);
	store_key_revoke(direct, id, clock_wall_ms(), on_done, NULL);
	assert_int_equal(got.err, 0);
	store_free(&direct);
	for (since_ms = clock_mono_ms(); ask(keys, secret) == 0;) {
		assert_true(clock_mono_ms() < since_ms + 1000);
		world_turn(&w);
	}
	assert_int_equal(got.err, E_UNAUTHORIZED);
}

static void
a_new_key_is_known_though_it_was_asked_for_before(void **state)
{
	char secret[KEY_SECRET_LEN + 1];
	struct store *direct = store_new_direct(&w.conf);
	struct store_key key = {.id = "key_a", .kind = "client", .app_id = "demo", .created_at = 1};
	uint64_t since_ms;

	key_secret_new(KEY_CLIENT, secret);
	crypto_sha256(str_of(secret), key.hash);
	assert_int_equal(ask(keys, secret), E_UNAUTHORIZED);
	world_expect(&w);
	store_key_create(direct, &key, on_done, NULL);
	assert_int_equal(got.err, 0);
	store_free(&direct);
	for (since_ms = clock_mono_ms(); ask(keys, secret) != 0;) {
		assert_true(clock_mono_ms() < since_ms + 1500);
		world_turn(&w);
	}
}

/* Apps mint one for each device: all that is known must not be asked for again each time. */
static void
a_new_key_changes_nothing_for_others(void **state)
{
	char secret[128], new_secret[128], id[64];
	uint64_t since_ms;

	create(&(struct keys_create){.kind = KEY_CLIENT, .app_id = "demo"}, secret, id);
	assert_int_equal(ask(keys, secret), 0);
	assert_int_equal(ask(other, secret), 0);
	keys_on_change(keys, on_change, NULL);
	keys_on_change(other, on_change, NULL);
	changes = 0;
	create(&(struct keys_create){.kind = KEY_CLIENT, .app_id = "demo"}, new_secret, id);
	for (since_ms = clock_mono_ms(); clock_mono_ms() < since_ms + 700;) {
		assert_int_equal(ask(keys, secret), 0);
		assert_true(got.is_inside);
		assert_int_equal(ask(other, secret), 0);
		assert_true(got.is_inside);
		world_turn(&w);
	}
	assert_int_equal(ask(other, new_secret), 0);
	assert_int_equal(changes, 0);
	assert_int_equal(revoke_key(id), 0);
	assert_int_equal(ask(other, new_secret), E_UNAUTHORIZED);
	assert_int_equal(ask(keys, new_secret), E_UNAUTHORIZED);
	assert_int_equal(changes, 2);
}

static void
expired_keys_are_no_keys(void **state)
{
	char secret[128], id[64];
	int64_t end, life_ms = 50;
	int rc;

	/* Long enough to be asked for in time, on any machine. */
	do {
		life_ms *= 2;
		end = clock_wall_ms() + life_ms;
		create(
		    &(struct keys_create){.kind = KEY_CLIENT, .app_id = "demo", .expires_at = end},
		    secret, id);
		rc = ask(keys, secret);
	} while (clock_wall_ms() >= end && life_ms < 10000);
	assert_int_equal(rc, 0);
	while (clock_wall_ms() < end)
		assert_int_equal(ask(keys, CONF_SECRET), 0);
	assert_int_equal(ask(keys, secret), E_UNAUTHORIZED);
	assert_int_equal(ask(other, secret), E_UNAUTHORIZED);
}

static void
the_cache_is_bounded(void **state)
{
	char secrets[20][128], id[64], guess[64];

	for (int i = 0; i < 20; i++)
		create(&(struct keys_create){.kind = KEY_CLIENT, .app_id = "demo"}, secrets[i], id);
	for (int i = 0; i < 20; i++)
		assert_int_equal(ask(keys, secrets[i]), 0);
	/* Guesses do not push keys out. */
	for (int i = 0; i < 2000; i++) {
		snprintf(guess, sizeof(guess), "ps_guess_0123456789012345678901_%d", i);
		assert_int_equal(ask(keys, guess), E_UNAUTHORIZED);
	}
	assert_int_equal(ask(keys, secrets[19]), 0);
	assert_int_equal(ask(keys, secrets[0]), 0);
	assert_false(got.is_inside); /* 16 fit: the oldest went */
	assert_int_equal(ask(keys, secrets[0]), 0);
	assert_true(got.is_inside);
}

static void
many_who_ask_at_once_are_all_answered(void **state)
{
	char secret[128], id[64];

	create(&(struct keys_create){.kind = KEY_ADMIN}, secret, id);
	for (int i = 0; i < 10; i++) {
		world_expect(&w);
		keys_check(keys, str_of(secret), on_principal, NULL);
		if (i == 5) /* meanwhile something changes */
			atomic_fetch_add(shm_word(shm, SHM_WORD_KEYS_GENERATION), 1);
	}
	assert_int_equal(w.pending, 10);
	world_wait(&w);
	assert_int_equal(got.err, 0);
	assert_int_equal(got.kind, KEY_ADMIN);
	assert_string_equal(got.app, "-");
	/* One that is asked for when all ends is simply forgotten. */
	keys_check(other, str_of(secret), on_principal, NULL);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(configured_keys_need_no_store),
	    T(what_is_no_key_is_refused),
	    T(stored_keys_are_found_and_cached),
	    T(revocation_is_seen_by_others_at_once),
	    T(revocation_from_outside_is_seen_within_a_second),
	    T(a_new_key_is_known_though_it_was_asked_for_before),
	    T(a_new_key_changes_nothing_for_others),
	    T(expired_keys_are_no_keys),
	    T(the_cache_is_bounded),
	    T(many_who_ask_at_once_are_all_answered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
