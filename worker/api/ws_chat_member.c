/* ws_chat_member - chains from a table whose size is a power of two. */
#include "worker/api/ws_chat_member.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"

enum { PLACES_MIN = 16 };

/* The random end of an id. */
static struct chat_member **
place_of(const struct chat_table *t, const uint8_t *session)
{
	uint32_t hash;

	memcpy(&hash, session + CHAT_ID_BITS - sizeof(hash), sizeof(hash));
	return &t->places[hash & (t->place_count - 1)];
}

static void
link_at(struct chat_member **place, struct chat_member *m)
{
	m->next = *place;
	m->at = place;
	if (m->next != NULL)
		m->next->at = &m->next;
	*place = m;
}

static void
grow(struct chat_table *t)
{
	struct chat_table old = *t;

	check(old.place_count <= UINT32_MAX / 2);
	t->place_count = old.place_count > 0 ? old.place_count * 2 : PLACES_MIN;
	t->places = xcalloc(t->place_count, sizeof(struct chat_member *));
	for (uint32_t i = 0; i < old.place_count; i++) {
		for (struct chat_member *m = old.places[i], *next; m != NULL; m = next) {
			next = m->next;
			link_at(place_of(t, m->session), m);
		}
	}
	free(old.places);
}

void
chat_table_add(struct chat_table *t, struct chat_member *m)
{
	if (t->member_count == t->place_count)
		grow(t);
	t->member_count++;
	link_at(place_of(t, m->session), m);
}

void
chat_table_remove(struct chat_table *t, struct chat_member *m)
{
	check(t->member_count > 0 && *m->at == m);
	*m->at = m->next;
	if (m->next != NULL)
		m->next->at = m->at;
	m->next = NULL;
	m->at = NULL;
	t->member_count--;
}

void
chat_table_fini(struct chat_table *t)
{
	check(t->member_count == 0);
	free(t->places);
	*t = (struct chat_table){0};
}

/* Of the chain that begins here. */
static struct chat_member *
find(struct chat_member *m, const uint8_t *session)
{
	while (m != NULL && memcmp(m->session, session, CHAT_ID_BITS) != 0)
		m = m->next;
	return m;
}

struct chat_member *
chat_table_first(const struct chat_table *t, const struct id *session_id)
{
	uint8_t session[CHAT_ID_BITS];

	if (t->member_count == 0)
		return NULL;
	id_bits(session_id, session);
	return find(*place_of(t, session), session);
}

struct chat_member *
chat_table_next(const struct chat_member *m)
{
	return find(m->next, m->session);
}
