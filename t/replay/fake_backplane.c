/* fake_backplane - one list of messages on their way, for all workers. */
#include "t/replay/fake_backplane.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"

enum { WORKERS_MAX = 8, WATCHERS_MAX = 8, OWNED_MAX = 4096 };

struct backplane {
	struct loop *loop;
	struct shm *shm;
	struct backplane_addr self;
	bool is_dead;
	struct {
		backplane_handler *handler;
		void *arg;
	} services[BACKPLANE_METHOD_COUNT];
	struct {
		void (*on_gone)(void *arg, struct backplane_addr);
		void *arg;
	} watchers[WATCHERS_MAX];
	unsigned watcher_count;
	struct list calls;   /* struct fake_out_call */
	struct list lookups; /* struct lookup */
	uint64_t call_count;
};

struct out_call {
	struct list node;
	struct backplane *from;
	struct backplane_addr to;
	uint64_t id;
	backplane_on_reply *on_reply;
	void *arg;
	struct loop_timer timer;
	struct loop_post gone;
	int gone_err;
};

struct message {
	struct list node;
	struct backplane_addr from, to;
	enum backplane_method method;
	uint64_t call_id;
	int err;
	struct buf payload;
};

struct lookup {
	struct list node;
	struct backplane *bp;
	struct id id;
	backplane_on_owner *on_owner;
	void *arg;
	struct loop_post post;
};

static struct {
	struct backplane *workers[WORKERS_MAX];
	struct list messages;
	struct loop_post deliver;
	unsigned lose[BACKPLANE_METHOD_COUNT], refuse[BACKPLANE_METHOD_COUNT],
	    sent[BACKPLANE_METHOD_COUNT];
	bool is_held[BACKPLANE_METHOD_COUNT];
	struct {
		struct id id;
		struct backplane *owner;
	} owned[OWNED_MAX];
	unsigned owned_count;
} wire = {.messages = LIST_INIT(wire.messages)};

static bool
equal(struct backplane_addr a, struct backplane_addr b)
{
	return a.host == b.host && a.who.row == b.who.row && a.who.number == b.who.number;
}

static struct backplane *
living(struct backplane_addr addr)
{
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		if (wire.workers[i] != NULL && !wire.workers[i]->is_dead &&
		    equal(wire.workers[i]->self, addr))
			return wire.workers[i];
	return NULL;
}

static struct loop *
any_loop(void)
{
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		if (wire.workers[i] != NULL)
			return wire.workers[i]->loop;
	return NULL;
}

/* ---- the wire ---- */

static void
end_call(struct out_call *c, int err, struct str payload)
{
	backplane_on_reply *on_reply = c->on_reply;
	void *arg = c->arg;

	list_del(&c->node);
	loop_timer_stop(c->from->loop, &c->timer);
	loop_post_cancel(c->from->loop, &c->gone);
	free(c);
	on_reply(arg, err, payload);
}

static void
take_message(struct message *m)
{
	struct backplane *to = living(m->to);
	struct backplane_call call = {m->from, m->call_id, buf_str(&m->payload)};

	if (to == NULL)
		return;
	if (m->method != BACKPLANE_REPLY) {
		if (to->services[m->method].handler != NULL)
			to->services[m->method].handler(to->services[m->method].arg, &call);
		return;
	}
	list_for (node, &to->calls) {
		struct out_call *c = list_entry(node, struct out_call, node);

		if (c->id == m->call_id) {
			end_call(c, m->err, buf_str(&m->payload));
			return;
		}
	}
}

static struct message *
next_message(void)
{
	list_for (node, &wire.messages) {
		struct message *m = list_entry(node, struct message, node);

		if (!wire.is_held[m->method])
			return m;
	}
	return NULL;
}

static void
run_deliver(struct loop_post *post)
{
	struct message *m = next_message();

	(void)post;
	if (m == NULL)
		return;
	list_del(&m->node);
	take_message(m);
	buf_fini(&m->payload);
	free(m);
	if (!list_empty(&wire.messages) && any_loop() != NULL)
		loop_post(any_loop(), &wire.deliver);
}

static void
deliver_soon(void)
{
	wire.deliver.run = run_deliver;
	if (any_loop() != NULL)
		loop_post(any_loop(), &wire.deliver);
}

