/*
 * news - what a change of a task looks like to those who are told: subscribers of the hub, and the
 * webhook that the task names.
 *
 * Names and members are those of worker/events/events.h. A webhook of a task that was posted to
 * /v1/tasks gets {"type","timestamp","data":{the task}}; one of the existing routes gets the body
 * that existing clients know. Endpoints of the configuration get the former, always.
 */
#ifndef WORKER_TASK_NEWS_H
#define WORKER_TASK_NEWS_H

#include "worker/task/task_impl.h"

bool news_needs_input(const struct store_task *);
void news_publish(struct events *, const struct store_task *, const struct said *);
/* Fills the change's webhooks of the configuration's endpoints that want to hear of this. */
void news_hooks(const struct conf_webhooks *, const struct store_task *, const struct said *,
    struct arena *, struct store_task_change *change);
/* The end of a task as the record has it, for who was not told. */
void news_publish_end(struct events *, const struct store_task *);
/* Fills the change's webhook, if the task names one that wants to hear of this. */
void news_webhook(const struct store_task *, const struct said *, struct arena *, struct id *,
    struct store_task_change *);

#endif
