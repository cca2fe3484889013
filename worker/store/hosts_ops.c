/*
 * hosts_ops - hosts in the record: which of those that share it live, and what
 * becomes of the turns of those that do not.
 *
 * Times are the database's (now_ms()), never a host's: their clocks may differ by
 * more than a lease. Who decides when these run is leases.c.
 */
#include "worker/store/run.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "worker/store/turn_lost.h"

/* Of "host.row.number", with the host in 16 hex digits. */
#define HOST_OF_TURN "substr(turns.owner, 1, 16)"
#define IS_OVER      "hosts.expires_at <= from_ms(now_ms())"
#define SELECT_HOSTS                                                                               \
	"SELECT id, CASE WHEN " IS_OVER " THEN 1 ELSE 0 END FROM hosts"                            \
	" ORDER BY started_at, id LIMIT 4096"

/* One whose lease was over begins a new life among them: it is the youngest again. */
const struct op op_host_renew = {
    .name = "host_renew",
    .params = "host lease_ms",
    .is_write = true,
    .is_first = true,
    .is_upkeep = true,
    .statements =
	{
	    {.sql = "INSERT INTO hosts (id, started_at, expires_at) VALUES ($host,"
		    " from_ms(now_ms()), from_ms(now_ms() + CAST($lease_ms AS bigint)))"
		    " ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at,"
		    " started_at = CASE WHEN " IS_OVER " THEN excluded.started_at"
		    " ELSE hosts.started_at END"},
	    {.sql = SELECT_HOSTS, .is_answer = true},
	},
};

const struct op op_host_list = {
    .name = "host_list",
    .params = "",
    .statements = {{.sql = SELECT_HOSTS, .is_answer = true}},
};

/*
 * A host without a row may not have got to writing it, or is one of a version before that did not:
 * it is given a lease as long as a turn may be, behind all others in age. Rows that are long over
 * go, unless a turn came late.
 */
#define LOST_OF_HOSTS                                                                              \
	"state = 'live' AND EXISTS"                                                                \
	" (SELECT 1 FROM hosts WHERE hosts.id = " HOST_OF_TURN " AND " IS_OVER ")"
const struct op op_hosts_lose = {
    .name = "hosts_lose",
    .params = "grace_ms now message",
    .groups = {TURN_LOST_PARAMS},
    .is_write = true,
    .is_upkeep = true,
    .statements =
	{
	    {.sql = "INSERT INTO hosts (id, started_at, expires_at)"
		    " SELECT DISTINCT " HOST_OF_TURN
		    ", from_ms(now_ms() + CAST($grace_ms AS bigint)),"
		    " from_ms(now_ms() + CAST($grace_ms AS bigint)) FROM turns"
		    " WHERE state = 'live' AND owner IS NOT NULL AND NOT EXISTS"
		    " (SELECT 1 FROM hosts WHERE hosts.id = " HOST_OF_TURN ")"
		    " ON CONFLICT (id) DO NOTHING"},
	    TURN_LOST_LOCK(LOST_OF_HOSTS),
	    TURN_LOST_HOOKS(LOST_OF_HOSTS),
	    {.sql = "UPDATE turns SET " TURN_LOST " WHERE " LOST_OF_HOSTS, .is_answer = true},
	    {.sql = "DELETE FROM hosts WHERE hosts.expires_at"
		    " <= from_ms(now_ms() - CAST($grace_ms AS bigint)) AND NOT EXISTS"
		    " (SELECT 1 FROM turns WHERE state = 'live' AND " HOST_OF_TURN " = hosts.id)"},
	},
};

static void
decode_hosts(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_hosts *on_hosts = (store_on_hosts *)callback;
	struct store_host *hosts = xcalloc(rows->count + 1, sizeof(*hosts));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (rows->err == 0 && op_rows_next(rows, v))
		hosts[count++] = (struct store_host){op_text(&v[0]), op_int(&v[1]) != 0};
	on_hosts(arg, rows->err, hosts, count);
	free(hosts);
}

void
store_host_renew(
    struct store *store, const char *host, uint64_t lease_ms, store_on_hosts *on_hosts, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_host_renew);
	op_put_text(&call, host);
	op_put_int(&call, (int64_t)lease_ms);
	store_run(store, &call, decode_hosts, (store_callback *)on_hosts, arg);
}

void
store_host_list(struct store *store, store_on_hosts *on_hosts, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_host_list);
	store_run(store, &call, decode_hosts, (store_callback *)on_hosts, arg);
}

void
store_hosts_lose(
    struct store *store, uint64_t grace_ms, int64_t now, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_hosts_lose);
	op_put_int(&call, (int64_t)grace_ms);
	put_lost(store, &call, now);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}
