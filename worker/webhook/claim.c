/*
 * claim - the second half of a cycle: of those endpoints whose turn it is so many webhooks are
 * claimed as this worker can hold, a few endpoints after the others; see webhooks.c.
 *
 * What nobody has seen yet is thought to be large. What was claimed counts as it is, so the next
 * endpoints get what is left; who has to stand back is the first in the next cycle.
 */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "worker/webhook/webhook_impl.h"

static uint64_t
lease_ms(const struct webhooks *w)
{
	return 2 * w->conf->timeout_ms + LEASE_GRACE_MS;
}

static int
by_endpoint(const void *a, const void *b)
{
	const struct store_webhook_want *x = a, *y = b;

	return strcmp(x->endpoint_id, y->endpoint_id);
}

static int
compare_rows(const struct store_webhook *a, const struct store_webhook *b)
{
	int order = strcmp(a->endpoint_id, b->endpoint_id);

	return order != 0 ? order : strcmp(a->order_key, b->order_key);
}

static int
by_order(const void *a, const void *b)
{
	const struct store_webhook *x = *(const struct store_webhook *const *)a;
	const struct store_webhook *y = *(const struct store_webhook *const *)b;
	int order = compare_rows(x, y);

	return order != 0 ? order : (x->position > y->position) - (x->position < y->position);
}

/* Those of equal order one behind the other. */
static void
take(struct webhooks *w, const struct store_webhook *rows, size_t count)
{
	const struct store_webhook **order = xcalloc(count + 1, sizeof(struct store_webhook *));
	struct message *first = NULL;

	for (size_t i = 0; i < count; i++)
		order[i] = &rows[i];
	qsort(order, count, sizeof(struct store_webhook *), by_order);
	for (size_t i = 0; i < count; i++) {
		struct target *t = strmap_get(w->targets, str_of(order[i]->endpoint_id));
		bool is_behind = i > 0 && compare_rows(order[i - 1], order[i]) == 0;
		struct message *m;

		check(t != NULL);
		t->quiet_until_ms = 0;
		m = target_take(t, order[i], lease_ms(w), is_behind ? first : NULL);
		first = is_behind ? first : m;
	}
	free(order);
}

static void
on_claimed(void *arg, int err, const struct store_webhook *rows, size_t count, bool has_more)
{
	struct webhooks *w = arg;
	uint64_t quiet_until_ms = loop_now_ms(w->loop) + QUIET_MS;

	(void)has_more;
	for (size_t i = w->claim_from; i < w->claim_to; i++)
		w->wanted[i]->quiet_until_ms = quiet_until_ms;
	take(w, rows, count);
	for (size_t i = w->claim_from; i < w->claim_to; i++) {
		if (w->is_draining)
			target_give_back(w->wanted[i]);
		else
			target_pump(w->wanted[i]);
	}
	if (err != 0)
		log_warn("webhooks not claimed reason=%s", err_info(err)->code);
	if (err != 0 && w->next_ms < SETTLE_AGAIN_MS)
		w->next_ms = SETTLE_AGAIN_MS;
	if (err != 0 || w->is_draining)
		webhooks_end_cycle(w);
	else
		claim_wanted(w);
}

/* This worker takes more than it holds and so many. */
static bool
takes_more(const struct webhooks *w, size_t count, size_t bytes)
{
	return w->held + count < HELD_MAX && w->held_bytes + bytes < HELD_BYTES_MAX;
}

/* Of the next that are wanted, as long as all that they may bring has room: of how many. */
static size_t
choose(struct webhooks *w, struct store_webhook_want *wants)
{
	size_t n = 0, count = 0, bytes = 0;

	w->claim_from = w->claim_to;
	for (; w->claim_to < w->wanted_count && takes_more(w, count, bytes); w->claim_to++) {
		const struct target *t = w->wanted[w->claim_to];
		uint32_t room = target_room(t);

		if (room == 0)
			continue;
		wants[n++] = (struct store_webhook_want){t->id, room, target_in_a_row(t, room)};
		count += room;
		bytes += target_weight(t, room);
	}
	qsort(wants, n, sizeof(*wants), by_endpoint);
	return n;
}

/* Who is left has to wait for results, or for others, and has its turn first then. */
static void
stand_back(struct webhooks *w)
{
	free(w->first);
	w->first = NULL;
	if (w->claim_to == w->wanted_count)
		return;
	w->first = xstrdup(w->wanted[w->claim_to]->id);
	webhooks_tell_others(w);
}

void
claim_wanted(struct webhooks *w)
{
	struct store_webhook_want *wants = xcalloc(w->wanted_count + 1, sizeof(*wants));
	size_t count = choose(w, wants);

	if (count > 0) {
		store_webhook_claim(w->store, w->owner, wants, count, lease_ms(w), on_claimed, w);
	} else {
		stand_back(w);
		webhooks_end_cycle(w);
	}
	free(wants);
}
