/* fake_holds - see fake_holds.h. */
#include "t/replay/fake_holds.h"

#include <stdio.h>

#include "common/check.h"

enum { MAX = 64 };

enum state { NOTHING, WAITING, HELD };

struct holds {
	struct {
		enum state state;
		hold_on_answer *on_answer;
		void *arg;
	} all[MAX];
	uint64_t count;
};

struct fake_holds fake_holds;
static struct holds holds;
static struct token_ask *asking;

struct holds *
fake_holds_new(void)
{
	fake_holds_reset();
	return &holds;
}

void
fake_holds_reset(void)
{
	holds = (struct holds){.count = 0};
	fake_holds = (struct fake_holds){.tokens_verdict = {.is_allowed = true}};
	asking = NULL;
}

bool
hold_is_needed(const struct hold_question *q)
{
	return q->key.amount_micros > 0 || q->app.amount_micros > 0;
}

uint64_t
hold_ask(struct holds *hs, const struct hold_question *q, hold_on_answer *on_answer, void *arg)
{
	check(hs == &holds && hs->count < MAX);
	hs->all[hs->count].state = WAITING;
	hs->all[hs->count].on_answer = on_answer;
	hs->all[hs->count].arg = arg;
	fake_holds.asked++;
	fake_holds.asked_micros = q->usage.cost_micros;
	snprintf(fake_holds.asked_id, sizeof(fake_holds.asked_id), "%s", q->usage.id);
	return ++hs->count;
}

void
hold_release(struct holds *hs, uint64_t handle)
{
	check(hs == &holds && hs->all[handle - 1].state != NOTHING);
	hs->all[handle - 1].state = NOTHING;
	fake_holds.released++;
}

bool
hold_settle(struct holds *hs, uint64_t handle)
{
	check(hs == &holds && hs->all[handle - 1].state == HELD);
	fake_holds.on_the_way++;
	return true;
}

void
hold_forget(struct holds *hs, uint64_t handle)
{
	check(hs == &holds && hs->all[handle - 1].state == HELD);
	hs->all[handle - 1].state = NOTHING;
	fake_holds.forgotten++;
}

void
usage_count(const struct store_usage *u)
{
	fake_holds.counted_tokens += u->input_tokens + u->output_tokens;
}

void
usage_add(struct usages *us, const struct store_usage *u, uint64_t hold)
{
	check(us == (struct usages *)&holds);
	usage_count(u);
	fake_holds.added++;
	snprintf(fake_holds.added_id, sizeof(fake_holds.added_id), "%s", u->id);
	if (hold != 0)
		hold_forget((struct holds *)us, hold);
}

void
usage_add_late(struct usages *us, const struct store_usage *u)
{
	check(us == (struct usages *)&holds);
	fake_holds.late++;
	snprintf(fake_holds.late_id, sizeof(fake_holds.late_id), "%s", u->id);
}

/* ---- tokens ---- */

bool
tokens_reserve(
    struct limits *limits, const struct token_limit *of, uint64_t tokens, struct token_ask *r)
{
	(void)limits;
	check(asking == NULL && of->limit > 0);
	fake_holds.asked_tokens = tokens;
	r->tokens = (uint32_t)tokens;
	if (!fake_holds.is_far) {
		r->verdict = fake_holds.tokens_verdict;
		r->tokens = r->verdict.is_allowed ? r->tokens : 0;
		return true;
	}
	asking = r;
	return false;
}

void
tokens_cancel(struct token_ask *r)
{
	if (asking == r)
		asking = NULL;
}

void
tokens_settle(struct limits *limits, const struct token_limit *of, uint32_t reserved, uint64_t used)
{
	(void)limits;
	(void)of;
	if (reserved == 0)
		return;
	fake_holds.settled++;
	fake_holds.settled_reserved = reserved;
	fake_holds.settled_used = used;
}

bool
fake_tokens_are_asked(void)
{
	return asking != NULL;
}

void
fake_tokens_answer(void)
{
	struct token_ask *r = asking;

	check(r != NULL);
	asking = NULL;
	r->verdict = fake_holds.tokens_verdict;
	if (!r->verdict.is_allowed)
		r->tokens = 0;
	r->on_decided(r);
}

static unsigned
count_of(enum state state)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < holds.count; i++)
		n += holds.all[i].state == state;
	return n;
}

unsigned
fake_holds_waiting(void)
{
	return count_of(WAITING);
}

unsigned
fake_holds_held(void)
{
	return count_of(HELD);
}

void
fake_holds_answer(int err, const struct hold_refusal *refusal)
{
	uint64_t i = 0;

	while (i < holds.count && holds.all[i].state != WAITING)
		i++;
	check(i < holds.count);
	holds.all[i].state = err == 0 ? HELD : NOTHING;
	fake_holds.answered++;
	holds.all[i].on_answer(holds.all[i].arg, err, refusal);
}
