/*
 * command_queue - commands that were sent and not answered yet, the oldest first.
 *
 * A ring that grows up to a limit. Redis answers in order: the reply that comes
 * is the first one's.
 */
#ifndef WORKER_BACKPLANE_COMMAND_QUEUE_H
#define WORKER_BACKPLANE_COMMAND_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redisReply;
/* NULL: the connection ended before the answer; it may or may not have been carried out. */
typedef void command_on_reply(void *arg, const struct redisReply *);

struct command {
	command_on_reply *on_reply; /* NULL: nobody asks */
	void *arg;
	uint64_t sent_ms;
};

struct command_queue { /* zeroed, then max */
	struct command *ring;
	size_t first, count, room;
	size_t max;
};

bool command_queue_push(struct command_queue *, struct command); /* false: full */
bool command_queue_pop(struct command_queue *, struct command *ret);
/* How long the oldest has waited; 0: none waits. */
uint64_t command_queue_age_ms(const struct command_queue *, uint64_t now_ms);
/* Whoever asked with this arg is not called any more. */
void command_queue_forget(struct command_queue *, const void *arg);
void command_queue_forget_all(struct command_queue *);
void command_queue_fini(struct command_queue *); /* nobody is called */

#endif
