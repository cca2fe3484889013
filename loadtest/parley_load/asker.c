/* asker - questions, tries, and what is noted of them. */
#include "loadtest/parley_load/asker.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/journal.h"

enum { TRIES_MAX = 200, AGAIN_MS = 200 };

void
asker_init(struct asker *a, struct load *load, const struct asker_kind *kind)
{
	a->load = load;
	a->kind = kind;
}

static void
go(void *arg)
{
	struct asker *a = arg;

	if (a->is_asking)
		a->kind->go(a);
}

static void
ask_next(void *arg)
{
	struct asker *a = arg;

	check(!a->is_asking);
	if (!load_next(a->load))
		return;
	snprintf(a->key, sizeof(a->key), "q%" PRIu32, a->questions++);
	a->tries = 0;
	a->first_us = 0;
	a->began_us = clock_mono_us();
	a->is_asking = true;
	a->kind->go(a);
}

void
asker_begin(struct asker *a, uint64_t delay_ms)
{
	load_after(a->load, delay_ms, ask_next, a);
}

static void
answered(struct asker *a, enum outcome outcome)
{
	a->is_asking = false;
	journal("asked %s %s %s %" PRIu32, a->session, a->key,
	    outcome == LOAD_WHOLE ? "whole" : "failed", a->tries);
	load_done(a->load, outcome, a->began_us, a->first_us);
	load_after(a->load, load_think_ms(a->load, a->began_us), ask_next, a);
}

void
asker_go_later(struct asker *a, uint64_t delay_ms)
{
	if (++a->tries >= TRIES_MAX)
		answered(a, LOAD_FAILED);
	else
		load_after(a->load, delay_ms + (uint64_t)random() % AGAIN_MS, go, a);
}

/* After these the same id runs anew. */
static bool
may_run_anew(struct str code)
{
	return str_eq(code, STR("worker_lost")) || str_eq(code, STR("draining"));
}

void
asker_turn_ended(struct asker *a, const char *turn, struct str code, uint64_t seq, bool in_order)
{
	journal("turn %s %s %s %.*s %" PRIu64 " %s", a->session, turn[0] != '\0' ? turn : "-",
	    a->key, code.len > 0 ? (int)code.len : 9, code.len > 0 ? code.p : "completed", seq,
	    in_order ? "ordered" : "disordered");
	if (in_order && may_run_anew(code)) {
		a->load->tally->rerun++;
		asker_go_later(a, 0);
		return;
	}
	answered(a, in_order && code.len == 0 ? LOAD_WHOLE : LOAD_FAILED);
}

void
asker_keep_address(struct asker *a, const char *address)
{
	snprintf(a->address, sizeof(a->address), "%s", address);
}

void
asker_was_cut(struct asker *a, uint64_t seq)
{
	a->load->tally->cut++;
	journal("cut %s %s %" PRIu64, a->kind->name, a->address, seq);
}

void
asker_was_closed(struct asker *a, int code)
{
	a->load->tally->moved++;
	journal("closed %s %s %d", a->kind->name, a->address, code);
}

void
asker_was_told(struct asker *a, int status, struct str code)
{
	journal("answer %s %s %d %.*s", a->kind->name, a->address, status, (int)code.len,
	    code.len > 0 ? code.p : "");
}
