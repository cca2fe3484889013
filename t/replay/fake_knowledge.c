/* fake_knowledge - see fake_knowledge.h. */
#include "t/replay/fake_knowledge.h"

#include <stdio.h>

#include "common/check.h"

struct knowledge {
	knowledge_on_answer *on_answer; /* NULL: nobody waits */
	void *arg;
};

struct fake_knowledge fake_knowledge;
static struct knowledge base;

struct knowledge *
fake_knowledge_new(void)
{
	base = (struct knowledge){NULL, NULL};
	fake_knowledge = (struct fake_knowledge){0};
	return &base;
}

uint64_t
knowledge_ask(struct knowledge *k, const struct knowledge_question *q,
    knowledge_on_answer *on_answer, void *arg)
{
	check(k == &base && k->on_answer == NULL);
	k->on_answer = on_answer;
	k->arg = arg;
	snprintf(fake_knowledge.query, sizeof(fake_knowledge.query), "%.*s", (int)q->query.len,
	    q->query.p);
	return ++fake_knowledge.asked;
}

void
knowledge_cancel(struct knowledge *k, uint64_t handle)
{
	check(k == &base && k->on_answer != NULL && handle == fake_knowledge.asked);
	k->on_answer = NULL;
	fake_knowledge.cancelled++;
}

void
fake_knowledge_answer(const struct knowledge_answer *answer)
{
	knowledge_on_answer *on_answer = base.on_answer;

	check(on_answer != NULL);
	base.on_answer = NULL;
	on_answer(base.arg, answer);
}
