/*
 * shm - one memfd: a head, the rows of the incarnations, then the parts of the
 * modules. It is large on paper and sparse in truth: only touched pages exist.
 *
 *   head | rows | limiter | upstreams | owners of row 0 | .. | peers of row 0 | .. | events |
 * metrics
 *
 * The metrics come last: releases add some, and one that has others than the memory was made for
 * counts in memory of its own, which ends with it. All the rest must be the same.
 *
 * A row's identity is one word, number << 32 | state. Who reads a row reads the
 * identity, then the rest, then the identity again: an unchanged number means
 * that all of it belongs together, because the rest is written only before a new
 * number is published (slot) or carries the number itself (bus name).
 *
 * Claiming and reaping are for masters, of which an upgrade has two: they hold a
 * POSIX record lock on the memfd meanwhile, which the kernel drops with its holder.
 * A row that a killed master left half claimed or half reaped is DEAD, and the next
 * claim cleans it again: cleaning twice does no harm.
 */
#include "common/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/event_log.h"
#include "common/limiter.h"
#include "common/metric.h"
#include "common/owners.h"
#include "common/peers.h"
#include "common/tickets.h"
#include "common/upstreams.h"

#define SHM_MAGIC 0x31594c5241505359ULL

/* Another one when the memory, a message between workers, or an operation that workers send to the
 * writer of SQLite has another form: a new binary beside the old one would not be understood. */
enum { SHM_VERSION = 8, PAGE = 4096, SHM_SLOTS_MAX = 1024 };

/* Everything that must be equal in two binaries that share the memory; at last what need not be. */
struct shm_shape {
	uint64_t magic;
	uint32_t version, slots, rows, head_bytes;
	uint64_t limiter_at, limiter_bytes;
	uint64_t upstreams_at, upstreams_bytes;
	uint64_t owners_at, owners_bytes; /* bytes: of one row */
	uint64_t peers_at, peers_bytes;   /* the same */
	uint64_t events_at, events_bytes;
	uint64_t metrics_at;
	uint64_t metrics_bytes, metric_hash; /* names and sizes of metric.tbl */
	uint64_t total_bytes;
};

struct shm_row {
	_Atomic uint64_t identity; /* number << 32 | state */
	_Atomic uint32_t slot;
	_Atomic int pid;
	_Atomic uint64_t bus_tag; /* number << 32 | length: whose the name is */
	_Atomic uint64_t bus_name[SHM_BUS_NAME_MAX / 8];
	_Atomic uint32_t left[SHM_LEFT_MAX]; /* numbers of the dead, 0: none */
	_Atomic uint64_t request;            /* fingerprint; its lowest bit: it is being handled */
	_Atomic uint64_t request_name[SHM_REQUEST_NAME_MAX / 8];
	uint64_t pad[1]; /* to two cache lines */
};

struct shm_head {
	struct shm_shape shape;
	uint64_t host_id;
	int64_t started_wall_ms;
	_Atomic uint32_t last_number;
	_Atomic uint32_t rows_used; /* those from here on never had an inhabitant */
	struct tickets tickets;
	_Atomic uint64_t words[SHM_WORD_COUNT];
};

struct shm {
	struct shm_head *head;
	struct shm_row *rows;
	char *metrics;
	bool has_own_metrics;
	uint64_t metrics_bytes;
	int fd;
};

_Static_assert(sizeof(struct shm_row) == 128, "a row is two cache lines");
_Static_assert(sizeof(struct shm_head) <= PAGE, "the head is one page");

static uint64_t
page_up(uint64_t n)
{
	return (n + PAGE - 1) / PAGE * PAGE;
}

