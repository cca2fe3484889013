/* far - see events.h. */
#include "worker/events/events_impl.h"

struct far *
far_new(struct events *ev)
{
	(void)ev;
	return NULL;
}

void
far_free(struct far **ref)
{
	*ref = NULL;
}

void
far_want(struct far *far, struct events_topic *t, bool is_wanted)
{
	(void)far;
	(void)t;
	(void)is_wanted;
}

void
far_look(struct far *far)
{
	(void)far;
}

void
far_catch_up(struct far *far, struct events_catch_up *c)
{
	(void)far;
	(void)c;
}
