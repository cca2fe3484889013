/*
 * ws_chat_member - which sessions sockets follow, and who follows a session.
 *
 * One small record for each pair, in a table of this worker by session and in a
 * list of the socket: an idle socket costs this and its struct, therefore ids are
 * bits, not text. Session ids are made by servers and are known to exist before
 * they come here: nobody can choose them so that they collide.
 */
#ifndef WORKER_API_WS_CHAT_MEMBER_H
#define WORKER_API_WS_CHAT_MEMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/id.h"

struct chat_socket;
struct chat_follow;

enum { CHAT_ID_BITS = 16 }; /* bytes */

struct chat_member {
	struct chat_member *next, **at; /* in the table */
	struct chat_member *of_socket;  /* the socket's next */
	struct chat_socket *socket;
	struct chat_follow *follows; /* ws_chat_follow.c's */
	uint8_t session[CHAT_ID_BITS];
	uint8_t last_turn[CHAT_ID_BITS]; /* which it was told, or is being told; 0: none */
};

/* Zeroed before first use. Twice as many places as members at most, once there are 16. */
struct chat_table {
	struct chat_member **places;
	uint32_t place_count, member_count;
};

/* The members are the caller's. One is added after its session and socket are set. */
void chat_table_add(struct chat_table *, struct chat_member *);
void chat_table_remove(struct chat_table *, struct chat_member *);
void chat_table_fini(struct chat_table *); /* empty */

/* Those of a session: the first, and the one after `m`; NULL: no more. The table does not change
 * meanwhile. */
struct chat_member *chat_table_first(const struct chat_table *, const struct id *session_id);
struct chat_member *chat_table_next(const struct chat_member *m);

static inline struct id
chat_member_session(const struct chat_member *m)
{
	return id_of_bits("sess", m->session);
}

#endif
