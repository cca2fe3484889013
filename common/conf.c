/*
 * conf - loading: file, demo setup, environment, flags, values, checks.
 */
#include "common/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/conf_load.h"
#include "common/conf_spec.h"
#include "common/cpus.h"

enum { FILE_MAX = 1024 * 1024, WORKERS_MAX = 512 };

/* False: reported. */
static bool
read_file(struct conf_loader *l, struct buf *ret)
{
	struct stat st;
	ssize_t n = -1;
	int fd = open(l->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || fstat(fd, &st) < 0) {
		conf_fail(l, NULL, NULL, "cannot be read: %s", strerror(errno));
	} else if (S_ISDIR(st.st_mode) || st.st_size > FILE_MAX) {
		conf_fail(l, NULL, NULL, "expected a file of at most 1MiB");
	} else {
		while ((n = read(fd, buf_reserve(ret, 4096), 4096)) > 0 && ret->len <= FILE_MAX) {
			ret->len += (size_t)n;
			ret->data[ret->len] = '\0';
		}
		if (n != 0)
			conf_fail(l, NULL, NULL,
			    n < 0 ? "cannot be read" : "expected a file of at most 1MiB");
	}
	if (fd >= 0)
		close(fd);
	return n == 0;
}

/* False: reported, and what was read tells nothing about the rest. */
static bool
load_file(struct conf_loader *l, const struct conf_source *source)
{
	struct buf text = BUF_INIT;
	bool is_ok = true;

	if (source->text.p != NULL)
		is_ok = conf_tree_parse(l, source->text, true);
	else if (source->file != NULL)
		is_ok = read_file(l, &text) && conf_tree_parse(l, buf_str(&text), true);
	else
		is_ok = conf_tree_parse(l, STR(""), true);
	buf_fini(&text);
	return is_ok;
}

static void
load(struct conf_loader *l, const struct conf_source *source)
{
	if (!load_file(l, source))
		return;
	conf_demo_add(l);
	conf_env_put(l);
	for (size_t i = 0; i < source->override_count; i++)
		conf_override_put(l, &source->overrides[i]);
	conf_apply(l);
	conf_check_all(l);
}

struct conf *
conf_load(const struct conf_source *source, struct buf *errors)
{
	struct conf *conf = xcalloc(1, sizeof(*conf));
	struct conf_loader l = {
	    .arena = ARENA_INIT,
	    .file = source->file != NULL ? source->file : "defaults",
	    .environment = source->environment,
	    .errors = errors,
	    .conf = conf,
	};

	conf->arena = ARENA_INIT;
	load(&l, source);
	arena_fini(&l.arena);
	if (l.error_count > 0)
		conf_free(&conf);
	return conf;
}

void
conf_free(struct conf **conf)
{
	if (*conf == NULL)
		return;
	arena_fini(&(*conf)->arena);
	free(*conf);
	*conf = NULL;
}

uint32_t
conf_workers(const struct conf *conf)
{
	unsigned n = conf->workers > 0 ? (unsigned)conf->workers : cpus_available();

	return n < WORKERS_MAX ? n : WORKERS_MAX;
}

bool
conf_is_demo_secret(const char *secret)
{
	return strcmp(secret, CONF_DEMO_CLIENT_KEY) == 0 ||
	       strcmp(secret, CONF_DEMO_SERVER_KEY) == 0 ||
	       strcmp(secret, CONF_DEMO_ADMIN_KEY) == 0;
}

bool
conf_list_has(const struct conf_list *list, const char *text)
{
	for (size_t i = 0; i < list->n; i++) {
		if (strcmp(list->v[i], text) == 0)
			return true;
	}
	return false;
}
