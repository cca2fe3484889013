/*
 * events_impl - what the files of the hub share. Nobody else includes it.
 *
 *   hub.c       topics and who hears them; the log, event by event, to each
 *   catch_up.c  .. and to who subscribes, what was before
 *   ends.c      .. and how it ended, from the record
 *   event.c     an event as bytes
 *   position.c  how far
 *   far.c       other hosts
 */
#ifndef WORKER_EVENTS_EVENTS_IMPL_H
#define WORKER_EVENTS_EVENTS_IMPL_H

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/event_log.h"
#include "common/idmap.h"
#include "common/log.h"
#include "common/metric.h"
#include "common/strmap.h"
#include "worker/events/events.h"
#include "worker/events/position.h"

enum {
	EVENTS_QUEUE_MAX = 4096, /* events that wait to be told, of other hosts */
	EVENTS_HELD_MAX = 512,   /* .. for one subscriber that is not as far yet */
	EVENTS_WANT_BITS = 4096, /* as of event_log.c */
	ENDS_HOST = 0,           /* of events that are in no log */
};

struct far;

/* A topic in an app, while somebody hears it. */
struct events_topic {
	struct list links; /* struct events_link by of_topic */
	char *name;        /* APP \n TOPIC: its key */
	uint64_t key;
	uint64_t asked_ms; /* when the record was looked at for its end */
	bool is_ended;     /* and was told of it */
};

struct events_link {
	struct list of_topic;
	struct events_topic *topic;
	struct events_sub *sub;
	bool has_end, is_of_record; /* its subscriber was told one; not as news */
};

struct queued {
	struct list node;
	struct event *event;
};

struct events {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct shm_who who;
	struct backplane *backplane;
	uint64_t host;

	struct strmap *topics;
	size_t ask_cursor; /* in topics: events_topics_to_ask() goes on there */
	struct list subs;
	size_t sub_count;
	uint32_t wants[EVENTS_WANT_BITS]; /* topics for each bit of the row's */

	uint64_t cursor;              /* the next number of the log to look at */
	uint64_t soon, soon_since_ms; /* the number that somebody is writing */
	uint64_t end_count;           /* events of ENDS_HOST so far */
	struct list queue;            /* struct queued: taken, to be told */
	size_t queue_count;
	struct position told;       /* as far as all have been told */
	char id[POSITION_TEXT_MAX]; /* .. as text */
	size_t id_len;

	/* What is being told; in pieces, so that others get the loop between. */
	struct event *now;
	unsigned key_index;
	struct events_topic *topic;
	struct list *next; /* in topic->links */

	struct idmap *catch_ups;
	struct list waiting; /* struct events_catch_up: the log is to be read for them */
	struct loop_post pump;
	struct loop_timer look;
	struct buf scratch;
	struct far *far; /* NULL: no other hosts */
	bool is_pumping;
};

struct events_catch_up {
	struct list node;     /* in waiting */
	struct list far_node; /* other hosts are to be asked for it, when it is its turn */
	struct events_sub *sub;
	uint64_t handle; /* in catch_ups */
	struct position after;
	struct position horizon; /* of other hosts: all up to it has been asked for */
	struct position floor;   /* as far as it was told by now */
	struct event **held;     /* what came meanwhile */
	uint32_t held_count;
	uint32_t far_waiting;   /* answers of Redis that have not come */
	struct list far_events; /* struct queued: what they brought */
	bool is_resumed, wants_final, is_thorough, is_gap, is_log_read;
	bool is_unanswered; /* Redis is away again: it is asked anew when it is back */
	bool is_over;       /* it is told live, but may hear again what it knows */
	bool is_quiet;      /* nothing is said of its end: it was subscribed before */
};

/* ---- event.c ---- */

void event_format(const struct events_news *, int64_t at_ms, struct buf *out);
struct event *event_parse(struct str, uint64_t host, uint64_t number); /* NULL: malformed */

/* ---- hub.c ---- */

struct events_topic *events_topic_find(struct events *, struct str app, struct str topic);
void events_pull(struct events *); /* takes from the log what there is, as far as there is room */
void events_queue(struct events *, struct event *); /* another host's; takes the reference */
void events_tell(struct events_sub *, struct event *, struct str id);
void events_pump_soon(struct events *);
void events_want(struct events *, uint64_t key, bool is_wanted); /* counted */
void events_all_lost(struct events *);
void events_topic_name(struct str app, struct str topic, struct buf *out); /* replaces */

/* A payload that is too large becomes a short one, in *text. */
void events_cut(struct events_news *, struct buf *text);

/* ---- ends.c ---- */

/* False: it is an end that it was told already. */
bool ends_may_tell(struct events_sub *, const struct event *);

/* ---- catch_up.c ---- */

void catch_up_start(struct events_sub *, const struct events_sub_of *);
void catch_up_free(struct events_catch_up **);
void catch_up_run(struct events *); /* those that wait for the log */
/* Other hosts can be heard again, and were not for a while. */
void catch_up_again(struct events_sub *);
/* A live event for one that is not, or was not long ago, as far: told, held or known already. */
void catch_up_take(struct events_sub *, struct event *);
/* From far.c: an event of another host (takes the reference), how far that has got; then the end:
 * all topics have been asked for. May free it. */
void catch_up_far_event(struct events_catch_up *, struct event *);
void catch_up_far_done(struct events_catch_up *);

/* ---- far.c ---- */

struct far *far_new(struct events *); /* NULL: there are no other hosts */
void far_free(struct far **);
void far_want(struct far *, struct events_topic *, bool is_wanted);
void far_look(struct far *); /* is there something to pass on? */
/* Asks for what other hosts have said of its topics. */
void far_catch_up(struct far *, struct events_catch_up *);

#endif
