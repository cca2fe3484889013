/* ticket_keys - a timer, and what period it is. */
#include "master/ticket_keys.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/tickets.h"
#include "master/timer.h"

enum { LOOK_MAX_MS = 60 * 1000, LOOK_PARTS = 60 };

struct ticket_keys {
	struct tickets *tickets;
	struct event *look;
	char *secret;
	uint64_t lifetime_ms;
	uint64_t period;    /* of the secret */
	uint64_t turned_ms; /* random ones, when */
};

static uint64_t
present_period(const struct ticket_keys *k)
{
	return (uint64_t)clock_wall_ms() / k->lifetime_ms;
}

static void
turn(struct ticket_keys *k)
{
	k->period = present_period(k);
	k->turned_ms = clock_mono_ms();
	tickets_turn(k->tickets, str_of(k->secret), k->period);
}

/* Often, because the clock on the wall may step. */
static void
look_again(struct ticket_keys *k)
{
	uint64_t look_ms = k->lifetime_ms / LOOK_PARTS;

	timer_set(k->look, look_ms < LOOK_MAX_MS ? look_ms : LOOK_MAX_MS);
}

static void
on_look(int fd, short what, void *arg)
{
	struct ticket_keys *k = arg;

	(void)fd, (void)what;
	if (k->secret[0] != '\0' ? present_period(k) != k->period
				 : clock_mono_ms() - k->turned_ms >= k->lifetime_ms)
		turn(k);
	look_again(k);
}

void
ticket_keys_use(struct ticket_keys *k, const struct conf *conf)
{
	struct ticket_key unused;
	bool had_secret = k->secret != NULL && k->secret[0] != '\0';
	bool has_secret = conf->tls.ticket_secret[0] != '\0';

	free(k->secret);
	k->secret = xstrdup(conf->tls.ticket_secret);
	k->lifetime_ms = conf->tls.ticket_lifetime_ms;
	if (has_secret || had_secret || !tickets_get(k->tickets, TICKET_PRESENT, &unused))
		turn(k);
	look_again(k);
}

struct ticket_keys *
ticket_keys_new(struct event_base *base, struct shm *shm, const struct conf *conf)
{
	struct ticket_keys *k = xcalloc(1, sizeof(*k));

	k->tickets = shm_tickets(shm);
	k->look = timer_new(base, on_look, k);
	k->turned_ms = clock_mono_ms();
	ticket_keys_use(k, conf);
	return k;
}

void
ticket_keys_free(struct ticket_keys **ref)
{
	struct ticket_keys *k = *ref;

	if (k == NULL)
		return;
	*ref = NULL;
	event_free(k->look);
	free(k->secret);
	free(k);
}
