/*
 * reload - load, complain, compare.
 */
#include "master/reload.h"

#include "common/log.h"
#include "common/str.h"

static void
log_errors(const struct buf *errors)
{
	struct str rest = buf_str(errors);

	while (rest.len > 0) {
		struct str line = str_split(&rest, '\n');

		if (line.len > 0)
			log_error("config error text=%s", log_quote(line).s);
	}
}

static bool
keep_needs_restart(struct conf *next, const struct conf *now, struct buf *errors)
{
	struct buf keys = BUF_INIT;

	if (conf_diff_needs_restart(now, next, &keys) > 0) {
		struct str rest = buf_str(&keys);

		while (rest.len > 0) {
			struct str key = str_split(&rest, '\n');

			if (key.len > 0)
				log_warn(
				    "config change needs a restart key=%.*s", (int)key.len, key.p);
		}
	}
	buf_fini(&keys);
	return conf_keep_needs_restart(next, now, errors);
}

static bool
has_room(const struct conf *next, uint32_t workers_max, struct buf *errors)
{
	uint32_t workers = conf_workers(next);

	if (workers <= workers_max)
		return true;
	buf_printf(errors,
	    "workers: %u is more than the server has room for; at most %u without a restart\n",
	    workers, workers_max);
	return false;
}

struct conf *
reload_conf(const struct options *options, char *const *environment, const struct conf *now,
    uint32_t workers_max, struct buf *errors)
{
	struct conf_source source = options_conf_source(options, environment);
	struct conf *next = conf_load(&source, errors);

	if (next != NULL &&
	    (!keep_needs_restart(next, now, errors) || !has_room(next, workers_max, errors)))
		conf_free(&next);
	if (next == NULL)
		log_errors(errors);
	return next;
}
