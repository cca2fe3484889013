/*
 * webhooks - the cycle: look, claim, and again when something has ended, was committed here, or
 * becomes due; see webhook.h.
 *
 *   IDLE --timer, wake, results--> LOOK --nothing may be claimed--> IDLE
 *                                   |--> CLAIM --> (targets send) --> IDLE
 *                                         ^   |
 *                                         +---+ of the next endpoints, while there is room
 */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/webhook/webhook_impl.h"

void
message_free(struct message *m)
{
	struct message *next;

	check(!list_linked(&m->node));
	while ((next = list_first(&m->behind, struct message, node)) != NULL) {
		list_del(&next->node);
		message_free(next);
	}
	free(m->id);
	free(m->event);
	free(m->body);
	free(m->app_id);
	free(m->response);
	free(m);
}

/* ---- when ---- */

void
webhooks_look_in(struct webhooks *w, uint64_t delay_ms)
{
	uint64_t now_ms = loop_now_ms(w->loop), since_ms = now_ms - w->looked_ms;

	if (!w->is_running || w->is_draining)
		return;
	if (w->is_looking) {
		w->must_look_again = w->must_look_again || delay_ms == 0;
		return;
	}
	if (since_ms < LOOK_GAP_MS && delay_ms < LOOK_GAP_MS - since_ms)
		delay_ms = LOOK_GAP_MS - since_ms;
	if (!loop_timer_is_set(&w->look) || w->look.due_ms > now_ms + delay_ms)
		loop_timer_set(w->loop, &w->look, delay_ms);
}

static void
calm_all(struct webhooks *w)
{
	struct str key;
	void *value;

	for (size_t cursor = 0; strmap_next(w->targets, &cursor, &key, &value);)
		((struct target *)value)->quiet_until_ms = 0;
}

void
webhooks_wake(struct webhooks *w)
{
	calm_all(w);
	webhooks_look_in(w, 0);
}

static void
on_wake(void *arg, const struct backplane_call *call)
{
	(void)call;
	webhooks_wake(arg);
}

/* There is more than this worker takes: the others need not wait for their polls. */
void
webhooks_tell_others(struct webhooks *w)
{
	uint64_t now_ms = loop_now_ms(w->loop);

	if (now_ms - w->told_others_ms < QUIET_MS)
		return;
	w->told_others_ms = now_ms;
	backplane_broadcast(w->backplane, BACKPLANE_WEBHOOK_WAKE, STR_NONE, NULL, NULL);
}

/* ---- the cycle ---- */

void
webhooks_end_cycle(struct webhooks *w)
{
	bool is_at_once = w->must_look_again || w->after != NULL;

	w->is_looking = w->must_look_again = false;
	w->wanted_count = w->claim_from = w->claim_to = 0;
	webhooks_look_in(w, is_at_once ? 0 : w->next_ms);
}

/* How long until something of it may be claimed; 0: now. */
static uint64_t
wait_of(const struct target *t, const struct store_webhook_endpoint *e, uint64_t now_ms)
{
	int64_t wait_ms = e->due_in_ms;

	if (e->probe_at != 0 && e->probe_in_ms > wait_ms)
		wait_ms = e->probe_in_ms;
	if (t->quiet_until_ms > now_ms && (int64_t)(t->quiet_until_ms - now_ms) > wait_ms)
		wait_ms = (int64_t)(t->quiet_until_ms - now_ms);
	return wait_ms > 0 ? (uint64_t)wait_ms : 0;
}

static void
consider(struct webhooks *w, const struct store_webhook_endpoint *e, uint64_t now_ms)
{
	struct target *t = target_of(w, e);

	t->seen_ms = now_ms;
	t->is_open = e->probe_at != 0;
	t->is_disabled = e->disabled_at != 0;
	if (e->disabled_at != 0 || !t->is_usable)
		return;
	uint64_t wait_ms = wait_of(t, e, now_ms);

	if (wait_ms > 0) {
		if (wait_ms < w->next_ms)
			w->next_ms = wait_ms;
	} else if (target_room(t) > 0) {
		w->wanted[w->wanted_count++] = t;
	} else {
		webhooks_tell_others(w); /* results will lead here again */
	}
}

/* How late is what is due, of endpoints that may be asked? */
static void
note_lateness(const struct store_webhook_endpoint *list, size_t count)
{
	int64_t late_ms = 0;

	for (size_t i = 0; i < count; i++)
		if (list[i].probe_at == 0 && list[i].disabled_at == 0 &&
		    -list[i].due_in_ms > late_ms)
			late_ms = -list[i].due_in_ms;
	metric_gauge_set(METRIC_WEBHOOKS_LATE, 0, 0, late_ms / 1000);
}

/* Where its turn begins. */
static size_t
first_of(const struct webhooks *w, const struct store_webhook_endpoint *list, size_t count)
{
	size_t i = 0;

	while (w->first != NULL && i < count && strcmp(list[i].id, w->first) < 0)
		i++;
	return i;
}

static void
on_looked(
    void *arg, int err, const struct store_webhook_endpoint *list, size_t count, bool has_more)
{
	struct webhooks *w = arg;
	uint64_t now_ms = loop_now_ms(w->loop);
	size_t first = first_of(w, list, count);

	(void)has_more;
	if (w->after == NULL) /* what pages before had stays */
		w->next_ms = w->conf->poll_ms;
	if (w->after == NULL && err == 0)
		note_lateness(list, count);
	free(w->after);
	w->after = NULL;
	for (size_t i = 0; i < count && !w->is_draining; i++)
		consider(w, &list[(first + i) % count], now_ms);
	if (count == LOOK_ENDPOINTS)
		w->after = xstrdup(list[count - 1].id);
	if (w->wanted_count > 0)
		claim_wanted(w);
	else
		webhooks_end_cycle(w);
}

