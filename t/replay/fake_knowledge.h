/*
 * fake_knowledge - a knowledge base that answers when the test says so, in place of
 * worker/knowledge.
 */
#ifndef T_REPLAY_FAKE_KNOWLEDGE_H
#define T_REPLAY_FAKE_KNOWLEDGE_H

#include "worker/knowledge/knowledge.h"

struct fake_knowledge {
	unsigned asked, cancelled;
	char query[256];
};
extern struct fake_knowledge fake_knowledge;

struct knowledge *fake_knowledge_new(void);
void fake_knowledge_answer(const struct knowledge_answer *); /* to the one that waits */

#endif
