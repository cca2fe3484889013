/*
 * conf_keep - a reload takes what it may: the rest stays as the server was started.
 */
#include <string.h>

#include "common/check.h"
#include "common/conf.h"
#include "common/conf_load.h"
#include "common/conf_spec.h"

static struct conf_list
copy_list(struct arena *arena, const struct conf_list *from)
{
	struct conf_list list = {arena_calloc(arena, (from->n + 1) * sizeof(*list.v)), from->n};

	for (size_t i = 0; i < from->n; i++)
		list.v[i] = arena_strdup(arena, str_of(from->v[i]));
	return list;
}

/* The values lie in two configurations, each of which owns its texts. */
static void
copy_value(struct arena *arena, const struct conf_opt *o, void *to, const void *from)
{
	switch (o->type) {
	case CONF_BOOL:
		memcpy(to, from, sizeof(bool));
		break;
	case CONF_INT:
	case CONF_AUTO:
	case CONF_FLOAT:
	case CONF_DURATION:
	case CONF_SIZE:
		memcpy(to, from, 8);
		break;
	case CONF_STRING:
	case CONF_ENUM:
	case CONF_SECRET:
	case CONF_URL:
		*(const char **)to = arena_strdup(arena, str_of(*(const char *const *)from));
		break;
	case CONF_STRINGS:
		*(struct conf_list *)to = copy_list(arena, from);
		break;
	default:
		check(false); /* conf.tbl has no map that needs a restart */
	}
}

/* Elements of lists are all live: the table has no other. */
static void
keep_level(struct arena *arena, const struct conf_opt *level, char *to, const char *from)
{
	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		if (o->type == CONF_SECTION)
			keep_level(arena, conf_spec_inside(o), to + o->offset, from + o->offset);
		else if (o->type != CONF_LIST_OF && !o->is_live)
			copy_value(arena, o, to + o->offset, from + o->offset);
	}
}

/* What was checked on its own is checked once more in its new company. */
static bool
check_again(struct conf *conf, struct buf *errors)
{
	struct conf_loader l = {.arena = ARENA_INIT,
	    .file = "with what needs a restart",
	    .errors = errors,
	    .conf = conf};
	size_t warnings = conf->warnings.n;

	check(conf_tree_parse(&l, STR(""), false)); /* no places to tell */
	conf_check_all(&l);
	conf->warnings.n = warnings;
	arena_fini(&l.arena);
	return l.error_count == 0;
}

bool
conf_keep_needs_restart(struct conf *next, const struct conf *now, struct buf *errors)
{
	keep_level(&next->arena, conf_spec(), (char *)next, (const char *)now);
	return check_again(next, errors);
}
