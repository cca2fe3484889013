/* fake_store - tables as arrays, searched from end to end. */
#include "t/replay/fake_store.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/err.h"
#include "common/list.h"

enum { SESSIONS_MAX = 64, TURNS_MAX = 512, MESSAGES_MAX = 4096, USAGE_MAX = 1024 };

struct tables {
	unsigned fronts;    /* who looks at them */
	struct arena arena; /* all texts */
	struct store_session sessions[SESSIONS_MAX];
	size_t session_count;
	struct store_turn turns[TURNS_MAX];
	size_t turn_count;
	struct store_message messages[MESSAGES_MAX];
	size_t message_count;
	struct store_usage usage[USAGE_MAX];
	size_t usage_count;
	struct {
		unsigned calls, fails;
		int err, lie;
		uint64_t delay_ms;
	} verbs[FAKE_VERB_COUNT];
};

struct store { /* as one worker sees it */
	struct loop *loop;
	struct tables *tables;
	struct list answers;
};

struct answer {
	struct list node;
	struct store *store;
	struct loop_timer timer;
	void (*tell)(struct answer *);
	int err;
	uint64_t count;
	const struct store_session *session;
	struct store_turn *turn;
	struct store_message *messages;
	size_t message_count;
	union {
		store_on_done *done;
		store_on_count *count;
		store_on_session *session;
		store_on_turn *turn;
		store_on_messages *messages;
		store_on_begun *begun;
	} on;
	void *arg;
};

static const char *
copy(struct store *s, const char *text)
{
	return text != NULL ? arena_strdup(&s->tables->arena, str_of(text)) : NULL;
}

/* ---- answers ---- */

static void
on_answer(struct loop_timer *timer)
{
	struct answer *a = container_of(timer, struct answer, timer);

	list_del(&a->node);
	a->tell(a);
	free(a->messages);
	free(a);
}

static struct answer *
answer_new(struct store *s, enum fake_verb verb, void (*tell)(struct answer *), void *arg)
{
	struct answer *a = xcalloc(1, sizeof(*a));

	a->store = s;
	a->tell = tell;
	a->arg = arg;
	a->timer.on_fire = on_answer;
	list_add_tail(&s->answers, &a->node);
	loop_timer_set(s->loop, &a->timer, s->tables->verbs[verb].delay_ms);
	return a;
}

/* True: it must not do anything. */
static bool
is_failing(struct store *s, enum fake_verb verb, int *ret_err)
{
	s->tables->verbs[verb].calls++;
	*ret_err = 0;
	if (s->tables->verbs[verb].fails == 0)
		return false;
	s->tables->verbs[verb].fails--;
	*ret_err = s->tables->verbs[verb].err;
	return true;
}

static int
told(struct store *s, enum fake_verb verb, int err)
{
	int lie = s->tables->verbs[verb].lie;

	s->tables->verbs[verb].lie = 0;
	return lie != 0 ? lie : err;
}

static void
tell_done(struct answer *a)
{
	a->on.done(a->arg, a->err);
}

static void
tell_count(struct answer *a)
{
	a->on.count(a->arg, a->err, a->count);
}

static void
tell_turn(struct answer *a)
{
	a->on.turn(a->arg, a->err, a->err == 0 ? a->turn : NULL);
}

/* ---- the test's hand ---- */

struct store *
fake_store_front(struct store *other)
{
	struct store *s = xcalloc(1, sizeof(*s));

	s->loop = other->loop;
	s->tables = other->tables;
	s->tables->fronts++;
	list_init(&s->answers);
	return s;
}

struct store *
fake_store_new(struct loop *loop)
{
	struct tables *tables = xcalloc(1, sizeof(*tables));
	struct store first = {.loop = loop, .tables = tables};

	return fake_store_front(&first);
}

/* What is not answered yet stays so: who asked may be gone. */
void
store_free(struct store **ret)
{
	struct store *s = *ret;

	if (s == NULL)
		return;
	list_for_safe (node, &s->answers) {
		struct answer *a = list_entry(node, struct answer, node);

		loop_timer_stop(s->loop, &a->timer);
		free(a->messages);
		free(a);
	}
	if (--s->tables->fronts == 0) {
		arena_fini(&s->tables->arena);
		free(s->tables);
	}
	free(s);
	*ret = NULL;
}

void
fake_store_fail(struct store *s, enum fake_verb verb, int err, unsigned count)
{
	s->tables->verbs[verb].err = err;
	s->tables->verbs[verb].fails = count;
}

void
fake_store_lie(struct store *s, enum fake_verb verb, int err)
{
	s->tables->verbs[verb].lie = err;
}

void
fake_store_delay(struct store *s, enum fake_verb verb, uint64_t ms)
{
	s->tables->verbs[verb].delay_ms = ms;
}

