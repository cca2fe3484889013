/*
 * pg_conn - one connection to PostgreSQL on the loop: opened, written to, read from, found
 * broken.
 *
 * PQconnectPoll() may close its descriptor and open another: the watch is stopped before
 * each step and started after it.
 */
#include "worker/store/pg_conn.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/check.h"
#include "common/log.h"

/* ---- broken ---- */

static void
on_post(struct loop_post *post)
{
	struct pg_conn *c = container_of(post, struct pg_conn, post);

	if (c->is_told)
		return;
	c->is_told = true;
	c->user->on_broken(c);
}

/* One line, whatever libpq has written. */
static void
keep_reason(struct pg_conn *c, const char *text)
{
	size_t len = 0;

	for (; *text != '\0' && len + 1 < sizeof(c->reason); text++) {
		bool is_space = *text == '\n' || *text == '\t' || *text == ' ';

		if (is_space && (len == 0 || c->reason[len - 1] == ' '))
			continue;
		c->reason[len++] = is_space ? ' ' : *text;
	}
	while (len > 0 && c->reason[len - 1] == ' ')
		len--;
	c->reason[len] = '\0';
}

/* libpq closes the descriptor itself when it finds it broken. */
static void
stop_watch(struct pg_conn *c)
{
	if (c->watch.is_active && PQsocket(c->pq) != c->watch.fd)
		loop_watch_forget(c->loop, &c->watch);
	else
		loop_watch_stop(c->loop, &c->watch);
}

void
pg_conn_break(struct pg_conn *c, const char *reason)
{
	if (c->is_broken)
		return;
	c->is_broken = true;
	keep_reason(c, reason);
	stop_watch(c);
	loop_timer_stop(c->loop, &c->timer);
	loop_post(c->loop, &c->post);
}

static void
break_by_libpq(struct pg_conn *c)
{
	pg_conn_break(c, PQerrorMessage(c->pq));
}

/* ---- sending ---- */

static void
add_item(struct pg_conn *c, struct pg_item item)
{
	buf_add(&c->items, &item, sizeof(item));
}

static struct pg_item
first_item(const struct pg_conn *c)
{
	struct pg_item item;

	memcpy(&item, c->items.data + c->items_taken, sizeof(item));
	return item;
}

static bool
has_items(const struct pg_conn *c)
{
	return c->items_taken < c->items.len;
}

static void
take_item(struct pg_conn *c)
{
	c->items_taken += sizeof(struct pg_item);
	if (has_items(c))
		return;
	buf_clear(&c->items);
	c->items_taken = 0;
}