static int
send_message(struct backplane *bp, struct backplane_addr to, enum backplane_method method,
    uint64_t call_id, int err, struct str payload)
{
	if (bp->is_dead)
		return 0;
	wire.sent[method]++;
	if (living(to) == NULL)
		return E_GONE;
	if (wire.refuse[method] > 0) {
		wire.refuse[method]--;
		return E_BUSY;
	}
	if (wire.lose[method] > 0) {
		wire.lose[method]--;
		return 0;
	}
	struct message *m = xcalloc(1, sizeof(*m));
	m->from = bp->self;
	m->to = to;
	m->method = method;
	m->call_id = call_id;
	m->err = err;
	if (payload.len > 0)
		buf_add_str(&m->payload, payload);
	list_add_tail(&wire.messages, &m->node);
	deliver_soon();
	return 0;
}

/* ---- the test's hand ---- */

void
fake_backplane_lose(enum backplane_method method, unsigned count)
{
	wire.lose[method] = count;
}

void
fake_backplane_refuse(enum backplane_method method, unsigned count)
{
	wire.refuse[method] = count;
}

void
fake_backplane_hold(enum backplane_method method, bool is_held)
{
	wire.is_held[method] = is_held;
	deliver_soon();
}

unsigned
fake_backplane_sent(enum backplane_method method)
{
	return wire.sent[method];
}

void
fake_backplane_forget_owners(void)
{
	wire.owned_count = 0;
}

static void
run_gone(struct loop_post *post)
{
	struct out_call *c = container_of(post, struct out_call, gone);

	end_call(c, c->gone_err, STR_NONE);
}

static void
end_soon(struct out_call *c, int err)
{
	c->gone_err = err;
	c->gone.run = run_gone;
	loop_post(c->from->loop, &c->gone);
}

static void
tell_gone(struct backplane *bp, struct backplane_addr gone)
{
	list_for (node, &bp->calls) {
		struct out_call *c = list_entry(node, struct out_call, node);

		if (equal(c->to, gone))
			end_soon(c, E_GONE);
	}
	for (unsigned w = 0; w < bp->watcher_count; w++)
		bp->watchers[w].on_gone(bp->watchers[w].arg, gone);
}

/* Who asked is dead too: nobody is called back. */
static void
drop_questions(struct backplane *bp)
{
	list_for_safe (node, &bp->calls) {
		struct out_call *c = list_entry(node, struct out_call, node);

		list_del(node);
		loop_timer_stop(bp->loop, &c->timer);
		loop_post_cancel(bp->loop, &c->gone);
		free(c);
	}
	list_for_safe (node, &bp->lookups) {
		struct lookup *l = list_entry(node, struct lookup, node);

		list_del(node);
		loop_post_cancel(bp->loop, &l->post);
		free(l);
	}
}

void
fake_backplane_kill(struct backplane *dead, bool is_told)
{
	dead->is_dead = true;
	drop_questions(dead);
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		if (wire.workers[i] != NULL && !wire.workers[i]->is_dead && is_told)
			tell_gone(wire.workers[i], dead->self);
}

void
fake_backplane_part(struct backplane *a, struct backplane *b)
{
	tell_gone(a, b->self);
	tell_gone(b, a->self);
}

void
fake_backplane_reset(void)
{
	list_for_safe (node, &wire.messages) {
		struct message *m = list_entry(node, struct message, node);

		list_del(node);
		buf_fini(&m->payload);
		free(m);
	}
	memset(wire.lose, 0, sizeof(wire.lose));
	memset(wire.refuse, 0, sizeof(wire.refuse));
	memset(wire.sent, 0, sizeof(wire.sent));
	memset(wire.is_held, 0, sizeof(wire.is_held));
	wire.owned_count = 0;
}

/* ---- backplane.h ---- */

struct backplane *
backplane_new(struct loop *loop, struct shm *shm, struct shm_who me)
{
	struct backplane *bp = xcalloc(1, sizeof(*bp));
	unsigned i = 0;

	bp->loop = loop;
	bp->shm = shm;
	bp->self = (struct backplane_addr){shm_host_id(shm), me};
	list_init(&bp->calls);
	list_init(&bp->lookups);
	while (i < WORKERS_MAX && wire.workers[i] != NULL)
		i++;
	check(i < WORKERS_MAX);
	wire.workers[i] = bp;
	return bp;
}

void
backplane_free(struct backplane **ret)
{
	struct backplane *bp = *ret;

	if (bp == NULL)
		return;
	loop_post_cancel(bp->loop, &wire.deliver);
	drop_questions(bp);
	for (unsigned i = wire.owned_count; i-- > 0;)
		if (wire.owned[i].owner == bp)
			wire.owned[i] = wire.owned[--wire.owned_count];
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		if (wire.workers[i] == bp)
			wire.workers[i] = NULL;
	free(bp);
	*ret = NULL;
	deliver_soon();
}

struct backplane_addr
backplane_self(const struct backplane *bp)
{
	return bp->self;
}

