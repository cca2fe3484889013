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

void
members_fini(struct members *m)
{
	free(m->list);
	*m = (struct members){.list = NULL};
}
