/*
 * turn_world - a host for replaying turns: workers with their turns, one record, one
 * model, a clock; and a client that writes down what it hears.
 */
#ifndef T_REPLAY_TURN_WORLD_H
#define T_REPLAY_TURN_WORLD_H

#include "t/replay/fake_backplane.h"
#include "t/replay/fake_holds.h"
#include "t/replay/fake_knowledge.h"
#include "t/replay/fake_loop.h"
#include "t/replay/fake_provider.h"
#include "t/replay/fake_store.h"
#include "worker/turn/turn.h"

enum { WORLD_WORKERS = 3, HEARD_MAX = 512 };

struct worker {
	struct shm_who who;
	struct backplane *backplane;
	struct store *store;
	struct turns *turns; /* NULL: dead */
};

struct world {
	struct conf conf;
	struct loop *loop;
	struct shm *shm;
	struct store *store;
	struct providers *model;
	struct holds *holds;
	struct knowledge *knowledge;
	struct worker workers[WORLD_WORKERS];
	struct id session;
};

/* A turn that a former life of the host has left live in the record. */
#define WORLD_FORMER_TURN "turn_00000000000000000000000000"

extern struct world world;

int world_setup(void **state); /* of a cmocka test */
int world_teardown(void **state);
void world_kill(unsigned worker, bool is_told); /* SIGKILL; the master notices at once */
void world_start_worker(unsigned worker);       /* the successor of one that was killed */
void world_run(uint64_t ms);                    /* time passes; 0: what is ready runs */

/* ---- a request ---- */

struct request {
	struct turn_start start;
	json_t *input, *tools;
	unsigned answers;
	int err;
	struct turn_started started;
	char message[128];
};

/* Defaults: the world's session, app demo, that text. Then change what you need, and send. */
void request_init(struct request *, const char *text);
void request_send(struct request *, unsigned worker);
/* Both, and the turn has begun. */
struct id world_begin(unsigned worker, const char *text);
/* With a tool `weather` for the client. */
struct id world_begin_with_tools(unsigned worker, const char *text);

/* ---- a client ---- */

struct client {
	unsigned worker;
	uint64_t listener;
	struct {
		enum turn_event_type type;
		uint64_t seq;
		json_t *data;
	} heard[HEARD_MAX];
	unsigned count;
	unsigned ends;
	int end_err;
	unsigned refuse_from; /* the how-manieth event it cannot take; 0: takes all */
};

void client_attach(struct client *, unsigned worker, const struct id *turn, uint64_t after_seq);
void client_attach_as(struct client *, unsigned worker, const struct id *turn, uint64_t after_seq,
    uint64_t originator);
void client_leave(struct client *, bool is_disconnect);
void client_forget(struct client *); /* frees what it wrote down */
/* Its events' names in a row: "turn.started text.delta .." */
void client_expect(const struct client *, const char *names);
void client_expect_text(const struct client *, const char *text); /* of its deltas */
const json_t *client_last(
    const struct client *, enum turn_event_type); /* its newest of that type */
const char *client_last_text(const struct client *, enum turn_event_type, const char *member);
/* Every number from first on, without a gap. */
void client_expect_seqs(const struct client *, uint64_t first);

/* ---- results and questions: they run until they are answered ---- */

struct answer_seen {
	unsigned answers;
	int err;
	bool is_same;
	json_t *state;
};

void world_give_result(struct answer_seen *, unsigned worker, const char *call_id,
    const char *output_json, const char *error);
void world_ask(struct answer_seen *, unsigned worker, const struct id *turn, uint32_t wait_ms);
void world_cancel(struct answer_seen *, unsigned worker, const struct id *turn);
const char *answer_text(const struct answer_seen *, const char *member);

#endif
