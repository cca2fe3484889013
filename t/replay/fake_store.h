/*
 * fake_store - the verbs of store.h that turns use, in memory, able to fail and to
 * be slow.
 *
 * A verb does its work at once and answers later from the loop. It keeps the rules
 * of store.h: one live turn per session, fences, idempotent writes.
 */
#ifndef T_REPLAY_FAKE_STORE_H
#define T_REPLAY_FAKE_STORE_H

#include "worker/store/store.h"

enum fake_verb {
	FAKE_SESSION_GET,
	FAKE_HISTORY,
	FAKE_BEGIN,
	FAKE_ADD,
	FAKE_PROGRESS,
	FAKE_END,
	FAKE_GET,
	FAKE_LIVE,
	FAKE_LOSE,
	FAKE_LOSE_ALL,
	FAKE_LOSE_FORMER,
	FAKE_VERB_COUNT
};

struct store *fake_store_new(struct loop *);
struct store *fake_store_front(struct store *); /* the same record, for another worker */

/* The next `count` calls do nothing and answer err. */
void fake_store_fail(struct store *, enum fake_verb, int err, unsigned count);
/* The next call does its work and answers err all the same: the commit's answer was lost. */
void fake_store_lie(struct store *, enum fake_verb, int err);
void fake_store_delay(struct store *, enum fake_verb, uint64_t ms);
unsigned fake_store_calls(const struct store *, enum fake_verb);

void fake_store_add_session(
    struct store *, const char *id, const char *model, const char *system, const char *tools_json);
void fake_store_set_status(struct store *, const char *session_id, const char *status);
void fake_store_add_message(
    struct store *, const char *session_id, const char *role, const char *body_json);

/* What is recorded; NULL: no such. */
const struct store_turn *fake_store_turn(const struct store *, const char *id);
struct id fake_store_live_turn(const struct store *, const char *session_id); /* there is one */
const struct store_message *fake_store_message(const struct store *, size_t index);
size_t fake_store_message_count(const struct store *);
const struct store_usage *fake_store_usage(const struct store *, size_t index);
/* A turn that some worker of another life left live. */
void fake_store_add_live(struct store *, const char *id, const char *session_id, const char *owner,
    const char *text, uint64_t last_seq);
void fake_store_fence(struct store *, const char *turn_id); /* somebody declares it lost */

#endif