static struct shm_shape
shape_of(uint32_t slots)
{
	uint32_t rows = 2 * slots + 4;
	struct shm_shape s = {.magic = SHM_MAGIC,
	    .version = SHM_VERSION,
	    .slots = slots,
	    .rows = rows,
	    .head_bytes = sizeof(struct shm_head),
	    .metric_hash = metric_layout_hash()};

	s.metrics_bytes = page_up(metric_shm_bytes(rows));
	s.limiter_bytes = page_up(limiter_shm_bytes());
	s.upstreams_bytes = page_up(upstreams_shm_bytes());
	s.owners_bytes = page_up(owners_shm_bytes());
	s.peers_bytes = page_up(peers_shm_bytes());
	s.limiter_at = PAGE + page_up(rows * sizeof(struct shm_row));
	s.upstreams_at = s.limiter_at + s.limiter_bytes;
	s.owners_at = s.upstreams_at + s.upstreams_bytes;
	s.peers_at = s.owners_at + rows * s.owners_bytes;
	s.events_bytes = page_up(event_log_shm_bytes(rows));
	s.events_at = s.peers_at + rows * s.peers_bytes;
	s.metrics_at = s.events_at + s.events_bytes;
	s.total_bytes = s.metrics_at + s.metrics_bytes;
	return s;
}

static void *
map_bytes(int fd, uint64_t bytes)
{
	int flags = MAP_SHARED | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0);
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	return at != MAP_FAILED ? at : NULL;
}

static struct shm *
map(int fd, const struct shm_shape *shape)
{
	char *at = map_bytes(fd, shape->total_bytes);

	if (at == NULL)
		return NULL;
	struct shm *shm = xcalloc(1, sizeof(*shm));
	shm->head = (struct shm_head *)at;
	shm->rows = (struct shm_row *)(at + PAGE);
	shm->metrics = at + shape->metrics_at;
	shm->metrics_bytes = shape->metrics_bytes;
	shm->fd = fd;
	return shm;
}

/* It was made for other metrics than ours. */
static bool
take_own_metrics(struct shm *shm, uint64_t bytes)
{
	char *at = map_bytes(-1, bytes);

	if (at == NULL)
		return false;
	shm->metrics = at;
	shm->metrics_bytes = bytes;
	shm->has_own_metrics = true;
	return true;
}

struct shm *
shm_create(uint32_t slots)
{
	check(slots >= 1 && slots <= SHM_SLOTS_MAX);
	struct shm_shape shape = shape_of(slots);
	struct shm *shm = NULL;
	int fd = memfd_create("parley", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return NULL;
	if (ftruncate(fd, (off_t)shape.total_bytes) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
	    (shm = map(fd, &shape)) == NULL) {
		int saved = errno;

		close(fd);
		errno = saved;
		return NULL;
	}
	crypto_random(&shm->head->host_id, sizeof(shm->head->host_id));
	shm->head->started_wall_ms = clock_wall_ms();
	shm->head->shape = shape;
	return shm;
}

struct shm *
shm_attach(int fd)
{
	struct shm_shape found, mine;
	struct stat st;

	if (pread(fd, &found, sizeof(found), 0) != sizeof(found) || found.magic != SHM_MAGIC ||
	    found.slots < 1 || found.slots > SHM_SLOTS_MAX) {
		errno = EPROTO;
		return NULL;
	}
	memset(&mine, 0, sizeof(mine));
	mine = shape_of(found.slots);
	if (memcmp(&mine, &found, offsetof(struct shm_shape, metrics_bytes)) != 0 ||
	    fstat(fd, &st) != 0 || (uint64_t)st.st_size != found.total_bytes) {
		errno = EPROTO;
		return NULL;
	}
	struct shm *shm = map(fd, &found);
	if (shm != NULL && found.metric_hash != mine.metric_hash &&
	    !take_own_metrics(shm, mine.metrics_bytes)) {
		munmap(shm->head, found.total_bytes);
		free(shm);
		shm = NULL;
	}
	return shm;
}

void
shm_free(struct shm **shm)
{
	if (*shm == NULL)
		return;
	if ((*shm)->has_own_metrics)
		munmap((*shm)->metrics, (*shm)->metrics_bytes);
	munmap((*shm)->head, (*shm)->head->shape.total_bytes);
	close((*shm)->fd);
	free(*shm);
	*shm = NULL;
}

int
shm_fd(const struct shm *shm)
{
	return shm->fd;
}

uint32_t
shm_slots(const struct shm *shm)
{
	return shm->head->shape.slots;
}

uint32_t
shm_rows(const struct shm *shm)
{
	return shm->head->shape.rows;
}

uint32_t
shm_rows_used(const struct shm *shm)
{
	return atomic_load_explicit(&shm->head->rows_used, memory_order_acquire);
}

uint32_t
shm_workers(const struct shm *shm)
{
	uint64_t workers = atomic_load(shm_word(shm, SHM_WORD_WORKERS));

	return workers > 0 ? (uint32_t)workers : shm_slots(shm);
}

struct tickets *
shm_tickets(const struct shm *shm)
{
	return &shm->head->tickets;
}

uint64_t
shm_host_id(const struct shm *shm)
{
	return shm->head->host_id;
}

int64_t
shm_started_wall_ms(const struct shm *shm)
{
	return shm->head->started_wall_ms;
}

static uint64_t
identity_of(uint32_t number, enum shm_state state)
{
	return (uint64_t)number << 32 | state;
}

static enum shm_state
state_of(uint64_t identity)
{
	return (enum shm_state)(uint32_t)identity;
}

static uint32_t
number_of(uint64_t identity)
{
	return (uint32_t)(identity >> 32);
}

static struct shm_row *
row_at(const struct shm *shm, uint32_t row)
{
	check(row < shm_rows(shm));
	return &shm->rows[row];
}

static void
masters_lock(const struct shm *shm, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};

	while (fcntl(shm->fd, F_SETLKW, &lock) != 0)
		check(errno == EINTR);
}

