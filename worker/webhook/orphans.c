/*
 * orphans - what dead workers had claimed goes to others at once. Those of this host are seen to
 * die; a dead host's leases end by themselves, sooner than anybody may believe that it is dead. In
 * a record that no other host shares (SQLite's) what a former life had claimed is nobody's.
 *
 * What was on its way may have arrived: it is sent again under the same id.
 */
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/webhook/webhook_impl.h"

enum {
	LATER_MS = 2000, /* what the dead one had sent to the record is there by then, or never */
	AGAIN_MS = 500,  /* the record is away, or the dead one was its writer */
};

static void
note_released(struct webhooks *w, uint64_t count, const char *reason)
{
	if (count == 0)
		return;
	log_info(
	    "webhooks given to others reason=%s count=%llu", reason, (unsigned long long)count);
	metric_add(METRIC_WEBHOOKS, WEBHOOK_OUTCOME_RETURNED, 0, count);
	webhooks_wake(w);
}

static void
on_released(void *arg, int err, uint64_t count)
{
	struct death *death = arg;

	if (err != 0) {
		death_again(death, AGAIN_MS);
		return;
	}
	note_released(container_of(death_of(death), struct webhooks, deaths), count, "worker_dead");
	death_end(death);
}

static void
on_death(struct deaths *deaths, struct death *death, const char *owner)
{
	struct webhooks *w = container_of(deaths, struct webhooks, deaths);

	store_webhook_release(w->store, owner, on_released, death);
}

static void
on_former_released(void *arg, int err, uint64_t count)
{
	if (err == 0) /* else their leases end */
		note_released(arg, count, "former_life");
}

void
orphans_start(struct webhooks *w)
{
	struct backplane_addr self = backplane_self(w->backplane);
	char prefix[OWNER_MAX];

	w->deaths = (struct deaths){.loop = w->loop,
	    .shm = w->shm,
	    .backplane = w->backplane,
	    .later_ms = LATER_MS,
	    .on_death = on_death};
	deaths_start(&w->deaths);
	/* As for turns and tasks: every other number is that of a former life. */
	if (self.who.number == 1 && store_is_host_over(w->store, 0)) {
		owner_format_host(self, prefix);
		store_webhook_release_former(w->store, prefix, on_former_released, w);
	}
}

void
orphans_stop(struct webhooks *w)
{
	deaths_stop(&w->deaths);
}
