/*
 * task_impl - what the files of worker/task share. Nobody else includes it.
 *
 *   tasks.c   all of a worker's; the verbs for who asks; waiting for an end
 *   queue.c   what is claimed, when, and in whose turn it runs
 *   quota.c    how many of an app may wait
 *   write.c   the one way into the record, and who is told
 *   run.c     a task that runs: its money, its time, its end, another attempt
 *   call.c    the kind that is one call of a model
 *   job.c     the kind that a provider does in its own time
 *   lease.c   leases of our own; tasks of the dead; time that is up; what is over
 *   untold.c  ends that nobody was told of, because who wrote them died
 *   retry.c   (pure) what may be tried again, and when
 */
#ifndef WORKER_TASK_TASK_IMPL_H
#define WORKER_TASK_TASK_IMPL_H

#include <jansson.h>

#include "common/budget.h"
#include "common/idmap.h"
#include "common/list.h"
#include "common/strmap.h"
#include "worker/backplane/deaths.h"
#include "worker/backplane/owner.h"
#include "worker/provider/ask.h"
#include "worker/provider/relay.h"
#include "worker/task/retry.h"
#include "worker/task/task.h"
#include "worker/usage/tokens.h"

enum {
	TASK_WRITES_MAX = 64,      /* changes in one transaction */
	TASK_JOB_LOSSES_MAX = 100, /* of a task whose job runs elsewhere, in place of max_losses */
};

enum run_state {
	RUN_READY,    /* claimed ahead */
	RUN_STARTING, /* has a place; the record hears that it runs */
	RUN_MONEY,    /* limits and budgets are asked */
	RUN_CALL,     /* the provider works, or the job is being looked at */
	RUN_WAITING,  /* for the timer of a job: it has no place */
	RUN_ENDING,   /* the record hears how it ended */
};

/* One that this worker owns. */
struct run {
	struct list node; /* of tasks->ready, active or waiting */
	struct tasks *tasks;
	uint64_t handle;
	enum run_state state;
	struct arena arena; /* of the texts */
	struct store_task task;
	enum task_type type;
	bool has_place, is_suspect, is_waiting; /* is_waiting: in that list */
	struct loop_timer time_up, look;        /* look: at a job, once more */
	uint64_t begun_ms;                      /* this attempt */

	struct id usage_id;
	struct token_limit token_limit;
	struct token_ask tokens;
	bool asks_tokens;
	uint32_t reserved_tokens;
	struct budget_rule budget;
	uint64_t hold;

	struct buf body; /* of the request */
	struct body parsed;
	struct relay *relay;
	uint64_t ask; /* of a job; 0: none under way */
	struct buf answer;
	unsigned job_looks, renewals;
	const char *job_provider, *job_model; /* of the attempt, or where the job is */
};

struct tasks {
	struct tasks_of of;
	struct backplane_addr self;
	char owner[OWNER_MAX];
	struct idmap *runs; /* by handle */
	struct strmap *by_id;
	struct list ready, active, waiting;
	struct list waits; /* of struct task_wait */
	unsigned ready_count, active_count, waiting_count, suspects;
	bool is_draining;
	uint64_t dice;

	/* queue.c */
	bool is_claiming, may_be_more, is_busy, claimed_stripes;
	unsigned claimed_for;
	struct loop_post claim_post;
	struct loop_timer look, wake_later;
	uint64_t woken_ms; /* when others were last told */
	unsigned ended_lately;
	uint64_t lately_ms;

	/* write.c */
	struct list writes; /* of struct write */
	size_t write_count;
	bool is_writing;
	struct loop_timer write_again;

	/* lease.c */
	struct loop_timer renew, tend, drain_end;
	bool is_renewing;
	struct deaths deaths;
	uint64_t well_since_ms; /* the record answers; 0: it does not */
	unsigned tends, looks;
	bool is_archiving, is_purging;

	struct list untold; /* untold.c */
	struct deaths untold_deaths;
	struct strmap *quotas; /* quota.c, by app_id */
};

/* An order that asks whether one more of its app may wait. Embedded in the caller's. */
struct quota_ask {
	struct list node;
	struct quota *quota; /* NULL: none is held */
	/* 0 or E_QUEUE_FULL; perhaps from inside quota_enter(). */
	void (*on_quota)(struct quota_ask *, int err);
};

/* What is said of a task; texts are copied. */
struct said {
	const char *state;
	int progress;
	const char *message;
	struct str result; /* JSON; .p NULL: none */
	const char *error_code, *error_message;
	bool is_retryable;
	bool is_kept, is_ended, is_taken;
	int64_t due_in_ms;
	uint32_t losses;
	bool is_loss; /* losses is meant */
};
typedef void task_on_written(void *arg, int err, bool is_done);

/*
 * write.c: every change of a task that exists goes this way. It is written, with the webhook that
 * tells of it, then announced. on_written (may be NULL): is_done is false when the task is somebody
 * else's by now.
 */
void task_change(
    struct tasks *, const struct store_task *, const struct said *, task_on_written *, void *arg);
void task_announce(struct tasks *, const struct store_task *, const struct said *);
/* The record does not take it while it is away: it is tried again. Nobody is told any more. */
void writes_free(struct tasks *);
void writes_on_again(struct loop_timer *);     /* of write_again */
void writes_forget(struct tasks *, void *arg); /* whose on_written is not to come */

double tasks_dice(struct tasks *); /* tasks.c: 0 <= dice < 1 */

/* queue.c */
void queue_init(struct tasks *);
void queue_fini(struct tasks *);
void queue_hint(struct tasks *);                             /* there may be something to claim */
void queue_hint_all(struct tasks *);                         /* .. for others, too */
void queue_later(struct tasks *, uint64_t delay_ms);         /* .. then */
void queue_go_on(struct tasks *);                            /* a place is free */
void queue_adopt(struct tasks *, const struct store_task *); /* ours, without our knowing */
struct run *run_of(struct tasks *, const char *id);

/* quota.c */
void quotas_init(struct tasks *);
void quotas_fini(struct tasks *);
void quotas_forget_idle(struct tasks *);
void quota_enter(struct tasks *, struct quota_ask *, const char *app_id);
void quota_leave(struct quota_ask *); /* after a 0: the record has it, or not */

/* run.c */
struct run *run_new(struct tasks *, const struct store_task *);
void run_start(struct run *);     /* it has a place */
void run_drop(struct run *);      /* it is not ours any more: the provider is stopped */
void run_give_back(struct run *); /* at once, for others */
void run_succeed(struct run *, struct str result_json);
void run_fail(struct run *, int err, const char *message, enum task_again, uint32_t retry_after_ms);
void run_place_give(struct run *);
void run_account(struct run *, const struct relay_report *); /* of the call; once */
void run_progress(struct run *, int progress, const char *message);
void run_wait_for_job(struct run *); /* holding no place */

/* call.c: JSON as providers write it; NULL: it is none. In texts \u0000 is a character; a number
 * that no integer holds is a real. The record has it as it came. */
json_t *answer_parse(struct str);

/* call.c, job.c: what it asks the provider. False: it was ended. */
bool model_prepare(struct run *);
void model_start(struct run *);
void model_stop(struct run *);
bool job_prepare(struct run *);
void job_start(struct run *); /* begins the job, or looks at it */
void job_stop(struct run *);
void job_cancel(struct tasks *, const struct store_task *); /* at the provider; nobody waits */

/* lease.c */
void lease_init(struct tasks *);
void lease_fini(struct tasks *);
void lease_drain(struct tasks *);

/* untold.c */
void untold_init(struct tasks *);
void untold_fini(struct tasks *);

#endif
