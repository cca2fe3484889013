/* members - see members.h. */
#include "worker/backplane/members.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/backplane/owner.h"

static int
compare(const void *a, const void *b)
{
	const struct backplane_addr *x = a, *y = b;

	if (x->host != y->host)
		return x->host < y->host ? -1 : 1;
	if (x->who.row != y->who.row)
		return x->who.row < y->who.row ? -1 : 1;
	return x->who.number < y->who.number ? -1 : x->who.number > y->who.number;
}

static bool
has(const struct backplane_addr *list, size_t count, struct backplane_addr addr)
{
	return count > 0 && bsearch(&addr, list, count, sizeof(addr), compare) != NULL;
}

void
members_replace(struct members *m, const struct backplane_addr *list, size_t count,
    uint64_t asked_ms, void (*on_gone)(void *arg, struct backplane_addr), void *arg)
{
	struct backplane_addr *old = m->list;
	size_t old_count = m->count;

	check(count <= MEMBERS_MAX);
	m->list = xcalloc(count > 0 ? count : 1, sizeof(*list));
	if (count > 0)
		memcpy(m->list, list, count * sizeof(*list));
	m->count = count;
	m->asked_ms = asked_ms;
	qsort(m->list, count, sizeof(*list), compare);
	for (size_t i = 0; i < old_count && on_gone != NULL; i++) {
		if (!has(m->list, m->count, old[i]))
			on_gone(arg, old[i]);
	}
	free(old);
}

static bool
has_host(const struct members *m, uint64_t host)
{
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].host == host)
			return true;
	return false;
}

/* Since when it is asked about; the oldest doubts are forgotten first, and begin anew. */
static uint64_t
doubted_since_ms(struct members *m, uint64_t host, uint64_t now_ms)
{
	for (size_t i = 0; i < m->doubt_count; i++)
		if (m->doubts[i].host == host)
			return m->doubts[i].since_ms;
	m->doubts[m->doubt_next].host = host;
	m->doubts[m->doubt_next].since_ms = now_ms;
	m->doubt_next = (m->doubt_next + 1) % MEMBERS_DOUBTS_MAX;
	if (m->doubt_count < MEMBERS_DOUBTS_MAX)
		m->doubt_count++;
	return now_ms;
}

bool
members_is_host_gone(struct members *m, uint64_t host, uint64_t now_ms, bool *ret_ask)
{
	*ret_ask = false;
	if (has_host(m, host))
		return false;
	if (m->asked_ms > doubted_since_ms(m, host, now_ms))
		return true;
	*ret_ask = true;
	return false;
}

void
members_fini(struct members *m)
{
	free(m->list);
	*m = (struct members){.list = NULL};
}