unsigned
fake_store_calls(const struct store *s, enum fake_verb verb)
{
	return s->tables->verbs[verb].calls;
}

void
fake_store_add_session(
    struct store *s, const char *id, const char *model, const char *system, const char *tools_json)
{
	check(s->tables->session_count < SESSIONS_MAX);
	s->tables->sessions[s->tables->session_count++] = (struct store_session){
	    .id = copy(s, id),
	    .app_id = "demo",
	    .status = "active",
	    .model = copy(s, model),
	    .system = copy(s, system),
	    .tools_json = copy(s, tools_json),
	};
}

static struct store_session *
find_session(struct store *s, const char *id)
{
	for (size_t i = 0; i < s->tables->session_count; i++)
		if (strcmp(s->tables->sessions[i].id, id) == 0)
			return &s->tables->sessions[i];
	return NULL;
}

static struct store_turn *
find_turn(struct store *s, const char *id)
{
	for (size_t i = 0; i < s->tables->turn_count; i++)
		if (strcmp(s->tables->turns[i].id, id) == 0)
			return &s->tables->turns[i];
	return NULL;
}

static bool
is_live(const struct store_turn *t)
{
	return strcmp(t->state, "live") == 0;
}

static struct store_turn *
find_live(struct store *s, const char *session_id)
{
	for (size_t i = 0; i < s->tables->turn_count; i++)
		if (is_live(&s->tables->turns[i]) &&
		    strcmp(s->tables->turns[i].session_id, session_id) == 0)
			return &s->tables->turns[i];
	return NULL;
}

void
fake_store_set_status(struct store *s, const char *session_id, const char *status)
{
	find_session(s, session_id)->status = copy(s, status);
}

const struct store_turn *
fake_store_turn(const struct store *s, const char *id)
{
	return find_turn((struct store *)s, id);
}

struct id
fake_store_live_turn(const struct store *s, const char *session_id)
{
	const struct store_turn *t = find_live((struct store *)s, session_id);
	struct id id;

	check(t != NULL && id_parse(str_of(t->id), "turn", &id));
	return id;
}

const struct store_message *
fake_store_message(const struct store *s, size_t index)
{
	return index < s->tables->message_count ? &s->tables->messages[index] : NULL;
}

size_t
fake_store_message_count(const struct store *s)
{
	return s->tables->message_count;
}

const struct store_usage *
fake_store_usage(const struct store *s, size_t index)
{
	return index < s->tables->usage_count ? &s->tables->usage[index] : NULL;
}

static void
add_turn(struct store *s, const struct store_turn *t)
{
	check(s->tables->turn_count < TURNS_MAX);
	s->tables->turns[s->tables->turn_count++] = (struct store_turn){
	    .id = copy(s, t->id),
	    .session_id = copy(s, t->session_id),
	    .app_id = copy(s, t->app_id),
	    .request_id = copy(s, t->request_id),
	    .input_hash = copy(s, t->input_hash),
	    .state = "live",
	    .owner = copy(s, t->owner),
	    .fence = t->fence,
	    .model = copy(s, t->model),
	    .text = copy(s, t->text),
	    .last_seq = t->last_seq,
	    .created_at = t->created_at,
	};
}

void
fake_store_add_live(struct store *s, const char *id, const char *session_id, const char *owner,
    const char *text, uint64_t last_seq)
{
	struct store_turn t = {.id = id,
	    .session_id = session_id,
	    .app_id = "demo",
	    .owner = owner,
	    .fence = 1,
	    .model = "default",
	    .text = text,
	    .last_seq = last_seq};

	add_turn(s, &t);
}

static void
lose(struct store_turn *t)
{
	t->state = "failed";
	t->error_code = "worker_lost";
	t->error_message = "The worker that ran the turn was lost.";
	t->fence++;
}

void
fake_store_fence(struct store *s, const char *turn_id)
{
	lose(find_turn(s, turn_id));
}

static void
add_message(struct store *s, const struct store_message *m)
{
	for (size_t i = 0; i < s->tables->message_count; i++)
		if (strcmp(s->tables->messages[i].id, m->id) == 0)
			return;
	check(s->tables->message_count < MESSAGES_MAX);
	s->tables->messages[s->tables->message_count] = (struct store_message){
	    .id = copy(s, m->id),
	    .session_id = copy(s, m->session_id),
	    .turn_id = copy(s, m->turn_id),
	    .position = (int64_t)s->tables->message_count,
	    .role = copy(s, m->role),
	    .body_json = copy(s, m->body_json),
	    .is_partial = m->is_partial,
	};
	s->tables->message_count++;
}

void
fake_store_add_message(
    struct store *s, const char *session_id, const char *role, const char *body_json)
{
	struct id id = id_new("msg");
	struct store_message m = {
	    .id = id.s, .session_id = session_id, .role = role, .body_json = body_json};