static void
flush(struct pg_conn *c)
{
	int r = PQflush(c->pq);

	if (r < 0)
		break_by_libpq(c);
	else
		loop_watch_change(c->loop, &c->watch, r == 0 ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

static bool
sent(struct pg_conn *c, struct pg_item item, int ok)
{
	if (ok)
		add_item(c, item);
	else
		break_by_libpq(c);
	return ok;
}

bool
pg_conn_prepare(struct pg_conn *c, struct pg_item item, const char *name, const char *sql)
{
	return !c->is_broken && sent(c, item, PQsendPrepare(c->pq, name, sql, 0, NULL));
}

bool
pg_conn_run(struct pg_conn *c, struct pg_item item, const char *name, int count,
    const char *const *values, const int *lengths, const int *formats)
{
	return !c->is_broken &&
	       sent(c, item, PQsendQueryPrepared(c->pq, name, count, values, lengths, formats, 0));
}

bool
pg_conn_exec(struct pg_conn *c, struct pg_item item, const char *sql)
{
	return !c->is_broken &&
	       sent(c, item, PQsendQueryParams(c->pq, sql, 0, NULL, NULL, NULL, NULL, 0));
}

/* number: is it the end of a batch of the user's? */
static bool
sync_as(struct pg_conn *c, uint8_t number)
{
	if (c->is_broken || !sent(c, (struct pg_item){PG_ITEM_SYNC, number}, PQpipelineSync(c->pq)))
		return false;
	flush(c);
	return !c->is_broken;
}

bool
pg_conn_sync(struct pg_conn *c)
{
	return sync_as(c, 1);
}

/* ---- results ---- */

static void
opened(struct pg_conn *c)
{
	c->is_open = true;
	loop_timer_stop(c->loop, &c->timer);
	c->user->on_open(c);
}

static void
take_result(struct pg_conn *c, struct pg_item item, const PGresult *res)
{
	bool is_error = PQresultStatus(res) == PGRES_FATAL_ERROR;

	if (item.kind < PG_ITEM_OWN || item.kind == PG_ITEM_SYNC)
		c->user->on_result(c, item, res);
	else if (is_error)
		pg_conn_break(c, PQresultErrorMessage(res));
}

static void
end_item(struct pg_conn *c, struct pg_item item)
{
	take_item(c);
	switch (item.kind) {
	case PG_ITEM_SYNC:
		if (item.number == 1)
			c->user->on_batch_end(c);
		break;
	case PG_ITEM_SETUP:
		opened(c);
		break;
	case PG_ITEM_CHECK:
		loop_timer_stop(c->loop, &c->timer);
		c->user->on_checked(c);
		break;
	default:
		c->user->on_item_end(c, item);
	}
}

static void
read_results(struct pg_conn *c)
{
	while (!c->is_broken && has_items(c) && !PQisBusy(c->pq)) {
		struct pg_item item = first_item(c);
		PGresult *res = PQgetResult(c->pq);

		if (res != NULL && PQresultStatus(res) != PGRES_PIPELINE_SYNC) {
			take_result(c, item, res);
			c->has_result = true;
		} else if (item.kind == PG_ITEM_SYNC ? res != NULL : c->has_result) {
			c->has_result = false;
			end_item(c, item);
		} else if (PQstatus(c->pq) == CONNECTION_BAD) {
			break_by_libpq(c);
		} else if (item.kind != PG_ITEM_SYNC || !c->has_result) {
			pg_conn_break(c, "results out of order");
		} else {
			c->has_result = false; /* the end of a failed commit's error */
		}
		PQclear(res);
	}
}

static void
work(struct pg_conn *c, uint32_t events)
{
	if ((events & ~(uint32_t)EPOLLOUT) != 0 && !PQconsumeInput(c->pq)) {
		/* What it said last explains it. */
		read_results(c);
		if (!c->is_broken)
			break_by_libpq(c);
		return;
	}
	read_results(c);
	if (!c->is_broken && PQstatus(c->pq) == CONNECTION_BAD)
		break_by_libpq(c);
	if (!c->is_broken)
		flush(c);
}

/* ---- opening ---- */

static void
set_up(struct pg_conn *c)
{
	char sql[512];

	PQsetnonblocking(c->pq, 1);
	if (PQenterPipelineMode(c->pq) != 1) {
		break_by_libpq(c);
		return;
	}
	/* Who was cut off in a transaction must not keep its locks. */
	snprintf(sql, sizeof(sql),
	    "SELECT set_config('statement_timeout', '%llu', false),"
	    " set_config('idle_in_transaction_session_timeout', '30000', false),"
	    " set_config('default_transaction_isolation', 'read committed', false),"
	    " set_config('bytea_output', 'hex', false)",
	    (unsigned long long)c->conf.statement_timeout_ms);
	if (pg_conn_exec(c, (struct pg_item){PG_ITEM_SETUP, 0}, sql))
		sync_as(c, 0);
}

static void
connect_step(struct pg_conn *c, PostgresPollingStatusType next)
{
	switch (next) {
	case PGRES_POLLING_READING:
		loop_watch_start(c->loop, &c->watch, PQsocket(c->pq), EPOLLIN);
		break;
	case PGRES_POLLING_WRITING:
		loop_watch_start(c->loop, &c->watch, PQsocket(c->pq), EPOLLOUT);
		break;
	case PGRES_POLLING_OK:
		loop_watch_start(c->loop, &c->watch, PQsocket(c->pq), EPOLLIN);
		set_up(c);
		break;
	default:
		break_by_libpq(c);
	}
}

static bool
is_connecting(const struct pg_conn *c)
{
	return !c->is_open && !has_items(c);
}

static void
on_ready(struct loop_watch *watch, uint32_t events)
{
	struct pg_conn *c = container_of(watch, struct pg_conn, watch);

	if (!is_connecting(c)) {
		work(c, events);
		return;
	}
	loop_watch_stop(c->loop, &c->watch);
	connect_step(c, PQconnectPoll(c->pq));
}

static void
on_notice(void *arg, const PGresult *res)
{
	(void)arg;
	log_debug("store notice code=%s", PQresultErrorField(res, PG_DIAG_SQLSTATE));
}

static void
start_connect(struct pg_conn *c)
{
	c->pq = PQconnectStartParams(
	    (const char *const *)c->url.keywords, (const char *const *)c->url.values, 0);
	check(c->pq != NULL);
	PQsetNoticeReceiver(c->pq, on_notice, NULL);
	if (PQstatus(c->pq) == CONNECTION_BAD)
		break_by_libpq(c);
	else
		connect_step(c, PGRES_POLLING_WRITING);
}

static void resolve_next(struct pg_conn *c);

static void
on_resolved(void *arg, const struct netaddr *addrs, size_t count, const char *error)
{
	struct pg_conn *c = arg;
	struct buf list = BUF_INIT;
	char text[INET6_ADDRSTRLEN + 16];

	(void)error;
	c->resolve = NULL;
	for (size_t i = 0; i < count; i++)
		if (getnameinfo(&addrs[i].sa, addrs[i].len, text, sizeof(text), NULL, 0,
			NI_NUMERICHOST) == 0)
			buf_printf(&list, "%s%s", list.len > 0 ? "," : "", text);
	if (list.len > 0)
		c->addresses[c->resolving] = buf_take(&list, NULL);
	buf_fini(&list);
	c->resolving++;
	if (!c->is_broken)
		resolve_next(c);
}

/* One after another; without any name there is nothing to set. */
static void
resolve_next(struct pg_conn *c)
{
	while (c->resolving < c->url.host_count && !pg_url_is_name(c->url.hosts[c->resolving]))
		c->resolving++;
	if (c->resolving < c->url.host_count)
		c->resolve = resolve_start(c->loop, c->url.hosts[c->resolving], 0, on_resolved, c);
	else if (pg_url_set_addresses(&c->url, c->addresses))
		start_connect(c);
	else
		pg_conn_break(c, "the host's name was not found");
}

static void
on_timer(struct loop_timer *timer)
{
	struct pg_conn *c = container_of(timer, struct pg_conn, timer);

	pg_conn_break(c, c->is_open ? "no sign of life" : "not connected in time");
}

static void
begin(struct pg_conn *c)
{
	if (!pg_url_parse(c->conf.url, &c->url))
		pg_conn_break(c, "the address is not understood");
	else if (c->url.has_addresses)
		start_connect(c);
	else
		resolve_next(c);
}

void
pg_conn_check(struct pg_conn *c)
{
	check(c->is_open && !has_items(c));
	loop_timer_set(c->loop, &c->timer, c->conf.check_timeout_ms);
	if (pg_conn_exec(c, (struct pg_item){PG_ITEM_CHECK, 0}, "SELECT 1"))
		sync_as(c, 0);
}

struct pg_conn *
pg_conn_new(struct loop *loop, const struct pg_conn_conf *conf, const struct pg_conn_user *user,
    void *owner)
{
	struct pg_conn *c = xcalloc(1, sizeof(*c));

	c->user = user;
	c->owner = owner;
	c->loop = loop;
	c->conf = *conf;
	c->watch.on_ready = on_ready;
	c->timer.on_fire = on_timer;
	c->post.run = on_post;
	list_init(&c->runs);
	loop_timer_set(loop, &c->timer, conf->connect_timeout_ms);
	begin(c);
	return c;
}

void
pg_conn_free(struct pg_conn **ref)
{
	struct pg_conn *c = *ref;

	if (c == NULL)
		return;
	*ref = NULL;
	resolve_cancel(&c->resolve);
	stop_watch(c);
	loop_timer_stop(c->loop, &c->timer);
	loop_timer_stop(c->loop, &c->run_timer);
	loop_post_cancel(c->loop, &c->post);
	PQfinish(c->pq);
	for (size_t i = 0; i < PG_HOSTS_MAX; i++)
		free(c->addresses[i]);
	pg_url_fini(&c->url);
	buf_fini(&c->items);
	free(c);
}