static void
row_clean(struct shm *shm, uint32_t row)
{
	metric_row_clear_gauges(shm, row);
	owners_row_clear(shm, row);
	peers_row_clear(shm, row);
	event_log_row_clear(shm, row);
	atomic_store_explicit(&shm->rows[row].pid, 0, memory_order_relaxed);
	atomic_store_explicit(&shm->rows[row].request, 0, memory_order_relaxed);
}

/* Under the lock. The oldest makes room when there is none. */
static void
row_leave(struct shm *shm, struct shm_who who)
{
	_Atomic uint32_t *left = shm->rows[who.row].left, *into = &left[0];

	for (size_t i = 0; i < SHM_LEFT_MAX; i++) {
		if (left[i] == who.number)
			return;
		if (left[i] < *into)
			into = &left[i];
	}
	atomic_store(into, who.number);
}

bool
shm_row_claim(struct shm *shm, uint32_t slot, int pid, struct shm_who *ret)
{
	bool is_found = false;

	check(slot < shm_slots(shm));
	masters_lock(shm, F_WRLCK);
	for (uint32_t i = 0; i < shm_rows(shm) && !is_found; i++) {
		struct shm_row *r = &shm->rows[i];
		uint64_t was = atomic_load(&r->identity);

		if (state_of(was) != SHM_FREE && state_of(was) != SHM_DEAD)
			continue;
		if (state_of(was) == SHM_DEAD)
			row_leave(shm, (struct shm_who){i, number_of(was)});
		uint32_t number = atomic_fetch_add(&shm->head->last_number, 1) + 1;
		check(number != 0);
		if (i >= shm_rows_used(shm))
			atomic_store(&shm->head->rows_used, i + 1);
		atomic_store(&r->identity, identity_of(number, SHM_DEAD));
		row_clean(shm, i);
		atomic_store_explicit(&r->slot, slot, memory_order_relaxed);
		atomic_store_explicit(&r->pid, pid, memory_order_relaxed);
		atomic_store(&r->identity, identity_of(number, SHM_STARTING));
		*ret = (struct shm_who){i, number};
		is_found = true;
	}
	masters_lock(shm, F_UNLCK);
	return is_found;
}

/* False: the row has another inhabitant, or none. */
static bool
row_enter(struct shm *shm, struct shm_who who, enum shm_state state)
{
	struct shm_row *r = row_at(shm, who.row);
	uint64_t was = atomic_load(&r->identity);

	do {
		if (number_of(was) != who.number || state_of(was) == SHM_FREE)
			return false;
	} while (!atomic_compare_exchange_weak(&r->identity, &was, identity_of(who.number, state)));
	return true;
}

void
shm_row_reap(struct shm *shm, struct shm_who who)
{
	masters_lock(shm, F_WRLCK);
	if (row_enter(shm, who, SHM_DEAD)) {
		row_leave(shm, who);
		row_clean(shm, who.row);
		row_enter(shm, who, SHM_FREE);
	}
	masters_lock(shm, F_UNLCK);
}

