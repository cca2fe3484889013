/*
 * events - news for whoever subscribes: from any worker of any host to any client.
 *
 * A publisher names a topic and an app; each subscriber of that topic in that app hears it, once
 * and in the order of its host. Nothing here is the record: what ended a task or a turn was stored
 * before it is said here, and who is told that it may have missed something (a gap) reads the
 * record.
 *
 * Topics, the last four for everybody (app "") or for one app:
 *
 *   task:ID           the life of a task; `also` tasks:TYPE, all of that type
 *   session:ID        turns that begin and end, the end of the session
 *   webhooks          of an app; `also` webhook:URL
 *   spend             of an app
 *   providers         health and breakers
 *   navigation-state  models and providers that have changed
 *   model:ID          `also` of these, for one model
 *   notifications     announcements
 *
 * Where the log lives. On a host it is a ring in shared memory (common/event_log.h), which is the
 * bus too: publishing is one write, workers that have subscribers are woken, and a client that
 * comes back to another worker reads on where it was. Shared memory and not the record, because
 * progress is many times more writes than results, and a lost log loses nothing but news of what
 * the record says. For other hosts one worker of a host passes the ring on, in order, to Redis: a
 * bounded list per topic that expires, and the inboxes of those workers that have subscribers. A
 * host that was alone for a while passes on later what its ring still has. Without Redis there are
 * no other hosts.
 *
 * A place in the news is a position: how far one has heard each host (position.h). It is the id of
 * each event, so any worker of any host knows what a client that names it has not heard.
 */
#ifndef WORKER_EVENTS_EVENTS_H
#define WORKER_EVENTS_EVENTS_H

#include "common/conf.h"
#include "common/list.h"
#include "common/shm.h"
#include "common/str.h"
#include "worker/backplane/backplane.h"
#include "worker/loop/loop.h"

struct events; /* one hub for each worker */

enum {
	EVENTS_TOPIC_MAX = 512,         /* bytes of a topic's name */
	EVENTS_PAYLOAD_MAX = 24 * 1024, /* bytes; a larger one is replaced, see events_publish() */
};

enum events_flags {
	EVENTS_FINAL = 1 << 0, /* the last of its topic: told also to who subscribes later */
	EVENTS_PROGRESS =
	    1 << 1, /* the next of its topic may stand for it: a slow reader gets that */
};

/* All borrowed for the call. */
struct events_news {
	const char *topic;
	const char *also;   /* NULL: none */
	const char *app_id; /* NULL or "": for every app */
	const char *name;   /* "task.progress" */
	struct str payload; /* a JSON object, without newlines */
	unsigned flags;
};

/*
 * Tells all subscribers, on this worker too, from the loop: none is called from inside. Cheap when
 * nobody listens. It cannot fail for the publisher. A payload that is too large is replaced by
 * {"is_cut":true,"see":TOPIC}: who hears it reads the record. (Tasks leave their large members out
 * before, and say these two beside the others.)
 *
 * Names and members that the hubs of existing clients are fed from (hub_shape.c); what is missing
 * is null there, times are added:
 *
 *   task.started     task_id type metadata; images: prompt n size style;
 *                    videos: provider estimated_seconds
 *   task.progress    task_id type progress (0-100) status message;
 *                    images: images_completed total_images
 *   task.completed   task_id type result duration_seconds cost; image_urls or video_url
 *   task.failed      task_id type error (a text) is_retryable
 *   task.cancelled   task_id type reason
 *   task.timed_out   task_id type seconds error is_retryable
 *
 * Passed as they are: webhook.attempted .succeeded .failed .retry_scheduled .breaker .statistics,
 * spend.update, spend.summary, budget.alert, provider.health, model.mapping, model.availability,
 * model.capabilities, system.announcement, service.degraded, service.restored,
 * rate_limit.warning, config.changed.
 */
void events_publish(struct events *, const struct events_news *);

/*
 * How something has ended, and when (wall clock), as the record says: told to those subscribers of
 * its topic in this worker that were not told an end of it. From the loop.
 */
void events_tell_end(struct events *, const struct events_news *, int64_t at_ms);

/* Topics of a kind ("task:") that somebody hears here and whose end nobody was told, which were not
 * asked for since after_ms ago: now they are. Borrowed until the loop goes on. Returns how many. */
struct events_asked {
	struct str app, topic;
};
size_t events_topics_to_ask(
    struct events *, struct str kind, uint64_t after_ms, struct events_asked *out, size_t max);

struct events_of {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct shm_who who;
	struct backplane *backplane;
};
struct events *events_new(const struct events_of *); /* borrows */
void events_free(struct events **);                  /* nobody subscribes any more */

/* ---- hearing ---- */

/* Borrowed for the callback; event_ref() keeps it. */
struct event {
	uint32_t refs;
	uint64_t host, number; /* of which host's log */
	int64_t at_ms;         /* wall clock */
	unsigned flags;
	struct str app, topic, also, name, payload;
	char bytes[];
};
struct event *event_ref(struct event *);
void event_unref(struct event **);

struct events_sub;
struct events_sub_handlers {
	/* id: the position after it. The sub may be closed in it. */
	void (*on_event)(struct events_sub *, struct event *, struct str id);
	/* What was asked for is complete up to id; is_gap: before it something may be missing.
	 * Comes once, before any event that is new, after all that was missed. */
	void (*on_ready)(struct events_sub *, struct str id, bool is_gap);
	/* It cannot be told everything any more (it missed some, or has too much waiting): it is to
	 * be closed, and its client to come back with its last id. */
	void (*on_lost)(struct events_sub *);
};

/* Embedded in the subscriber's struct, zeroed; all of it is the hub's. */
struct events_sub {
	struct events *events;
	const struct events_sub_handlers *handlers;
	struct list node;
	struct events_link *links;        /* one for each topic */
	struct events_catch_up *catch_up; /* NULL: it hears live */
	struct event *last;               /* the last that it was given, not owned: never read */
	uint64_t last_number, last_host;
	int64_t after_ms; /* of the position that it named; 0: none */
	uint16_t link_count;
	uint16_t end_count; /* links whose end it was told */
};

struct events_sub_of {
	const char *app_id; /* NULL: an admin, who hears what is for everybody */
	const struct str *topics;
	size_t topic_count;
	struct str after; /* a position that it names; empty: from now on */
	bool wants_final; /* the last of a topic is told again if it is final and after is empty */
	/* .. however long ago: all that is left of the log is read, and Redis asked for what this
	 * host said, too. It may be told twice. */
	bool is_thorough;
};
/* Whether it may hear a topic is the caller's to know (topic.h). on_ready follows, from the loop.
 */
void events_subscribe(struct events *, struct events_sub *, const struct events_sub_of *,
    const struct events_sub_handlers *);
void events_unsubscribe(struct events_sub *); /* not subscribed: nothing happens */
size_t events_sub_count(const struct events *);

#endif
