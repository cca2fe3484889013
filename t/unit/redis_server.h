/*
 * redis_server - a redis-server of the test's own on a Unix socket, nothing kept: it can be killed,
 * stopped, started again at the same place, and told things.
 */
#ifndef T_UNIT_REDIS_SERVER_H
#define T_UNIT_REDIS_SERVER_H

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#include "common/check.h"
#include "common/clock.h"

struct redis_server {
	char dir[64], socket[PATH_MAX], url[PATH_MAX + 8];
	pid_t pid;
};

/* One command over a connection of its own; NULL: nobody answers. */
static inline redisReply *
redis_server_ask(const struct redis_server *s, const char *command)
{
	const struct timeval limit = {5, 0};
	redisContext *c = redisConnectUnixWithTimeout(s->socket, limit);
	redisReply *reply = NULL;

	if (c != NULL && c->err == 0 && redisSetTimeout(c, limit) == REDIS_OK)
		reply = redisCommand(c, command);
	redisFree(c);
	return reply;
}

static inline void
redis_server_tell(const struct redis_server *s, const char *command)
{
	redisReply *reply = redis_server_ask(s, command);

	check(reply != NULL && reply->type != REDIS_REPLY_ERROR);
	freeReplyObject(reply);
}

static inline void
redis_server_again(struct redis_server *s)
{
	uint64_t until_ms = clock_mono_ms() + 10000;
	redisReply *pong = NULL;

	s->pid = fork();
	if (s->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		check(freopen("/dev/null", "w", stdout) != NULL);
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", s->socket,
		    "--dir", s->dir, "--save", "", "--appendonly", "no", (char *)NULL);
		_exit(127);
	}
	while ((pong = redis_server_ask(s, "PING")) == NULL) {
		check(clock_mono_ms() < until_ms);
		usleep(2000);
	}
	freeReplyObject(pong);
}

static inline void
redis_server_start(struct redis_server *s)
{
	snprintf(s->dir, sizeof(s->dir), "/tmp/parley-redis-XXXXXX");
	check(mkdtemp(s->dir) != NULL);
	snprintf(s->socket, sizeof(s->socket), "%s/s", s->dir);
	snprintf(s->url, sizeof(s->url), "unix:%s", s->socket);
	redis_server_again(s);
}

static inline void
redis_server_kill(struct redis_server *s)
{
	kill(s->pid, SIGKILL);
	check(waitpid(s->pid, NULL, 0) == s->pid);
}

static inline void
redis_server_stop(struct redis_server *s)
{
	redis_server_kill(s);
	unlink(s->socket);
	rmdir(s->dir);
}

#endif
