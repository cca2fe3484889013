/* deaths - see deaths.h. */
#include "worker/backplane/deaths.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/backplane/owner.h"

enum {
	LOOK_MS = 50,
	PATIENCE_MS = 20000, /* then only its connection broke, and it lives */
};

struct death {
	struct list node;
	struct deaths *deaths;
	struct shm_who who;
	struct loop_timer look;
	uint64_t since_ms;
	bool has_waited;
};

struct deaths *
death_of(struct death *d)
{
	return d->deaths;
}

void
death_end(struct death *d)
{
	loop_timer_stop(d->deaths->loop, &d->look);
	list_del(&d->node);
	free(d);
}

void
death_again(struct death *d, uint64_t delay_ms)
{
	loop_timer_set(d->deaths->loop, &d->look, delay_ms);
}

static void
on_look(struct loop_timer *timer)
{
	struct death *d = container_of(timer, struct death, look);
	struct deaths *deaths = d->deaths;
	char owner[OWNER_MAX];

	if (shm_is_alive(deaths->shm, d->who)) {
		if (loop_now_ms(deaths->loop) - d->since_ms > PATIENCE_MS)
			death_end(d);
		else
			death_again(d, LOOK_MS);
	} else if (!d->has_waited && !shm_is_first(deaths->shm, deaths->self.who)) {
		d->has_waited = true;
		death_again(d, deaths->later_ms);
	} else {
		owner_format((struct backplane_addr){deaths->self.host, d->who}, owner);
		deaths->on_death(deaths, d, owner);
	}
}

static void
on_peer_gone(void *arg, struct backplane_addr peer)
{
	struct deaths *deaths = arg;
	struct death *d;

	if (peer.host != deaths->self.host)
		return;
	d = xcalloc(1, sizeof(*d));
	d->deaths = deaths;
	d->who = peer.who;
	d->since_ms = loop_now_ms(deaths->loop);
	d->look.on_fire = on_look;
	list_add_tail(&deaths->all, &d->node);
	loop_timer_set(deaths->loop, &d->look, 0);
}

void
deaths_start(struct deaths *deaths)
{
	list_init(&deaths->all);
	deaths->self = backplane_self(deaths->backplane);
	backplane_on_peer_gone(deaths->backplane, on_peer_gone, deaths);
}

void
deaths_stop(struct deaths *deaths)
{
	list_for_safe (node, &deaths->all)
		death_end(list_entry(node, struct death, node));
}
