/*
 * mixed - a day: most people chat, over HTTP or WebSockets, some have tools of
 * their own, some sit in trains, some hardly read, and something keeps asking for
 * health. Give it a --pace.
 */
#include "common/check.h"
#include "loadtest/parley_load/load.h"

/* Of every 20 users so many do this. */
static const struct {
	const struct scenario *scenario;
	uint32_t share;
} kinds[] = {
    {&scenario_chat, 7},
    {&scenario_ws_chat, 4},
    {&scenario_client_tools, 3},
    {&scenario_resume, 3},
    {&scenario_slow_readers, 1},
    {&scenario_ws_slow_readers, 1},
    {&scenario_connect, 1},
};

enum { ALL_SHARES = 20 };

static void
begin(struct load *load, uint32_t user)
{
	uint32_t rest = user % ALL_SHARES;

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (rest < kinds[i].share) {
			/* Counted on its own, so that a kind may make differences among its users.
			 */
			kinds[i].scenario->begin(load, user / ALL_SHARES);
			return;
		}
		rest -= kinds[i].share;
	}
}

const struct scenario scenario_mixed = {.name = "mixed",
    .help = "chat, tools, resumed streams, slow readers, health; over HTTP and WebSockets",
    .begin = begin};