void
shm_row_set_pid(struct shm *shm, struct shm_who who, int pid)
{
	struct shm_row *r = row_at(shm, who.row);

	check(number_of(atomic_load(&r->identity)) == who.number);
	atomic_store_explicit(&r->pid, pid, memory_order_release);
}

void
shm_row_set_state(struct shm *shm, struct shm_who who, enum shm_state state)
{
	check(state == SHM_STARTING || state == SHM_READY || state == SHM_DRAINING);
	row_enter(shm, who, state);
}

void
shm_row_set_bus_name(struct shm *shm, struct shm_who who, const char *name, size_t len)
{
	struct shm_row *r = row_at(shm, who.row);
	uint64_t words[SHM_BUS_NAME_MAX / 8] = {0};

	check(len <= SHM_BUS_NAME_MAX);
	if (!shm_is_alive(shm, who))
		return;
	memcpy(words, name, len);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		atomic_store_explicit(&r->bus_name[i], words[i], memory_order_relaxed);
	atomic_store_explicit(&r->bus_tag, (uint64_t)who.number << 32 | len, memory_order_release);
}

void
shm_row_begin_request(
    struct shm *shm, struct shm_who who, uint64_t fingerprint, const char *name, size_t len)
{
	struct shm_row *r = row_at(shm, who.row);
	uint64_t words[SHM_REQUEST_NAME_MAX / 8] = {0};

	memcpy(words, name, len < sizeof(words) ? len : sizeof(words));
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		atomic_store_explicit(&r->request_name[i], words[i], memory_order_relaxed);
	atomic_store_explicit(&r->request, fingerprint | 1, memory_order_relaxed);
}

void
shm_row_end_request(struct shm *shm, struct shm_who who)
{
	struct shm_row *r = row_at(shm, who.row);
	uint64_t request = atomic_load_explicit(&r->request, memory_order_relaxed);

	atomic_store_explicit(&r->request, request & ~1ULL, memory_order_relaxed);
}

bool
shm_row_request(const struct shm *shm, struct shm_who who, struct shm_request *ret)
{
	struct shm_row *r = row_at(shm, who.row);
	uint64_t request = atomic_load(&r->request);
	uint64_t words[SHM_REQUEST_NAME_MAX / 8];

	if (request == 0 || number_of(atomic_load(&r->identity)) != who.number)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		words[i] = atomic_load_explicit(&r->request_name[i], memory_order_relaxed);
	ret->fingerprint = request & ~1ULL;
	ret->is_under_way = request & 1;
	memcpy(ret->name, words, sizeof(words));
	ret->name[SHM_REQUEST_NAME_MAX] = '\0';
	return true;
}

bool
shm_row_get(const struct shm *shm, uint32_t row, struct shm_row_info *ret)
{
	struct shm_row *r = row_at(shm, row);
	uint64_t words[SHM_BUS_NAME_MAX / 8], before, after, tag;
	struct shm_row_info info;

	do {
		before = atomic_load_explicit(&r->identity, memory_order_acquire);
		if (state_of(before) == SHM_FREE)
			return false;
		info.who = (struct shm_who){row, number_of(before)};
		info.state = state_of(before);
		info.slot = atomic_load_explicit(&r->slot, memory_order_relaxed);
		info.pid = atomic_load_explicit(&r->pid, memory_order_relaxed);
		tag = atomic_load_explicit(&r->bus_tag, memory_order_acquire);
		for (size_t i = 0; i < ARRAY_LEN(words); i++)
			words[i] = atomic_load_explicit(&r->bus_name[i], memory_order_relaxed);
		atomic_thread_fence(memory_order_acquire);
		after = atomic_load_explicit(&r->identity, memory_order_relaxed);
	} while (number_of(after) != number_of(before));
	info.bus_name_len = number_of(tag) == info.who.number ? (uint8_t)tag : 0;
	memcpy(info.bus_name, words, sizeof(info.bus_name));
	*ret = info;
	return true;
}

bool
shm_row_was_used(const struct shm *shm, uint32_t row)
{
	return atomic_load_explicit(&row_at(shm, row)->identity, memory_order_relaxed) != 0;
}

