/*
 * mock_llm - the real mock beside a test: started on a free port, asked for its
 * counters over a blocking socket of our own, stopped with its process id.
 */
#ifndef T_UNIT_MOCK_LLM_H
#define T_UNIT_MOCK_LLM_H

#include <arpa/inet.h>
#include <jansson.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/check.h"

struct mock_llm {
	pid_t pid;
	int port;
	char url[64]; /* "http://127.0.0.1:PORT/v1" */
};

/* The program lies in the same build folder as the test. */
static inline void
mock_llm_path(char path[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);

	check(n > 0);
	path[n] = '\0';
	char *t = strstr(path, "/t/unit/");
	check(t != NULL);
	strcpy(t, "/mock_llm");
}

static inline void
mock_llm_start(struct mock_llm *m)
{
	char path[PATH_MAX], line[128] = "";
	int out[2];

	mock_llm_path(path);
	check(pipe(out) == 0);
	m->pid = fork();
	if (m->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out[1], STDOUT_FILENO);
		close(out[0]);
		close(out[1]);
		execl(path, path, "--listen", "127.0.0.1:0", (char *)NULL);
		fprintf(stderr, "%s is not built\n", path);
		_exit(127);
	}
	close(out[1]);
	FILE *f = fdopen(out[0], "r");
	check(fgets(line, sizeof(line), f) != NULL);
	check(sscanf(line, "mock_llm listening on 127.0.0.1:%d", &m->port) == 1);
	fclose(f);
	snprintf(m->url, sizeof(m->url), "http://127.0.0.1:%d/v1", m->port);
}

static inline void
mock_llm_stop(struct mock_llm *m)
{
	int status;

	kill(m->pid, SIGTERM);
	check(waitpid(m->pid, &status, 0) == m->pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* One request over a connection of its own; the answer's JSON. */
static inline json_t *
mock_llm_ask(const struct mock_llm *m, const char *method, const char *path, const char *body)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)m->port)};
	struct buf b = BUF_INIT;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	ssize_t n;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	check(fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	buf_printf(&b,
	    "%s %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %zu\r\n\r\n%s",
	    method, path, strlen(body), body);
	check(write(fd, b.data, b.len) == (ssize_t)b.len);
	buf_clear(&b);
	while ((n = read(fd, buf_reserve(&b, 65536), 65536)) > 0)
		b.len += (size_t)n;
	close(fd);
	const char *at = memmem(b.data, b.len, "\r\n\r\n", 4);
	check(at != NULL);
	json_t *answer = json_loadb(at + 4, b.len - (size_t)(at + 4 - b.data), 0, NULL);
	check(answer != NULL);
	buf_fini(&b);
	return answer;
}

/* A number of /mock/stats. This connection is not counted in connections_open. */
static inline long long
mock_llm_stat(const struct mock_llm *m, const char *name)
{
	json_t *stats = mock_llm_ask(m, "GET", "/mock/stats", "");
	long long n = json_integer_value(json_object_get(stats, name));

	json_decref(stats);
	return strcmp(name, "connections_open") == 0 ? n - 1 : n;
}

static inline void
mock_llm_fault(const struct mock_llm *m, const char *spec)
{
	json_t *answer = mock_llm_ask(m, "POST", "/mock/fault", spec);

	check(json_is_true(json_object_get(answer, "ok")));
	json_decref(answer);
}

static inline void
mock_llm_reset(const struct mock_llm *m)
{
	json_decref(mock_llm_ask(m, "POST", "/mock/reset", ""));
}

#endif
