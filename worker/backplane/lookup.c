/*
 * lookup - who runs a turn or waits for a tool call: in the shared memory of this host, else as
 * Redis knows. An answer that is known at once comes by a post.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "common/owners.h"
#include "worker/backplane/backplane_impl.h"

struct lookup {
	struct list node;
	struct loop_post post;
	int err;
	struct backplane_addr addr;
	backplane_on_owner *on_owner;
	void *arg;
};

bool
backplane_own(struct backplane *b, const struct id *id)
{
	if (b->hosts != NULL)
		hosts_own(b->hosts, id);
	return owners_add(b->shm, b->me, id);
}

void
backplane_disown(struct backplane *b, const struct id *id)
{
	if (b->hosts != NULL)
		hosts_disown(b->hosts, id);
	owners_remove(b->shm, b->me, id);
}

static void
on_lookup_done(struct loop_post *post)
{
	struct lookup l = *container_of(post, struct lookup, post);

	list_del(&container_of(post, struct lookup, post)->node);
	free(container_of(post, struct lookup, post));
	l.on_owner(l.arg, l.err, l.addr);
}

void
backplane_find_owner(
    struct backplane *b, const struct id *id, backplane_on_owner *on_owner, void *arg)
{
	struct shm_who who = {0, 0};
	bool is_here = owners_find(b->shm, id, &who);

	if (!is_here && b->hosts != NULL && hosts_find_owner(b->hosts, id, on_owner, arg))
		return;
	struct lookup *l = xcalloc(1, sizeof(*l));
	l->err = is_here ? 0 : E_NOT_FOUND;
	l->addr = backplane_addr_of(b, who);
	l->on_owner = on_owner;
	l->arg = arg;
	l->post.run = on_lookup_done;
	list_add_tail(&b->lookups, &l->node);
	loop_post(b->loop, &l->post);
}

void
backplane_lookups_init(struct backplane *b)
{
	list_init(&b->lookups);
}

void
backplane_lookups_fini(struct backplane *b)
{
	list_for_safe (node, &b->lookups) {
		struct lookup *l = list_entry(node, struct lookup, node);

		loop_post_cancel(b->loop, &l->post);
		list_del(node);
		free(l);
	}
}
