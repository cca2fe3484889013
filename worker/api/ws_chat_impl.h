/*
 * ws_chat_impl - what the files of /ws/chat share. Nobody else includes it.
 *
 *   ws_chat.c         all sockets, and one from its upgrade to its end
 *   ws_chat_open.c    a request becomes a socket, or is refused
 *   ws_chat_key.c     the keys that sockets were opened with: do they still hold?
 *   ws_chat_ask.c     one message of a client on its way through asynchronous steps
 *   ws_chat_action.c  what a message may ask for
 *   ws_chat_say.c     .. what a user says becomes a turn
 *   ws_chat_member.c  sessions that sockets follow
 *   ws_chat_follow.c  .. and the turns of those that they are told
 *   ws_chat_audience.c  .. many with one listener
 *   ws_chat_missed.c  turns of other hosts that were not heard of
 *   ws_chat_frame.c   what is sent
 *   ws_chat_handoff.c  idle sockets go to the successor of a worker that drains
 */
#ifndef WORKER_API_WS_CHAT_IMPL_H
#define WORKER_API_WS_CHAT_IMPL_H

#include "common/check.h"
#include "common/crypto.h"
#include "common/idmap.h"
#include "common/strmap.h"
#include "worker/api/call.h"
#include "worker/api/rate.h"
#include "worker/api/ws_chat.h"
#include "worker/api/ws_chat_frame.h"
#include "worker/api/ws_chat_member.h"
#include "worker/api/ws_door.h"
#include "worker/ws/socket.h"

enum { CHAT_SHARED_MAX = 16, CHAT_REQUEST_ID_MAX = 256 };

/* A frame that may go to more sockets in this round of the loop. */
struct chat_shared {
	struct id turn_id;
	uint64_t seq;
	enum turn_event_type type; /* a snapshot has the number of the last that it stands for */
	struct ws_out *out;        /* NULL: none */
};

struct chats {
	struct api *api;
	struct idmap *sockets;    /* struct chat_socket; across a gap only its handle is kept */
	struct strmap *keys;      /* struct chat_key by hash */
	struct chat_table table;  /* of their members */
	struct strmap *audiences; /* struct chat_audience by turn */
	struct list asks;         /* struct chat_ask */
	struct ws_door door;
	struct chat_shared shared[CHAT_SHARED_MAX];
	struct loop_post forget_shared;

	struct list stale_keys; /* struct chat_key: to be looked up again */
	uint32_t rechecks;      /* under way */
	struct loop_timer recheck;
	struct loop_post close_void; /* the sockets of keys that hold no more */

	struct {
		bool is_looking;
		uint32_t cursor, under_way;
	} missed; /* ws_chat_missed.c's */

	bool is_draining;
	bool is_giving;        /* the sweep that gives; the next tells those that are left to go */
	bool is_giving_wanted; /* one has become idle since */
	uint32_t drain_cursor, drain_batch;
	struct chat_hand *giving; /* to the successor; NULL: none */
	struct list takings;      /* struct chat_hand: from predecessors */
	struct chat_heard *heard; /* turns, lately */
	uint64_t heard_count;
	struct loop_timer drain_step, drain_end;
};

struct chat_socket {
	struct ws_socket ws;
	struct chats *chats;
	struct chat_key *key;
	uint64_t handle;
	uint64_t originator;         /* who it is when client tools are called */
	struct limiter_key rate_own; /* whose requests its chats count as */
	struct chat_member *members; /* the first; the others hang on it */
	struct chat_member *present; /* the conversation; NULL: none yet */
	uint16_t ask_count, member_count, follow_count;
	bool is_opening_session, has_waiting;
};

/* ---- ws_chat.c ---- */

void chat_socket_open(struct chats *, struct http_req *, const struct principal *,
    const char *accept, const char *protocol);
struct chat_socket *chat_socket_find(struct chats *, uint64_t handle); /* NULL: gone, or closing */
/* Frames that answer: who does not take them is closed. */
void chat_socket_tell(struct chat_socket *, const struct buf *frame);
void chat_socket_tell_error(struct chat_socket *, const struct chat_error *);
void chat_socket_consider_drain(struct chat_socket *); /* something that it waited for has ended */
void chat_socket_say_goodbye(struct chat_socket *);
void chats_drain_on(struct chats *); /* sockets that were given have been answered */
/* An open one of another worker; NULL: not taken, and the fd is the caller's. */
struct chat_socket *chat_socket_adopt(struct chats *, int fd, const struct principal *);
void chat_socket_consider_key(struct chat_socket *); /* closed when it holds no more */

/* ---- ws_chat_open.c ---- */

extern const struct http_route chat_route;

/* ---- ws_chat_key.c: one for all sockets that were opened with it ---- */

struct chat_key {
	struct chats *chats;
	uint32_t refs;
	struct arena arena;
	uint8_t hash[SHA256_LEN];
	enum key_kind kind;
	struct budget_rule budget;
	const char *key_id, *app_id, *device_id; /* device_id NULL: unbound */
	const struct conf_app *app;
	struct rate_of rate; /* own is the socket's */
	struct wheel_entry expiry;
	struct list stale;       /* in stale_keys, if it is to be looked up */
	const char *void_reason; /* NULL: it holds */
};

struct chat_key *chat_key_get(struct chats *, const struct principal *);
void chat_key_put(struct chat_key **);
void chat_keys_init(struct chats *);
void chat_keys_fini(struct chats *);

/* ---- ws_chat_follow.c ---- */

