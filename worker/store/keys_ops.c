/*
 * keys_ops - keys in the record: secrets are not here, only their SHA-256.
 *
 * Whoever changes a key raises the generation "keys" in the same transaction, so
 * that every process that caches them can find out, whoever made the change. A new
 * key changes none, and there may be many of them: one for each device that comes.
 */
#include "worker/store/run.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/crypto.h"
#include "common/err.h"

#define KEY_COLUMNS                                                                                \
	"id, kind, app_id, device_id, name, hash, limits, to_ms(created_at), "                     \
	"to_ms(expires_at), to_ms(revoked_at)"
#define RAISE_GENERATION "UPDATE generations SET value = value + 1 WHERE name = 'keys'"

const struct op op_key_create = {
    .name = "key_create",
    .params = "id kind app_id device_id name hash limits created_at expires_at",
    .is_write = true,
    .statements =
	{
	    {.sql = "SELECT 1 FROM keys WHERE id = $id AND hash = $hash", .expect = OP_DONE_IF_ROW},
	    {.sql = "INSERT INTO keys (id, kind, app_id, device_id, name, hash, limits, created_at,"
		    " expires_at) VALUES ($id, $kind, $app_id, $device_id, $name, $hash, $limits,"
		    " from_ms($created_at), from_ms($expires_at))"},
	},
    .constraints = {{"keys_hash", "keys.hash", E_DUPLICATE}, {"keys_pkey", "keys.id", E_DUPLICATE}},
};

const struct op op_key_by_hash = {
    .name = "key_by_hash",
    .params = "hash",
    .statements = {{.sql = "SELECT " KEY_COLUMNS " FROM keys WHERE hash = $hash",
	.expect = OP_ONE,
	.err = E_NOT_FOUND,
	.is_answer = true}},
};

const struct op op_key_get = {
    .name = "key_get",
    .params = "id",
    .statements = {{.sql = "SELECT " KEY_COLUMNS " FROM keys WHERE id = $id",
	.expect = OP_ONE,
	.err = E_NOT_FOUND,
	.is_answer = true}},
};

const struct op op_key_list = {
    .name = "key_list",
    .params = "app_id after max_rows",
    .is_slow = true,
    .statements = {{.sql = "SELECT " KEY_COLUMNS
			   " FROM keys WHERE (CAST($app_id AS text) IS NULL OR app_id = $app_id)"
			   " AND (CAST($after AS text) IS NULL OR id > $after)"
			   " ORDER BY id LIMIT $max_rows + 1",
	.is_answer = true}},
};

const struct op op_key_change = {
    .name = "key_change",
    .params = "id name limits",
    .is_write = true,
    .statements =
	{
	    {.sql = "UPDATE keys SET name = $name, limits = $limits"
		    " WHERE id = $id AND revoked_at IS NULL",
		.expect = OP_ONE,
		.err = E_NOT_FOUND},
	    {.sql = RAISE_GENERATION},
	},
};

const struct op op_key_revoke = {
    .name = "key_revoke",
    .params = "id now",
    .is_write = true,
    .statements =
	{
	    {.sql = "UPDATE keys SET revoked_at = coalesce(revoked_at, from_ms($now))"
		    " WHERE id = $id",
		.expect = OP_ONE,
		.err = E_NOT_FOUND},
	    {.sql = RAISE_GENERATION},
	},
};

const struct op op_key_generation = {
    .name = "key_generation",
    .params = "",
    .statements = {{.sql = "SELECT value FROM generations WHERE name = 'keys'",
	.expect = OP_ONE,
	.err = E_INTERNAL,
	.is_answer = true}},
};

static void
read_key(const struct op_value *v, struct store_key *ret)
{
	*ret = (struct store_key){
	    .id = op_text(&v[0]),
	    .kind = op_text(&v[1]),
	    .app_id = op_text(&v[2]),
	    .device_id = op_text(&v[3]),
	    .name = op_text(&v[4]),
	    .limits_json = op_text(&v[6]),
	    .created_at = op_int(&v[7]),
	    .expires_at = op_int(&v[8]),
	    .revoked_at = op_int(&v[9]),
	};
	if (v[5].type == OP_BLOB && v[5].bytes.len == sizeof(ret->hash))
		memcpy(ret->hash, v[5].bytes.p, sizeof(ret->hash));
}

void
store_key_create(
    struct store *store, const struct store_key *key, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_key_create);
	op_put_text(&call, key->id);
	op_put_text(&call, key->kind);
	op_put_text(&call, key->app_id);
	op_put_text(&call, key->device_id);
	op_put_text(&call, key->name);
	op_put_blob(&call, key->hash, sizeof(key->hash));
	op_put_text(&call, key->limits_json);
	op_put_int(&call, key->created_at);
	op_put_time(&call, key->expires_at);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

static void
decode_key(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_key *on_key = (store_on_key *)callback;
	struct op_value v[OP_VALUES_MAX];
	struct store_key key;

	if (rows->err != 0 || !op_rows_next(rows, v)) {
		on_key(arg, rows->err != 0 ? rows->err : E_NOT_FOUND, NULL);
		return;
	}
	read_key(v, &key);
	on_key(arg, 0, &key);
}

void
store_key_by_hash(struct store *store, const uint8_t hash[32], store_on_key *on_key, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_key_by_hash);
	op_put_blob(&call, hash, SHA256_LEN);
	store_run(store, &call, decode_key, (store_callback *)on_key, arg);
}

void
store_key_get(struct store *store, const char *id, store_on_key *on_key, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_key_get);
	op_put_text(&call, id);
	store_run(store, &call, decode_key, (store_callback *)on_key, arg);
}

static void
decode_keys(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_keys *on_keys = (store_on_keys *)callback;
	struct store_key *keys = xcalloc(rows->count + 1, sizeof(*keys));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (op_rows_next(rows, v))
		read_key(v, &keys[count++]);
	on_keys(arg, rows->err, keys, count, rows->is_cut);
	free(keys);
}

void
store_key_list(struct store *store, const char *app_id, const char *after, uint32_t limit,
    store_on_keys *on_keys, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_key_list);
	op_put_text(&call, app_id);
	op_put_text(&call, after);
	op_put_int(&call, limit);
	store_run(store, &call, decode_keys, (store_callback *)on_keys, arg);
}

void
store_key_change(struct store *store, const char *id, const char *name, const char *limits_json,
    store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_key_change);
	op_put_text(&call, id);
	op_put_text(&call, name);
	op_put_text(&call, limits_json);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

void
store_key_revoke(
    struct store *store, const char *id, int64_t now, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_key_revoke);
	op_put_text(&call, id);
	op_put_int(&call, now);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

void
store_key_generation(struct store *store, store_on_count *on_generation, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_key_generation);
	store_run(store, &call, store_decode_number, (store_callback *)on_generation, arg);
}