	add_message(s, &m);
}

static void
add_usage(struct store *s, const struct store_usage *u)
{
	for (size_t i = 0; i < s->tables->usage_count; i++)
		if (strcmp(s->tables->usage[i].id, u->id) == 0)
			return;
	check(s->tables->usage_count < USAGE_MAX);
	s->tables->usage[s->tables->usage_count] = *u;
	s->tables->usage[s->tables->usage_count].id = copy(s, u->id);
	s->tables->usage[s->tables->usage_count++].turn_id = copy(s, u->turn_id);
}

/* ---- store.h ---- */

static void
tell_session(struct answer *a)
{
	a->on.session(a->arg, a->err, a->err == 0 ? a->session : NULL);
}

void
store_session_get(struct store *s, const char *id, store_on_session *on_session, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_SESSION_GET, &err);
	struct answer *a = answer_new(s, FAKE_SESSION_GET, tell_session, arg);

	a->on.session = on_session;
	a->session = find_session(s, id);
	a->err = fails ? err : a->session != NULL ? 0 : E_NOT_FOUND;
}

static void
tell_messages(struct answer *a)
{
	a->on.messages(a->arg, a->err, a->messages, a->message_count, false);
}

void
store_message_history(struct store *s, const char *session_id, uint64_t max_bytes,
    store_on_messages *on_messages, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_HISTORY, &err);
	struct answer *a = answer_new(s, FAKE_HISTORY, tell_messages, arg);
	size_t first = s->tables->message_count;
	uint64_t bytes = 0;

	a->on.messages = on_messages;
	a->err = fails ? err : 0;
	while (first > 0 && bytes <= max_bytes) {
		if (strcmp(s->tables->messages[--first].session_id, session_id) == 0)
			bytes += strlen(s->tables->messages[first].body_json);
	}
	a->messages = xcalloc(s->tables->message_count + 1, sizeof(*a->messages));
	for (; first < s->tables->message_count; first++)
		if (strcmp(s->tables->messages[first].session_id, session_id) == 0)
			a->messages[a->message_count++] = s->tables->messages[first];
}

static void
tell_begun(struct answer *a)
{
	a->on.begun(a->arg, a->err, a->turn);
}

static struct store_turn *
find_request(struct store *s, const struct store_turn *t)
{
	for (size_t i = 0; t->request_id != NULL && i < s->tables->turn_count; i++) {
		struct store_turn *other = &s->tables->turns[i];

		if (other->request_id != NULL && strcmp(other->session_id, t->session_id) == 0 &&
		    strcmp(other->request_id, t->request_id) == 0)
			return other;
	}
	return NULL;
}

static bool
may_run_anew(const struct store_turn *t)
{
	return strcmp(t->state, "failed") == 0 && (strcmp(t->error_code, "worker_lost") == 0 ||
						      strcmp(t->error_code, "draining") == 0);
}

static int
begin(struct store *s, const struct store_turn_begin *b, struct store_turn **existing)
{
	const struct store_session *session = find_session(s, b->turn.session_id);
	struct store_turn *request = find_request(s, &b->turn);

	if (find_turn(s, b->turn.id) != NULL)
		return 0;
	if (session == NULL)
		return E_NOT_FOUND;
	if (strcmp(session->status, "active") != 0)
		return E_SESSION_CLOSED;
	if (request != NULL && strcmp(request->input_hash, b->turn.input_hash) != 0) {
		*existing = request;
		return E_REQUEST_ID_REUSED;
	}
	if (request != NULL && !may_run_anew(request)) {
		*existing = request;
		return E_DUPLICATE;
	}
	*existing = find_live(s, b->turn.session_id);
	if (*existing != NULL)
		return E_TURN_IN_PROGRESS;
	if (request != NULL)
		request->request_id = NULL;
	add_turn(s, &b->turn);
	add_message(s, &b->message);
	return 0;
}

void
store_turn_begin(
    struct store *s, const struct store_turn_begin *b, store_on_begun *on_begun, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_BEGIN, &err);
	struct answer *a = answer_new(s, FAKE_BEGIN, tell_begun, arg);

	a->on.begun = on_begun;
	a->err = fails ? err : told(s, FAKE_BEGIN, begin(s, b, &a->turn));
}

static int
add(struct store *s, const char *turn_id, uint64_t fence, const struct store_message *m,
    size_t count, const struct store_usage *u, size_t usage_count)
{
	struct store_turn *t = find_turn(s, turn_id);

	if (t == NULL || !is_live(t) || t->fence != fence)
		return E_FENCED;
	for (size_t i = 0; i < count; i++)
		add_message(s, &m[i]);
	for (size_t i = 0; i < usage_count; i++)
		add_usage(s, &u[i]);
	return 0;
}

