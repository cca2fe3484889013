/*
 * election - which worker of this host writes the SQLite file.
 */
#include "worker/store/election.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/check.h"

static uint64_t
word_of(struct shm_who who)
{
	return (uint64_t)who.row << 32 | who.number;
}

int
election_init(struct election *e, struct shm *shm, struct shm_who me, const char *database)
{
	char *path = xasprintf("%s.writer", database);

	*e = (struct election){.shm = shm, .me = me};
	e->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	free(path);
	return e->lock_fd < 0 ? -errno : 0;
}

void
election_fini(struct election *e)
{
	uint64_t mine = word_of(e->me);

	if (e->is_won && e->shm != NULL)
		atomic_compare_exchange_strong(shm_word(e->shm, SHM_WORD_STORE_WRITER), &mine, 0);
	if (e->lock_fd >= 0)
		close(e->lock_fd);
	e->lock_fd = -1;
	e->is_won = false;
}

bool
election_try(struct election *e)
{
	if (e->is_won)
		return true;
	if (flock(e->lock_fd, LOCK_EX | LOCK_NB) != 0)
		return false;
	e->is_won = true;
	if (e->shm != NULL)
		atomic_store(shm_word(e->shm, SHM_WORD_STORE_WRITER), word_of(e->me));
	return true;
}

bool
election_other(const struct election *e, struct shm_who *ret)
{
	struct shm_who who;
	uint64_t word;

	if (e->shm == NULL)
		return false;
	word = atomic_load(shm_word(e->shm, SHM_WORD_STORE_WRITER));
	who = (struct shm_who){.row = (uint32_t)(word >> 32), .number = (uint32_t)word};
	if (word == 0 || word == word_of(e->me) || !shm_is_alive(e->shm, who))
		return false;
	*ret = who;
	return true;
}
