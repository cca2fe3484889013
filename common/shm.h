/*
 * shm - the host's shared memory: a versioned memfd made by the master before
 * the first fork and inherited by every worker.
 *
 * It holds the table of incarnations, the metric rows, the limiter, the state of
 * model providers, the owner tables, the counts of peers, the log of events. No lock in it can be
 * kept by a dead holder: rows have one writer, shared cells are changed by compare-and-swap. What a
 * worker that was killed at any instruction leaves behind is either complete or is ignored.
 */
#ifndef COMMON_SHM_H
#define COMMON_SHM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * An incarnation: one life of one worker. `row` is where its data is (metrics,
 * owner table, gauges), 0 <= row < rows; `number` grows with every spawn of the
 * host and is never used twice, so a row's old inhabitant is told from its new
 * one. number 0 is nobody.
 */
struct shm_who {
	uint32_t row;
	uint32_t number;
};

enum shm_state { SHM_FREE, SHM_STARTING, SHM_READY, SHM_DRAINING, SHM_DEAD };

enum { SHM_BUS_NAME_MAX = 16, SHM_LEFT_MAX = 8 };

struct shm; /* a mapping */
struct tickets;

/* What the master asks for: room for N slots, with 2N+4 rows. NULL and errno on failure. */
struct shm *shm_create(uint32_t slots);
/* An inherited one; NULL with EPROTO when it is of another version. Of other metrics alone: they
 * are counted anew, in memory that this process and its children share. Takes the fd, unless NULL.
 */
struct shm *shm_attach(int fd);
int shm_fd(const struct shm *);
void shm_free(struct shm **); /* unmaps and closes */

uint32_t shm_slots(
    const struct shm *); /* at most so many workers at once, but for those that drain */
uint32_t shm_rows(const struct shm *);
uint32_t shm_rows_used(const struct shm *); /* the first of them: the others were never claimed */
uint32_t shm_workers(const struct shm *);   /* as many as are configured now */
uint64_t shm_host_id(const struct shm *);   /* random, made with the memory */
int64_t shm_started_wall_ms(const struct shm *);

/* The master's verbs. */
bool shm_row_claim(
    struct shm *, uint32_t slot, int pid, struct shm_who *ret); /* false: no row is free */
/* Its gauges and owners are dropped, its counters stay in the row (metric.h), the row is free.
 * Somebody else's number: nothing happens. */
void shm_row_reap(struct shm *, struct shm_who);
void shm_row_set_pid(struct shm *, struct shm_who, int pid);

/* The worker's verbs, on its own row. */
void shm_row_set_state(struct shm *, struct shm_who, enum shm_state);
void shm_row_set_bus_name(struct shm *, struct shm_who, const char *name, size_t len);

/* The request that is being handled, or was the last: who finds the worker dead can say what it was
 * at. fingerprint: of method, path and body, even. */
enum { SHM_REQUEST_NAME_MAX = 40 };
void shm_row_begin_request(
    struct shm *, struct shm_who, uint64_t fingerprint, const char *name, size_t len);
void shm_row_end_request(struct shm *, struct shm_who);

struct shm_request {
	uint64_t fingerprint;
	bool is_under_way;
	char name[SHM_REQUEST_NAME_MAX + 1]; /* cut */
};
/* The master's, before it reaps. False: there was none. */
bool shm_row_request(const struct shm *, struct shm_who, struct shm_request *ret);

/* Anyone's. Consistent snapshots. */
struct shm_row_info {
	struct shm_who who;
	uint32_t slot;
	int pid;
	enum shm_state state;
	char bus_name[SHM_BUS_NAME_MAX]; /* abstract socket name without the leading NUL */
	uint8_t bus_name_len;            /* 0: none yet */
};
bool shm_row_get(const struct shm *, uint32_t row, struct shm_row_info *ret); /* false: free */
bool shm_row_was_used(const struct shm *, uint32_t row); /* had an inhabitant, ever */
bool shm_is_alive(
    const struct shm *, struct shm_who); /* its row still holds this number and is not dead */
/*
 * What a dead one has left to others, until one of them has settled it: its successor, too, who
 * never met it. The master keeps the last SHM_LEFT_MAX of a row. The next one after that number;
 * false: none.
 */
bool shm_row_left(const struct shm *, uint32_t row, uint32_t after, struct shm_who *ret);
bool shm_is_left(const struct shm *, struct shm_who);
void shm_settle(struct shm *, struct shm_who);
/* Is none of those in lower rows ready? Who does for all what one of a host does. */
bool shm_is_first(const struct shm *, struct shm_who);

/* Parts of the memory that other modules lay out themselves. Never NULL. */
void *shm_metrics(const struct shm *, size_t *ret_len);
void *shm_limiter(const struct shm *, size_t *ret_len);
void *shm_upstreams(const struct shm *, size_t *ret_len);
void *shm_owners(const struct shm *, uint32_t row, size_t *ret_len);
void *shm_peers(const struct shm *, uint32_t row, size_t *ret_len);
void *shm_event_log(const struct shm *);
struct tickets *shm_tickets(const struct shm *);
/* Whole pages of such a part become zero and are given back to the kernel. */
void shm_punch(const struct shm *, void *at, size_t len);
/* A few shared words for elections, generations and flags, by name. */
enum shm_word {
	SHM_WORD_STORE_WRITER,    /* who writes SQLite: row << 32 | number */
	SHM_WORD_KEYS_GENERATION, /* grows when a key is revoked; a new one nobody has cached */
	SHM_WORD_IS_DRAINING,     /* the host is stopping */
	SHM_WORD_RESTARTS,
	SHM_WORD_BACKPLANE_AWAY, /* 1: somebody has warned that Redis is */
	SHM_WORD_WORKERS,        /* as configured; 0: all slots */
	SHM_WORD_CRASHING,       /* so many slots whose workers die again and again */
	SHM_WORD_STATS_SEEN, /* when the fleet's sums were last seen to be fresh, monotonic ms */
	SHM_WORD_PIPES,      /* the name of the master's socket for them (pipes.h); 0: none */
	SHM_WORD_MCP_KEY,    /* four: what ids of MCP sessions are sealed with; random, whoever is
				first */
	SHM_WORD_MCP_KEY_LAST = SHM_WORD_MCP_KEY + 3,
	SHM_WORD_CONFIG, /* a hash of what is configured, */
	SHM_WORD_MODELS, /* .. and of its models */
	SHM_WORD_COUNT = 64
};
_Atomic uint64_t *shm_word(const struct shm *, enum shm_word);

#endif
