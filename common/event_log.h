/*
 * event_log - what was published on this host, in one order, in shared memory.
 *
 * It is the bus of events and their memory at once: every worker reads it from its own place on, so
 * all deliver in the same order, and one that a client comes back to reads what it missed. Each
 * event has a number; the log keeps the last EVENT_LOG_SLOTS pieces of EVENT_LOG_SLOT_BYTES.
 *
 *   number -> slot number % SLOTS:  older --claim--> WRITING --publish--> DONE
 *                                     |                +--its writer is dead--> VOID
 *                                     +--nobody claimed it in time-----------> VOID
 *
 * Writers take numbers by one atomic addition and claim slots by compare-and-swap, so none waits
 * for another. A number whose writer died is voided by whoever reads; a writer who finds its number
 * voided takes another. Nothing that a killed worker leaves is read as an event, nor what one
 * leaves that stood still for a whole lap and wrote on over others: each event has a sum.
 *
 * Beside it each row has a bitmap of what its worker wants to hear, so that only those are woken.
 */
#ifndef COMMON_EVENT_LOG_H
#define COMMON_EVENT_LOG_H

#include "common/buf.h"
#include "common/shm.h"
#include "common/str.h"

enum {
	EVENT_LOG_SLOTS = 32768, /* 16 MiB, of which only what was used exists */
	EVENT_LOG_SLOT_BYTES = 512,
	EVENT_LOG_MAX = 40 << 10, /* bytes of one event */
	EVENT_LOG_KEYS = 2,
};

/* Appends; keys are hashes of what it is about, 0: none. Returns its number, 0: it did not find
 * room (so many writers are stuck, which does not happen). */
uint64_t event_log_add(
    struct shm *, struct shm_who me, const uint64_t keys[EVENT_LOG_KEYS], struct str bytes);

uint64_t event_log_next(const struct shm *);   /* the number that is given next; the first is 1 */
uint64_t event_log_oldest(const struct shm *); /* what is before is overwritten, or soon is */

enum event_log_at {
	EVENT_LOG_EVENT,
	EVENT_LOG_NOTHING, /* a void number, or a piece of an event before */
	EVENT_LOG_SOON,    /* its writer is at it: look again, and give it up after a while */
	EVENT_LOG_END,
	EVENT_LOG_LOST, /* overwritten */
};
enum event_log_at event_log_look(struct shm *, uint64_t number, uint64_t ret_keys[EVENT_LOG_KEYS]);
/* Appends its bytes; false: overwritten meanwhile, or by who was a lap late. */
bool event_log_read(const struct shm *, uint64_t number, struct buf *out);
/* Nobody came to write it: then nobody will. */
void event_log_give_up(struct shm *, uint64_t number);

/* What a row's worker wants to hear; false positives happen. */
void event_log_want(struct shm *, struct shm_who me, uint64_t key, bool is_wanted);
bool event_log_wants(const struct shm *, uint32_t row, uint64_t key);
/* True: it is to be told that there is news; false: it has been told and has not looked yet. */
bool event_log_wake(struct shm *, uint32_t row);
void event_log_awake(struct shm *, struct shm_who me); /* before it looks */

/* How far other hosts have been told; it only grows. */
uint64_t event_log_forwarded(const struct shm *);
void event_log_set_forwarded(struct shm *, uint64_t number);

uint64_t event_log_key(struct str text); /* never 0 */

/* For shm.c. */
size_t event_log_shm_bytes(uint32_t rows);
void event_log_row_clear(struct shm *, uint32_t row);

#endif
