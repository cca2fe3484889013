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
	fake_holds = (struct fake_holds){.asked = 0};
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
