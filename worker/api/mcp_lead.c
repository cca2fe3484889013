/*
 * mcp_lead - see mcp_impl.h: a client may have several streams of one session open, also at several
 * workers, and each message goes on one of them only: the newest.
 *
 *   of this worker's streams the newest leads; the others are second
 *   opened -> all workers are told; who has an older one mutes it, and says that there is one
 *   closed -> the next one here leads in its place; none, and others have some: they are told, and
 *             theirs speak again. Should two do so, the older one hears of the newer and is mute.
 *
 * While that is on its way a message may go on two streams, or on none.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/strmap.h"
#include "worker/api/mcp_impl.h"
#include "worker/backplane/owner.h"

enum what { OPENED, CLOSED, MUTED };

struct mcp_leads {
	struct mcp_front *front;
	struct strmap *by_session; /* struct mcp_feed */
};

static struct str
nonce_text(const uint64_t *nonce)
{
	return str_sub((const char *)nonce, sizeof(*nonce));
}

bool
mcp_feed_is_newest(const struct mcp_feed *f)
{
	return !f->is_second && !f->is_muted;
}

static void
put(struct buf *b, enum what what, const struct mcp_feed *f)
{
	backplane_put_u64(b, what);
	backplane_put_u64(b, f->session);
	backplane_put_u64(b, (uint64_t)f->opened_ms);
}

static void
tell(const struct mcp_feed *f, enum what what, const struct backplane_addr *to)
{
	struct backplane *backplane = f->front->api->backplane;
	struct buf b = BUF_INIT;

	put(&b, what, f);
	if (to != NULL)
		backplane_cast(backplane, *to, BACKPLANE_MCP_STREAM, buf_str(&b));
	else
		backplane_broadcast(backplane, BACKPLANE_MCP_STREAM, buf_str(&b), NULL, NULL);
	buf_fini(&b);
}

void
mcp_lead_open(struct mcp_feed *f, uint64_t session)
{
	struct mcp_leads *leads = f->front->leads;
	struct mcp_feed *before = strmap_get(leads->by_session, nonce_text(&session));

	f->opened_ms = clock_wall_ms();
	if (before != NULL) {
		before->is_second = true;
		f->has_seconds = true;
		f->has_others = before->has_others || before->is_muted;
	}
	strmap_set(leads->by_session, nonce_text(&session), f);
	tell(f, OPENED, NULL);
}

/* The newest are last. */
static struct mcp_feed *
find_next(const struct mcp_feed *f)
{
	struct mcp_feed *next = NULL;

	list_for (node, mcp_feeds_all(f->front)) {
		struct mcp_feed *other = list_entry(node, struct mcp_feed, node);

		if (other != f && other->session == f->session)
			next = other;
	}
	return next;
}

void
mcp_lead_close(struct mcp_feed *f)
{
	struct mcp_leads *leads = f->front->leads;
	struct mcp_feed *next;

	if (f->is_second)
		return;
	next = f->has_seconds ? find_next(f) : NULL;
	if (next != NULL) {
		next->is_second = false;
		next->has_seconds = true;
		next->opened_ms = f->opened_ms;
		next->is_muted = f->is_muted;
		next->muter = f->muter;
		next->has_others = f->has_others;
		strmap_set(leads->by_session, nonce_text(&f->session), next);
		return;
	}
	strmap_del(leads->by_session, nonce_text(&f->session));
	if (f->has_others && !f->is_muted)
		tell(f, CLOSED, NULL);
}

/* ---- others ---- */

static bool
is_newer(const struct mcp_leads *leads, const struct backplane_call *theirs, int64_t their_ms,
    const struct mcp_feed *mine)
{
	struct backplane_addr self = backplane_self(leads->front->api->backplane);

	if (their_ms != mine->opened_ms)
		return their_ms > mine->opened_ms;
	return theirs->from.host != self.host ? theirs->from.host > self.host
					      : theirs->from.who.row > self.who.row;
}

static void
speak_again(struct mcp_feed *f)
{
	f->is_muted = false;
	f->has_others = true;
	tell(f, OPENED, NULL);
}

static void
on_stream(void *arg, const struct backplane_call *call)
{
	struct mcp_leads *leads = arg;
	struct str rest = call->payload;
	uint64_t what, session, their_ms;
	struct mcp_feed *f;

	if (!backplane_take_u64(&rest, &what) || !backplane_take_u64(&rest, &session) ||
	    !backplane_take_u64(&rest, &their_ms))
		return;
	f = strmap_get(leads->by_session, nonce_text(&session));
	if (f == NULL)
		return;
	if (what == MUTED) {
		f->has_others = true;
	} else if (what == CLOSED) {
		if (f->is_muted && owner_equal(f->muter, call->from))
			speak_again(f);
	} else if (is_newer(leads, call, (int64_t)their_ms, f)) {
		f->is_muted = true;
		f->muter = call->from;
		tell(f, MUTED, &call->from);
	} else if (!f->is_muted) {
		f->has_others = true;
		tell(f, OPENED, &call->from);
	}
}

static void
on_peer_gone(void *arg, struct backplane_addr peer)
{
	struct mcp_leads *leads = arg;

	list_for (node, mcp_feeds_all(leads->front)) {
		struct mcp_feed *f = list_entry(node, struct mcp_feed, node);

		if (f->is_muted && !f->is_second && owner_equal(f->muter, peer))
			speak_again(f);
	}
}

struct mcp_leads *
mcp_leads_new(struct mcp_front *front)
{
	struct mcp_leads *leads = xcalloc(1, sizeof(*leads));

	leads->front = front;
	leads->by_session = strmap_new();
	backplane_serve(front->api->backplane, BACKPLANE_MCP_STREAM, on_stream, leads);
	backplane_on_peer_gone(front->api->backplane, on_peer_gone, leads);
	return leads;
}

void
mcp_leads_free(struct mcp_leads **ref)
{
	struct mcp_leads *leads = *ref;

	if (leads == NULL)
		return;
	*ref = NULL;
	strmap_free(&leads->by_session);
	free(leads);
}
