/* turn_world - one global world, made anew for every test. */
#include "t/unit/unit.h"

#include "t/replay/turn_world.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/err.h"

struct world world;

static void
set_conf(struct conf *conf)
{
	static struct conf_model models[] = {{.name = "default"}, {.name = "free"}};

	conf->turns.max_tool_hops = 8;
	conf->turns.total_timeout_ms = 600000;
	conf->turns.retain_events_ms = 300000;
	conf->turns.feed_max_bytes = 256 << 10;
	conf->turns.feed_total_bytes = 64 << 20;
	conf->turns.max_retained = 100;
	conf->turns.max_answer_bytes = 1 << 20;
	conf->turns.disconnect_grace_ms = 5000;
	conf->turns.progress_interval_ms = 1000;
	conf->turns.head_interval_ms = 1000;
	conf->turns.max_listeners = 64;
	conf->turns.max_waiting = 8;
	conf->tools.client_timeout_ms = 60000;
	conf->tools.max_calls = 32;
	conf->tools.max_output_bytes = 256 << 10;
	conf->sessions.history_tokens = 8000;
	conf->drain.timeout_ms = 30000;
	conf->backplane.call_timeout_ms = 1000;
	conf->store.url = "sqlite:var/parley.db";
	conf->models.v = models;
	conf->models.n = 2;
}

void
world_start_worker(unsigned i)
{
	struct worker *w = &world.workers[i];

	store_free(&w->store);
	backplane_free(&w->backplane);
	check(shm_row_claim(world.shm, i, 1, &w->who));
	shm_row_set_state(world.shm, w->who, SHM_READY);
	w->backplane = backplane_new(world.loop, world.shm, w->who);
	w->store = fake_store_front(world.store);
	const struct turns_money money = {
	    .holds = world.holds, .usages = (struct usages *)world.holds};

	w->turns = turns_new(world.loop, &world.conf, world.shm, w->backplane, w->store,
	    world.model, &money, world.knowledge);
}

int
world_setup(void **state)
{
	memset(&world, 0, sizeof(world));
	fake_backplane_reset();
	set_conf(&world.conf);
	world.loop = loop_new();
	world.shm = shm_create(WORLD_WORKERS);
	check(world.shm != NULL);
	world.store = fake_store_new(world.loop);
	world.model = fake_providers_new(world.loop);
	world.holds = fake_holds_new();
	world.knowledge = fake_knowledge_new();
	fake_store_add_live(world.store, WORLD_FORMER_TURN, "sess_00000000000000000000000000",
	    "00000000000000aa.1.1", "old", 7);
	for (unsigned i = 0; i < WORLD_WORKERS; i++)
		world_start_worker(i);
	world.session = id_new("sess");
	fake_store_add_session(world.store, world.session.s, NULL, NULL, NULL);
	return 0;
}

int
world_teardown(void **state)
{
	for (unsigned i = 0; i < WORLD_WORKERS; i++) {
		turns_free(&world.workers[i].turns);
		store_free(&world.workers[i].store);
		backplane_free(&world.workers[i].backplane);
	}
	fake_backplane_reset();
	store_free(&world.store);
	providers_free(&world.model);
	check(fake_loop_timers() == 0);
	loop_free(&world.loop);
	shm_free(&world.shm);
	return 0;
}

/* What it had asked of the record is done or not, its answers find nobody. */
void
world_kill(unsigned i, bool is_told)
{
	struct worker *w = &world.workers[i];

	fake_backplane_kill(w->backplane, false);
	turns_free(&w->turns);
	store_free(&w->store);
	shm_row_reap(world.shm, w->who);
	if (is_told)
		fake_backplane_kill(w->backplane, true);
}

void
world_run(uint64_t ms)
{
	fake_loop_settle();
	if (ms > 0)
		fake_loop_advance(ms);
	fake_loop_settle();
}

/* ---- a request ---- */

void
request_init(struct request *r, const char *text)
{
	memset(r, 0, sizeof(*r));
	r->input = json_string(text);
	r->start.session_id = world.session;
	r->start.app_id = "demo";
	r->start.key_id = "key_test";
	r->start.input = r->input;
}

static void
on_started(void *arg, int err, const struct turn_started *started, const char *message)
{
	struct request *r = arg;

	r->answers++;
	r->err = err;
	assert_int_equal(started == NULL, err != 0);
	if (started != NULL)
		r->started = *started;
	if (message != NULL)
		snprintf(r->message, sizeof(r->message), "%s", message);
}

void
request_send(struct request *r, unsigned worker)
{
	turn_start(world.workers[worker].turns, &r->start, on_started, r);
	assert_int_equal(r->answers, 0); /* never from inside */
	json_decref(r->input);
	json_decref(r->tools);
	r->input = r->tools = NULL;
}

static struct id
begin(struct request *r, unsigned worker)
{
	request_send(r, worker);
	world_run(0);
	assert_int_equal(r->answers, 1);
	assert_int_equal(r->err, 0);
	assert_false(r->started.is_replay);
	return r->started.turn_id;
}

struct id
world_begin(unsigned worker, const char *text)
{
	struct request r;

	request_init(&r, text);
	return begin(&r, worker);
}

struct id
world_begin_with_tools(unsigned worker, const char *text)
{
	struct request r;

	request_init(&r, text);
	r.tools = json_loads("[{\"type\":\"function\",\"function\":{\"name\":\"weather\"}},"
			     "{\"type\":\"function\",\"function\":{\"name\":\"clock\"}}]",
	    0, NULL);
	r.start.tools = r.tools;
	return begin(&r, worker);
}

