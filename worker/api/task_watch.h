/*
 * task_watch - looks in the record for the ends of those tasks that somebody hears here, so that
 * none waits for news that were lost: their worker died after it had written the end, Redis was
 * away, or it was over long before. Few at a time, each every few seconds.
 */
#ifndef WORKER_API_TASK_WATCH_H
#define WORKER_API_TASK_WATCH_H

#include "worker/api/api.h"

struct task_watch *task_watch_new(struct api *);
void task_watch_drain(struct task_watch *); /* asks no more */
void task_watch_free(struct task_watch **); /* nothing is asked any more */

#endif
