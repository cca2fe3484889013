/* pacer - thing i is due i / per_s after the beginning. */
#include "loadtest/parley_load/pacer.h"

uint64_t
pacer_next(struct pacer *p, uint64_t now_us)
{
	uint64_t due_us = p->began_us + (uint64_t)((double)p->count * 1e6 / p->per_s);

	if (due_us > now_us)
		return 0;
	p->count++;
	return due_us;
}