/* ---- a client ---- */

static bool
on_event(void *arg, const struct turn_event *event)
{
	struct client *c = arg;

	assert_int_equal(c->ends, 0);
	assert_true(c->count < HEARD_MAX);
	if (c->refuse_from != 0 && c->count + 1 >= c->refuse_from) {
		c->listener = 0;
		return false;
	}
	c->heard[c->count].type = event->type;
	c->heard[c->count].seq = event->seq;
	c->heard[c->count].data = json_loadb(event->data.p, event->data.len, 0, NULL);
	assert_non_null(c->heard[c->count].data);
	c->count++;
	return true;
}

static void
on_end(void *arg, int err)
{
	struct client *c = arg;

	c->ends++;
	c->end_err = err;
	c->listener = 0;
}

void
client_attach_as(struct client *c, unsigned worker, const struct id *turn, uint64_t after_seq,
    uint64_t originator)
{
	static const struct turn_listener_handlers handlers = {on_event, on_end};

	memset(c, 0, sizeof(*c));
	c->worker = worker;
	c->listener = turn_attach(
	    world.workers[worker].turns, &world.session, turn, after_seq, originator, &handlers, c);
	assert_int_not_equal(c->listener, 0);
	assert_int_equal(c->count + c->ends, 0); /* never from inside */
}

void
client_attach(struct client *c, unsigned worker, const struct id *turn, uint64_t after_seq)
{
	client_attach_as(c, worker, turn, after_seq, 0);
	world_run(0);
}

void
client_leave(struct client *c, bool is_disconnect)
{
	turn_detach(world.workers[c->worker].turns, c->listener, is_disconnect);
	c->listener = 0;
}

void
client_forget(struct client *c)
{
	for (unsigned i = 0; i < c->count; i++)
		json_decref(c->heard[i].data);
	c->count = 0;
}

void
client_expect(const struct client *c, const char *names)
{
	char heard[8192] = "";
	size_t len = 0;

	for (unsigned i = 0; i < c->count; i++) {
		struct str name = turn_event_name(c->heard[i].type);

		len += (size_t)snprintf(heard + len, sizeof(heard) - len, "%s%.*s",
		    len > 0 ? " " : "", (int)name.len, name.p);
		assert_true(len < sizeof(heard));
	}
	assert_string_equal(heard, names);
}

void
client_expect_text(const struct client *c, const char *text)
{
	char heard[8192] = "";
	size_t len = 0;

	for (unsigned i = 0; i < c->count; i++) {
		if (c->heard[i].type != TURN_TEXT_DELTA)
			continue;
		/* Plain ASCII in these tests: all ways to count are the same. */
		assert_int_equal(
		    json_integer_value(json_object_get(c->heard[i].data, "offset")), len);
		len += (size_t)snprintf(heard + len, sizeof(heard) - len, "%s",
		    json_string_value(json_object_get(c->heard[i].data, "text")));
		assert_true(len < sizeof(heard));
	}
	assert_string_equal(heard, text);
}

const json_t *
client_last(const struct client *c, enum turn_event_type type)
{
	for (unsigned i = c->count; i-- > 0;)
		if (c->heard[i].type == type)
			return c->heard[i].data;
	return NULL;
}

const char *
client_last_text(const struct client *c, enum turn_event_type type, const char *member)
{
	const char *text = json_string_value(json_object_get(client_last(c, type), member));

	assert_non_null(text);
	return text;
}

void
client_expect_seqs(const struct client *c, uint64_t first)
{
	for (unsigned i = 0; i < c->count; i++)
		assert_int_equal(c->heard[i].seq, first + i);
}

/* ---- results and questions ---- */

static void
on_result(void *arg, int err, bool is_same)
{
	struct answer_seen *a = arg;

	a->answers++;
	a->err = err;
	a->is_same = is_same;
}

void
world_give_result(struct answer_seen *a, unsigned worker, const char *call_id,
    const char *output_json, const char *error)
{
	json_t *output =
	    output_json != NULL ? json_loads(output_json, JSON_DECODE_ANY, NULL) : NULL;
	struct turn_tool_result r = {world.session, call_id, output, error};

	memset(a, 0, sizeof(*a));
	turn_tool_result(world.workers[worker].turns, &r, on_result, a);
	json_decref(output);
	assert_int_equal(a->answers, 0);
	world_run(0);
}

static void
on_state(void *arg, int err, json_t *state)
{
	struct answer_seen *a = arg;

	a->answers++;
	a->err = err;
	a->state = json_incref(state);
}

void
world_ask(struct answer_seen *a, unsigned worker, const struct id *turn, uint32_t wait_ms)
{
	memset(a, 0, sizeof(*a));
	turn_get_state(world.workers[worker].turns, &world.session, turn, wait_ms, on_state, a);
	assert_int_equal(a->answers, 0);
	world_run(0);
}

static void
on_done(void *arg, int err)
{
	struct answer_seen *a = arg;

	a->answers++;
	a->err = err;
}

void
world_cancel(struct answer_seen *a, unsigned worker, const struct id *turn)
{
	memset(a, 0, sizeof(*a));
	turn_cancel(world.workers[worker].turns, &world.session, turn, on_done, a);
	assert_int_equal(a->answers, 0);
	world_run(0);
}

const char *
answer_text(const struct answer_seen *a, const char *member)
{
	const char *text = json_string_value(json_object_get(a->state, member));

	assert_non_null(text);
	return text;
}