void
store_turn_add(struct store *s, const char *turn_id, uint64_t fence, const struct store_message *m,
    size_t count, const struct store_usage *u, size_t usage_count, store_on_done *on_done,
    void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_ADD, &err);
	struct answer *a = answer_new(s, FAKE_ADD, tell_done, arg);

	a->on.done = on_done;
	a->err = fails ? err : told(s, FAKE_ADD, add(s, turn_id, fence, m, count, u, usage_count));
}

void
store_turn_progress(struct store *s, const char *turn_id, uint64_t fence, const char *text,
    uint64_t last_seq, store_on_done *on_done, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_PROGRESS, &err);
	struct answer *a = answer_new(s, FAKE_PROGRESS, tell_done, arg);
	struct store_turn *t = find_turn(s, turn_id);

	a->on.done = on_done;
	if (!fails)
		err = t != NULL && is_live(t) && t->fence == fence ? 0 : E_FENCED;
	a->err = err;
	if (err != 0)
		return;
	t->text = copy(s, text);
	t->last_seq = last_seq;
}

static int
end(struct store *s, const struct store_turn_end *e)
{
	int err =
	    add(s, e->turn_id, e->fence, e->messages, e->message_count, e->usage, e->usage_count);

	if (err != 0)
		return err;
	struct store_turn *t = find_turn(s, e->turn_id);
	t->state = copy(s, e->state);
	t->error_code = copy(s, e->error_code);
	t->error_message = copy(s, e->error_message);
	t->finish_reason = copy(s, e->finish_reason);
	t->text = copy(s, e->text);
	t->result_json = copy(s, e->result_json);
	t->last_seq = e->last_seq;
	t->ended_at = e->now;
	return 0;
}

void
store_turn_end(struct store *s, const struct store_turn_end *e, store_on_done *on_done, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_END, &err);
	struct answer *a = answer_new(s, FAKE_END, tell_done, arg);

	a->on.done = on_done;
	a->err = fails ? err : told(s, FAKE_END, end(s, e));
}

void
store_turn_get(struct store *s, const char *id, store_on_turn *on_turn, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_GET, &err);
	struct answer *a = answer_new(s, FAKE_GET, tell_turn, arg);

	a->on.turn = on_turn;
	a->turn = find_turn(s, id);
	a->err = fails ? err : a->turn != NULL ? 0 : E_NOT_FOUND;
}

void
store_turn_live(struct store *s, const char *session_id, store_on_turn *on_turn, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_LIVE, &err);
	struct answer *a = answer_new(s, FAKE_LIVE, tell_turn, arg);

	a->on.turn = on_turn;
	a->turn = find_live(s, session_id);
	a->err = fails ? err : a->turn != NULL ? 0 : E_NOT_FOUND;
}

void
store_turn_lose(struct store *s, const char *id, const char *owner, int64_t now,
    store_on_done *on_done, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_LOSE, &err);
	struct answer *a = answer_new(s, FAKE_LOSE, tell_done, arg);
	struct store_turn *t = find_turn(s, id);

	(void)now;
	a->on.done = on_done;
	a->err = fails ? err : E_FENCED;
	if (fails || t == NULL || !is_live(t) || strcmp(t->owner, owner) != 0)
		return;
	lose(t);
	a->err = 0;
}

void
store_turn_lose_all(
    struct store *s, const char *owner, int64_t now, store_on_count *on_count, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_LOSE_ALL, &err);
	struct answer *a = answer_new(s, FAKE_LOSE_ALL, tell_count, arg);

	(void)now;
	a->on.count = on_count;
	a->err = err;
	for (size_t i = 0; !fails && i < s->tables->turn_count; i++) {
		if (!is_live(&s->tables->turns[i]) || strcmp(s->tables->turns[i].owner, owner) != 0)
			continue;
		lose(&s->tables->turns[i]);
		a->count++;
	}
}

/* One host. */
bool
store_is_host_over(const struct store *s, uint64_t host)
{
	(void)s;
	(void)host;
	return true;
}

void
store_on_host_over(struct store *s, void (*on_over)(void *arg, uint64_t host), void *arg)
{
	(void)s;
	(void)on_over;
	(void)arg;
}

void
store_turn_lose_former(
    struct store *s, const char *host_prefix, int64_t now, store_on_count *on_count, void *arg)
{
	int err;
	bool fails = is_failing(s, FAKE_LOSE_FORMER, &err);
	struct answer *a = answer_new(s, FAKE_LOSE_FORMER, tell_count, arg);

	(void)now;
	a->on.count = on_count;
	a->err = err;
	for (size_t i = 0; !fails && i < s->tables->turn_count; i++) {
		struct store_turn *t = &s->tables->turns[i];

		if (!is_live(t) || str_starts(str_of(t->owner), str_of(host_prefix)))
			continue;
		lose(t);
		a->count++;
	}
}