static void
on_known(void *arg, int err)
{
	struct webhooks *w = arg;

	w->is_making_known = false;
	w->is_known = err == 0;
	if (err != 0)
		log_warn("webhook endpoints not recorded reason=%s", err_info(err)->code);
}

/* What is written for those of the configuration counts on their rows. */
static void
make_known(struct webhooks *w)
{
	size_t count = w->conf->endpoints.n;

	if (w->is_known || w->is_making_known || w->is_draining)
		return;
	w->is_making_known = true;
	struct store_webhook_endpoint *endpoints = xcalloc(count + 1, sizeof(*endpoints));
	struct arena arena = ARENA_INIT;

	for (size_t i = 0; i < count; i++)
		endpoint_of_conf(&w->conf->endpoints.v[i], &arena, &endpoints[i]);
	store_webhook_add(w->store, NULL, 0, endpoints, count, on_known, w);
	arena_fini(&arena);
	free(endpoints);
}

static void
on_look(struct loop_timer *timer)
{
	struct webhooks *w = container_of(timer, struct webhooks, look);

	w->is_looking = true;
	w->looked_ms = loop_now_ms(w->loop);
	make_known(w);
	if (w->after == NULL)
		targets_forget_idle(w);
	store_webhook_look(w->store, w->after, LOOK_ENDPOINTS, on_looked, w);
}

/* ---- events of the configuration's endpoints ---- */

static const char *
format_body(const struct webhook_event *e, int64_t now, struct arena *arena)
{
	char at[CLOCK_RFC3339_LEN + 1];

	clock_format(now, at);
	return arena_printf(arena, "{\"type\":\"%s\",\"timestamp\":\"%s\",\"data\":%s}", e->event,
	    at, e->data_json);
}

bool
webhooks_want(const struct conf_webhooks *conf, const char *app_id, const char *event)
{
	for (size_t i = 0; i < conf->endpoints.n; i++)
		if (endpoint_wants(&conf->endpoints.v[i], app_id, event))
			return true;
	return false;
}

size_t
webhooks_of_event(const struct conf_webhooks *conf, const struct webhook_event *e,
    struct arena *arena, struct store_webhook *rows, struct store_webhook_endpoint *endpoints)
{
	int64_t now = clock_wall_ms();
	const char *body = NULL;
	size_t count = 0;

	for (size_t i = 0; i < conf->endpoints.n; i++) {
		struct id id;

		if (!endpoint_wants(&conf->endpoints.v[i], e->app_id, e->event))
			continue;
		if (body == NULL)
			body = format_body(e, now, arena);
		id = id_new("wh");
		endpoint_of_conf(&conf->endpoints.v[i], arena, &endpoints[count]);
		rows[count] = (struct store_webhook){
		    .id = arena_strdup(arena, id_str(&id)),
		    .endpoint_id = endpoints[count].id,
		    .app_id = e->app_id,
		    .order_key = e->order_key,
		    .event = e->event,
		    .body = body,
		    .created_at = now,
		};
		count++;
	}
	return count;
}

/* ---- life ---- */

struct webhooks *
webhooks_new(struct loop *loop, struct client *client, const struct conf *conf, struct store *store,
    struct backplane *backplane, struct shm *shm)
{
	struct webhooks *w = xcalloc(1, sizeof(*w));

	w->loop = loop;
	w->client = client;
	w->conf = &conf->webhooks;
	w->store = store;
	w->backplane = backplane;
	w->shm = shm;
	w->workers = shm_workers(shm);
	owner_format(backplane_self(backplane), w->owner);
	w->targets = strmap_new();
	w->hosts = strmap_new();
	w->wanted = xcalloc(LOOK_ENDPOINTS, sizeof(struct target *));
	w->look.on_fire = on_look;
	list_init(&w->results);
	list_init(&w->settling);
	orphans_start(w);
	return w;
}

void
webhooks_start(struct webhooks *w)
{
	w->is_running = true;
	backplane_serve(w->backplane, BACKPLANE_WEBHOOK_WAKE, on_wake, w);
	w->is_known = w->conf->endpoints.n == 0;
	upkeep_start(w);
	webhooks_look_in(w, 0);
}

void
webhooks_drain(struct webhooks *w)
{
	struct str key;
	void *value;

	w->is_draining = true;
	loop_timer_stop(w->loop, &w->look);
	upkeep_stop(w);
	for (size_t cursor = 0; strmap_next(w->targets, &cursor, &key, &value);)
		target_give_back(value);
}

bool
webhooks_are_idle(const struct webhooks *w)
{
	return w->held == 0 && !w->is_looking && !w->is_settling && !w->is_keeping &&
	       !w->is_making_known;
}

void
webhooks_free(struct webhooks **ref)
{
	struct webhooks *w = *ref;
	struct str key;
	void *value;

	if (w == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(w->loop, &w->look);
	upkeep_stop(w);
	orphans_stop(w);
	settle_stop(w);
	for (size_t cursor = 0; strmap_next(w->targets, &cursor, &key, &value);)
		target_free(value);
	for (size_t cursor = 0; strmap_next(w->hosts, &cursor, &key, &value);)
		host_free(value);
	strmap_free(&w->targets);
	strmap_free(&w->hosts);
	free(w->wanted);
	free(w->first);
	free(w->after);
	free(w);
}
