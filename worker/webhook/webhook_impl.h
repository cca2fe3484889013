/*
 * webhook_impl - what the files of worker/webhook share. Not for others.
 *
 *   webhooks.c  looks, and when: the cycle; life
 *   claim.c     claims what there is room for
 *   target.c    an endpoint as this worker knows it: its queue, its share of a host's connections
 *   send.c      one request
 *   settle.c    results, on their way to the record
 *   orphans.c   what dead workers had claimed
 *   news.c      what becomes of deliveries, as events
 *   upkeep.c    what is counted and what is over; by one worker of all
 */
#ifndef WORKER_WEBHOOK_IMPL_H
#define WORKER_WEBHOOK_IMPL_H

#include "common/list.h"
#include "common/strmap.h"
#include "worker/backplane/deaths.h"
#include "worker/backplane/owner.h"
#include "worker/webhook/verdict.h"
#include "worker/webhook/webhook.h"

enum {
	LOOK_ENDPOINTS = 1000,     /* in one look */
	LOOK_GAP_MS = 5,           /* between two looks */
	HELD_MAX = 4000,           /* webhooks in one worker, */
	HELD_BYTES_MAX = 32 << 20, /* and what they weigh: beyond either nothing is claimed */
	CLAIM_BYTES = 4 << 20,     /* of one endpoint at once, by what its last ones weighed */
	FIRST_MAX = 4,             /* .. while it is not known what they weigh: webhooks, */
	FIRST_BYTES = CLAIM_BYTES / FIRST_MAX, /* which are thought to weigh so much each */
	QUIET_MS = 200,   /* an endpoint whose due ones all wait for others in their order */
	SLOW_MS = 500,    /* it answers slower: no more is claimed than goes out at once */
	IN_A_ROW_MAX = 8, /* of equal order, claimed together */
	LEASE_GRACE_MS = 3000,
	SETTLE_MAX = 500, /* results in one write */
	SETTLE_GAP_MS = 4,
	SETTLE_AGAIN_MS = 500,
	TARGET_IDLE_MS = 300000, /* forgotten when nothing was due for so long */
};

struct webhooks {
	struct loop *loop;
	struct client *client;
	const struct conf_webhooks *conf;
	struct store *store;
	struct backplane *backplane;
	struct shm *shm;
	char owner[OWNER_MAX]; /* who claims */
	uint64_t workers;      /* of this host: they share a host's connections */

	struct strmap *targets; /* by endpoint's id */
	struct strmap *hosts;   /* by "scheme://name:port" */

	struct loop_timer look;
	uint64_t looked_ms;
	bool is_running, is_draining, is_looking, must_look_again;
	bool is_known, is_making_known; /* the configuration's endpoints to the record */
	uint64_t next_ms;       /* from now on: when something becomes due that we have seen */
	char *after;            /* the look goes on there; NULL: from the first */
	struct target **wanted; /* something of theirs may be claimed; in their turn */
	size_t wanted_count, claim_from, claim_to; /* of them: what is being claimed of */
	char *first; /* had to stand back: the next look begins with it; NULL: nobody had to */
	uint64_t told_others_ms;
	struct events *events; /* NULL: nobody is told */
	uint64_t news_from_ms;
	unsigned news_count; /* since then */

	size_t held, held_bytes; /* claimed and not settled */
	struct list results;     /* messages that have ended, in that order */
	size_t result_count;
	struct list settling; /* on their way to the record */
	struct loop_timer settle;
	uint64_t settle_number; /* of what is in settling */
	bool is_settling;

	struct deaths deaths; /* orphans.c */

	struct loop_timer upkeep;
	uint64_t swept_ms;
	bool is_keeping;
};

struct host { /* one that we connect to */
	char *name;
	struct client_pool *pool;
	uint32_t targets, in_flight, connections;
};

struct target {
	struct webhooks *webhooks;
	char *id;
	char *shown_url, *app_id; /* app_id NULL: of the configuration */
	struct endpoint endpoint;
	uint64_t shape; /* hash of what endpoint was made of */
	struct host *host;
	struct list waiting; /* messages */
	size_t waiting_count;
	size_t behind_count; /* messages behind others */
	uint32_t in_flight;  /* requests */
	uint64_t quiet_until_ms, seen_ms;
	uint64_t mean_ms;  /* of its answers, smoothed */
	size_t mean_bytes; /* of its bodies, likewise; 0: none was seen */
	uint64_t faults;   /* in a row, as seen here */
	bool is_open;      /* its breaker, as last heard */
	bool told_open;
	bool is_disabled; /* likewise */
	bool is_usable;   /* endpoint_init() */
};

struct message {          /* a webhook that this worker has claimed */
	struct list node; /* target.waiting, request's, webhooks.results or .settling, or behind */
	struct list behind; /* of equal order: the next goes when this one's end is recorded */
	struct target *target;
	char *id, *event, *body, *app_id;
	size_t bytes;
	uint64_t claim, attempts;
	int64_t created_at;
	uint64_t start_by_ms; /* later its lease might end before the answer */
	/* The result. */
	const char *state, *error;
	uint64_t due_in_ms, first_ms, total_ms;
	int status;
	char *response;
	bool was_tried, is_fault, is_gone;
};

/* webhooks.c */
void webhooks_look_in(struct webhooks *, uint64_t delay_ms);
void webhooks_tell_others(struct webhooks *); /* there is more than this worker takes */
void webhooks_end_cycle(struct webhooks *);
void message_free(struct message *); /* it is in no list */

/* claim.c: of w->wanted; ends the cycle */
void claim_wanted(struct webhooks *);

/* target.c */
struct target *target_of(
    struct webhooks *, const struct store_webhook_endpoint *);  /* made or known */
void target_free(struct target *);                              /* nothing of it is in flight */
uint32_t target_room(const struct target *);                    /* how many may be claimed */
size_t target_weight(const struct target *, uint32_t count);    /* what so many may weigh */
uint32_t target_in_a_row(const struct target *, uint32_t room); /* .. of equal order */
/* Behind `first`, of equal order, unless that is NULL. */
struct message *target_take(
    struct target *, const struct store_webhook *, uint64_t lease_ms, struct message *first);
/* The record has the message's result: what is behind it goes, or must wait there for it. Not
 * sooner: who dies in between would leave an earlier one to be sent once more behind a later one.
 */
void target_go_on(struct message *);
void target_pump(struct target *);
void target_give_back(struct target *); /* all that waits */
void target_answered(struct target *);  /* a request of it has ended */
void targets_forget_idle(struct webhooks *);
void host_free(struct host *);

/* send.c: the messages of the list (count of them) go; ends in settle_message() of each */
void send_messages(struct target *, struct list *messages, size_t count);

/* settle.c: its result is set, it is in no list */
void settle_message(struct message *);
void settle_stop(struct webhooks *);

/* orphans.c */
void orphans_start(struct webhooks *);
void orphans_stop(struct webhooks *);

/* news.c */
void news_attempt(struct webhooks *, const struct message *); /* its result is set */
void news_breaker(struct webhooks *, const struct target *, bool is_open, uint64_t failures);

/* upkeep.c */
void upkeep_start(struct webhooks *);
void upkeep_stop(struct webhooks *);

#endif
