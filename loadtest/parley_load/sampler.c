/* sampler - what is under way stands here: the sockets have no room for it. */
#include "loadtest/parley_load/sampler.h"

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/echo.h"
#include "loadtest/parley_load/pacer.h"

enum { TICK_US = 2000, SAMPLES_MAX = 64, LATE_MAX_US = 10000000 };

struct sample {
	struct wsock *ws; /* NULL: free */
	uint32_t life;    /* of the socket: it may have been closed and opened since */
	uint64_t began_us;
};

static struct sample samples[SAMPLES_MAX];
static struct wsock *(*pick_socket)(void);
static struct pacer pacer;
static struct event *timer;

static struct sample *
sample_of(const struct wsock *w)
{
	for (size_t i = 0; i < SAMPLES_MAX; i++) {
		if (samples[i].ws == w)
			return &samples[i];
	}
	return NULL;
}

/* Who has not answered for so long, or is closed, does not any more. */
static void
give_up(struct load *load, uint64_t now_us)
{
	for (size_t i = 0; i < SAMPLES_MAX; i++) {
		struct sample *s = &samples[i];

		if (s->ws == NULL || (s->life == s->ws->life && now_us - s->began_us < LATE_MAX_US))
			continue;
		load->tally->unanswered++;
		s->ws = NULL;
	}
}

static void
take_sample(struct load *load)
{
	struct sample *s = sample_of(NULL);
	struct wsock *w = pick_socket();

	if (s == NULL || w == NULL || sample_of(w) != NULL) {
		load->tally->unanswered += s == NULL;
		return;
	}
	*s = (struct sample){w, w->life, clock_mono_us()};
	wsock_say(w, echo_text(load->options));
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	uint64_t now_us = clock_mono_us();

	(void)fd, (void)what;
	give_up(arg, now_us);
	while (pacer_next(&pacer, now_us) != 0)
		take_sample(arg);
}

void
sampler_start(struct load *load, struct wsock *(*pick)(void))
{
	struct timeval tick = {0, TICK_US};
	double per_s = load->options->samples_per_s / load->options->processes;

	if (per_s <= 0)
		return;
	pick_socket = pick;
	pacer = (struct pacer){.per_s = per_s, .began_us = clock_mono_us()};
	timer = event_new(load->target.base, -1, EV_PERSIST, on_tick, load);
	check(timer != NULL);
	event_add(timer, &tick);
}

bool
sampler_take(struct wsock *w, struct str message)
{
	struct sample *s = sample_of(w);

	if (s == NULL || s->life != w->life || !echo_is_answer(w->load->options, message))
		return false;
	latency_add(&w->load->tally->echo, clock_mono_us() - s->began_us);
	s->ws = NULL;
	return true;
}
