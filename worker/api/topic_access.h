/*
 * topic_access - who may hear which topic of events.
 *
 * A session or a task of another app does not exist: the same answer as for an id that nobody
 * has. What is of all of an app (its tasks of a type, webhooks, spend) is for its server keys;
 * admins hear what is for everybody.
 */
#ifndef WORKER_API_TOPIC_ACCESS_H
#define WORKER_API_TOPIC_ACCESS_H

#include "worker/api/api.h"

/* As topics=a,b: pieces of the text, borrowed. False: none, too many, or one is too long. */
enum { TOPIC_ACCESS_MAX = 128 };
bool topics_split(struct str list, struct str out[TOPIC_ACCESS_MAX], size_t max, size_t *ret_count);

/* err 0, E_NOT_FOUND (a topic that there is not, for who asks), E_FORBIDDEN, E_STORE_UNAVAILABLE;
 * bad: the first that it is about, borrowed. Called once; from inside where nothing is to be
 * asked. */
typedef void topics_on_checked(void *arg, int err, struct str bad);
void topics_check(struct api *, enum key_kind, const char *app_id, const struct str *topics,
    size_t count, topics_on_checked *, void *arg);

#endif