void
backplane_serve(
    struct backplane *bp, enum backplane_method method, backplane_handler *handler, void *arg)
{
	check(bp->services[method].handler == NULL);
	bp->services[method].handler = handler;
	bp->services[method].arg = arg;
}

void
backplane_reply(
    struct backplane *bp, struct backplane_addr to, uint64_t call_id, int err, struct str payload)
{
	if (call_id != 0)
		send_message(bp, to, BACKPLANE_REPLY, call_id, err, payload);
}

static void
on_call_timer(struct loop_timer *timer)
{
	struct out_call *c = container_of(timer, struct out_call, timer);

	end_call(c, E_OWNER_UNAVAILABLE, STR_NONE);
}

void
backplane_send_call(struct backplane *bp, struct backplane_addr to, enum backplane_method method,
    struct str payload, uint32_t timeout_ms, backplane_on_reply *on_reply, void *arg)
{
	struct out_call *c = xcalloc(1, sizeof(*c));

	c->from = bp;
	c->to = to;
	c->id = ++bp->call_count;
	c->on_reply = on_reply;
	c->arg = arg;
	c->timer.on_fire = on_call_timer;
	loop_timer_set(bp->loop, &c->timer, timeout_ms);
	list_add_tail(&bp->calls, &c->node);
	int err = send_message(bp, to, method, c->id, 0, payload);
	if (err != 0)
		end_soon(c, err);
}

int
backplane_cast(struct backplane *bp, struct backplane_addr to, enum backplane_method method,
    struct str payload)
{
	return send_message(bp, to, method, 0, 0, payload);
}

void
backplane_say_gone(struct backplane *bp, struct shm_who dead)
{
	(void)bp; /* one host */
	(void)dead;
}

void
backplane_broadcast(struct backplane *bp, enum backplane_method method, struct str payload,
    backplane_on_missed *on_missed, void *arg)
{
	for (unsigned i = 0; i < WORKERS_MAX; i++) {
		if (wire.workers[i] == NULL || wire.workers[i] == bp)
			continue;
		struct backplane_addr to = wire.workers[i]->self;

		if (send_message(bp, to, method, 0, 0, payload) == E_BUSY && on_missed != NULL)
			on_missed(arg, to);
	}
}

bool
backplane_own(struct backplane *bp, const struct id *id)
{
	if (wire.owned_count == OWNED_MAX)
		return false;
	wire.owned[wire.owned_count].id = *id;
	wire.owned[wire.owned_count++].owner = bp;
	return true;
}

void
backplane_disown(struct backplane *bp, const struct id *id)
{
	for (unsigned i = 0; i < wire.owned_count; i++) {
		if (wire.owned[i].owner != bp || strcmp(wire.owned[i].id.s, id->s) != 0)
			continue;
		wire.owned[i] = wire.owned[--wire.owned_count];
		return;
	}
}

static void
run_lookup(struct loop_post *post)
{
	struct lookup *l = container_of(post, struct lookup, post);
	struct backplane_addr addr = {0};
	int err = E_NOT_FOUND;

	for (unsigned i = 0; i < wire.owned_count; i++) {
		struct backplane *owner = wire.owned[i].owner;

		if (strcmp(wire.owned[i].id.s, l->id.s) != 0 ||
		    !shm_is_alive(owner->shm, owner->self.who))
			continue;
		addr = owner->self;
		err = 0;
	}
	list_del(&l->node);
	l->on_owner(l->arg, err, addr);
	free(l);
}

void
backplane_find_owner(
    struct backplane *bp, const struct id *id, backplane_on_owner *on_owner, void *arg)
{
	struct lookup *l = xcalloc(1, sizeof(*l));

	l->bp = bp;
	l->id = *id;
	l->on_owner = on_owner;
	l->arg = arg;
	l->post.run = run_lookup;
	list_add_tail(&bp->lookups, &l->node);
	loop_post(bp->loop, &l->post);
}

void
backplane_on_peer_gone(
    struct backplane *bp, void (*on_gone)(void *arg, struct backplane_addr), void *arg)
{
	check(bp->watcher_count < WATCHERS_MAX);
	bp->watchers[bp->watcher_count].on_gone = on_gone;
	bp->watchers[bp->watcher_count++].arg = arg;
}

/* There are no other hosts. */
struct redis *
backplane_redis(struct backplane *b)
{
	(void)b;
	return NULL;
}

void
backplane_on_resumed(struct backplane *b, void (*on_resumed)(void *arg), void *arg)
{
	(void)b;
	(void)on_resumed;
	(void)arg;
}