bool
shm_is_alive(const struct shm *shm, struct shm_who who)
{
	if (who.number == 0 || who.row >= shm_rows(shm))
		return false;
	uint64_t identity =
	    atomic_load_explicit(&shm->rows[who.row].identity, memory_order_acquire);
	enum shm_state state = state_of(identity);
	return number_of(identity) == who.number && state != SHM_FREE && state != SHM_DEAD;
}

bool
shm_row_left(const struct shm *shm, uint32_t row, uint32_t after, struct shm_who *ret)
{
	const _Atomic uint32_t *left = row_at(shm, row)->left;
	uint32_t lowest = UINT32_MAX;

	for (size_t i = 0; i < SHM_LEFT_MAX; i++) {
		uint32_t number = left[i];

		if (number > after && number < lowest)
			lowest = number;
	}
	if (lowest == UINT32_MAX)
		return false;
	*ret = (struct shm_who){row, lowest};
	return true;
}

bool
shm_is_left(const struct shm *shm, struct shm_who who)
{
	struct shm_who found;

	return shm_row_left(shm, who.row, who.number - 1, &found) && found.number == who.number;
}

void
shm_settle(struct shm *shm, struct shm_who who)
{
	_Atomic uint32_t *left = row_at(shm, who.row)->left;

	for (size_t i = 0; i < SHM_LEFT_MAX; i++) {
		uint32_t number = who.number;

		atomic_compare_exchange_strong(&left[i], &number, 0);
	}
}

bool
shm_is_first(const struct shm *shm, struct shm_who who)
{
	struct shm_row_info info;

	for (uint32_t row = 0; row < who.row; row++)
		if (shm_row_get(shm, row, &info) && shm_is_alive(shm, info.who) &&
		    info.state == SHM_READY)
			return false;
	return true;
}

static void *
part(const struct shm *shm, uint64_t at, uint64_t bytes, size_t *ret_len)
{
	if (ret_len != NULL)
		*ret_len = bytes;
	return (char *)shm->head + at;
}

void *
shm_metrics(const struct shm *shm, size_t *ret_len)
{
	if (ret_len != NULL)
		*ret_len = shm->metrics_bytes;
	return shm->metrics;
}

void *
shm_limiter(const struct shm *shm, size_t *ret_len)
{
	const struct shm_shape *s = &shm->head->shape;

	return part(shm, s->limiter_at, s->limiter_bytes, ret_len);
}

void *
shm_upstreams(const struct shm *shm, size_t *ret_len)
{
	const struct shm_shape *s = &shm->head->shape;

	return part(shm, s->upstreams_at, s->upstreams_bytes, ret_len);
}

void *
shm_owners(const struct shm *shm, uint32_t row, size_t *ret_len)
{
	const struct shm_shape *s = &shm->head->shape;

	check(row < s->rows);
	return part(shm, s->owners_at + row * s->owners_bytes, s->owners_bytes, ret_len);
}

void *
shm_peers(const struct shm *shm, uint32_t row, size_t *ret_len)
{
	const struct shm_shape *s = &shm->head->shape;

	check(row < s->rows);
	return part(shm, s->peers_at + row * s->peers_bytes, s->peers_bytes, ret_len);
}

void *
shm_event_log(const struct shm *shm)
{
	return part(shm, shm->head->shape.events_at, 0, NULL);
}

void
shm_punch(const struct shm *shm, void *at, size_t len)
{
	uint64_t offset = (uint64_t)((char *)at - (char *)shm->head);

	if (shm->has_own_metrics && (char *)at >= shm->metrics &&
	    (char *)at < shm->metrics + shm->metrics_bytes) {
		memset(at, 0, len);
		return;
	}
	check(offset >= PAGE && offset % PAGE == 0 && len % PAGE == 0 &&
	      offset + len <= shm->head->shape.total_bytes);
	if (fallocate(shm->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		(off_t)len) != 0)
		memset(at, 0, len);
}

_Atomic uint64_t *
shm_word(const struct shm *shm, enum shm_word word)
{
	check((unsigned)word < SHM_WORD_COUNT);
	return &shm->head->words[word];
}
