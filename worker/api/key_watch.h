/*
 * key_watch - who goes on for longer than a request, and ends when its key does.
 *
 * When keys have changed, each key that is held is looked up again, a few in each round of the
 * loop, until the record has answered; whose key holds no more is told, and likewise when its time
 * is up.
 */
#ifndef WORKER_API_KEY_WATCH_H
#define WORKER_API_KEY_WATCH_H

#include "common/list.h"
#include "worker/loop/wheel.h"
#include "worker/session/keys.h"

struct key_watch;
struct key_recheck;

struct key_hold { /* inside of who holds it */
	struct list node, stale;
	uint8_t hash[32];
	struct key_recheck *recheck; /* under way; NULL: none */
	struct key_watch *watch;
	struct wheel_entry expiry;
	int64_t expires_at; /* wall ms; 0: never */
	/* From the loop; may release it. Who goes on holding it may be told again. */
	void (*on_void)(struct key_hold *);
};

struct key_watch *key_watch_new(struct loop *, struct keys *, struct wheel *);
void key_watch_free(struct key_watch **); /* nobody holds a key any more */

/* expires_at: as of the principal. */
void key_hold(struct key_watch *, struct key_hold *, const uint8_t hash[32], int64_t expires_at,
    void (*on_void)(struct key_hold *));
void key_release(struct key_hold *);

#endif