/* A turn that a socket is told: with a listener of its own, in an audience, or, while it is slow,
 * neither. */
struct chat_follow {
	struct chat_follow *next; /* the member's */
	struct chat_member *member;
	struct id turn_id;
	uint64_t listener; /* 0: none */
	struct chat_audience *audience;
	struct list of_audience;
	uint64_t last_seq; /* taken */
	char *request_id;  /* NULL: somebody else's turn */
	bool is_own;       /* its listener says who it is, and nothing is shared */
	bool is_streamed;
	bool has_answer; /* the one chunk of who does not stream is out */
};

struct chat_follow_start {
	const struct id *turn_id;
	uint64_t after_seq;
	const char *request_id; /* NULL: somebody else's turn, or none was given */
	bool is_own;            /* the socket's own turn, or from a place in it that it names */
	bool is_streamed;
};

struct chat_member *chat_member_find(struct chat_socket *, const struct id *session_id);
struct chat_member *chat_member_new(struct chat_socket *, const struct id *session_id);
void chat_members_free(struct chat_socket *);
void chat_members_resume(struct chat_socket *); /* it takes frames again */
/* Tells it a turn's events; one that it is being told begins anew after after_seq. */
void chat_follow(struct chat_member *, const struct chat_follow_start *);
/* The sessions of which a turn is being told, the present one first; ret_ids has room for all. */
size_t chat_members_with_turns(struct chat_socket *, struct id *ret_ids);
/* The turn that the socket's request began and that still runs. */
bool chat_follow_find(
    struct chat_socket *, const char *request_id, struct id *ret_session, struct id *ret_turn);
/* This turn is being told, or was the last that was. */
bool chat_follow_knows(const struct chat_member *, const struct id *turn_id);
/* The session's turn that is being told; false: none. */
bool chat_follow_live(const struct chat_member *, struct id *ret_turn);
/* For the audience: false when it takes no more; its end. */
bool chat_follow_tell(struct chat_follow *, const struct turn_event *);
void chat_follow_end(struct chat_follow *, int err);
/* Those who follow the session are told a turn; not who began it (0: nobody of ours). */
void chat_turn_begun(
    struct chats *, const struct id *session_id, const struct id *turn_id, uint64_t originator);
void chat_follow_init(struct chats *);
void chat_follow_fini(struct chats *);

/* ---- ws_chat_audience.c ---- */

/* False: it needs a listener of its own, at least until it is as far as the others. */
bool chat_audience_join(struct chat_follow *);
/* It has a listener and has been told something: is it as far now? Then that is to be detached. */
bool chat_audience_catch_up(struct chat_follow *);
void chat_audience_leave(struct chat_follow *, bool is_disconnect); /* if it is in one */
void chat_audiences_init(struct chats *);
void chat_audiences_fini(struct chats *);

/* ---- ws_chat_handoff.c ---- */

enum chat_given {
	CHAT_GIVEN,
	CHAT_GIVE_LATER,     /* enough are under way */
	CHAT_GIVE_WHEN_IDLE, /* it is in the midst of something */
	CHAT_NOT_GIVEN,      /* nor will it be */
};
enum chat_given chat_hand_give(struct chat_socket *);
/* This worker has heard of it. */
void chat_hand_turn_begun(struct chats *, const struct id *session_id, const struct id *turn_id);
void chat_hands_init(struct chats *);
void chat_hands_fini(struct chats *);

/* ---- ws_chat_missed.c ---- */

void chat_missed_init(struct chats *);

/* ---- ws_chat_ask.c ---- */

/* What the client sent, until it is answered or done. Its fields are read with fields.h. */
struct chat_ask {
	struct api_call call; /* its body is the payload */
	struct list node;
	struct chats *chats;
	uint64_t socket;
	const char *request_id; /* NULL: none */
	void (*on_session)(struct chat_ask *, struct chat_socket *, struct chat_member *);

	const json_t *input; /* chat */
	const json_t *tools;
	const char *idempotency_key, *model, *metadata_json;
	bool is_streamed, may_queue, cancels_on_disconnect;
	bool is_waiting;                       /* for the session that another one opens */
	bool is_work;                          /* counts as work until its turn does */
	bool is_cancelled;                     /* its turn is to be cancelled when it has begun */
	uint64_t after_seq;                    /* resume */
	const char *tool_call_id, *tool_error; /* tool_result .. */
	const json_t *tool_output;
	struct id *sessions; /* .. tried one after the other */
	size_t session_count, session_next;
};

/* NULL: too many; it was told. */
struct chat_ask *chat_ask_new(struct chat_socket *, json_t *message);
void chat_ask_end(struct chat_ask *);
struct chat_socket *chat_ask_socket(struct chat_ask *); /* NULL: gone */
void chat_ask_fail(
    struct chat_ask *, int err, const char *param, const char *message); /* ends it */
/* payload.session_id, which may be absent where the socket has a conversation. False: it failed. */
bool chat_ask_session_id(struct chat_ask *, bool *ret_is_given);
/* Loads the session, checks that it is of the key's app, makes the socket a member; then
 * on_session, or it fails. */
void chat_ask_with_session(struct chat_ask *,
    void (*on_session)(struct chat_ask *, struct chat_socket *, struct chat_member *));

/* ---- ws_chat_say.c ---- */

void chat_say(struct chat_ask *, struct chat_socket *);

/* ---- ws_chat_action.c ---- */

void chat_on_message(struct chat_socket *, struct str data, bool is_text);

#endif
