/*
 * runner - tools that are run by servers, for turns: which there are, and calls of them.
 *
 * An interface: worker/mcp has tool servers and stands above turns, which use this. A menu is what
 * one turn's model may call; it stays as it is while the servers' lists change.
 */
#ifndef WORKER_TOOL_RUNNER_H
#define WORKER_TOOL_RUNNER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/str.h"

struct tool_menu;

struct tool_outcome {      /* borrowed for the call */
	const char *error; /* NULL: well. One sentence, also for the model */
	bool is_timeout;
	json_t *output;     /* for clients; NULL with an error */
	struct str content; /* for the model, with an error too when the tool itself said it */
	json_t *images;     /* parts of a message (image_url), or NULL */
};
typedef void tool_on_outcome(void *arg, const struct tool_outcome *);

struct tool_aside {      /* borrowed for the call */
	int err;         /* 0: the model has answered */
	const char *why; /* err != 0: one sentence */
	struct str text;
	const char *model; /* as the turn names it */
	bool is_cut;       /* max_tokens were used up */
};
typedef void tool_on_aside(void *arg, const struct tool_aside *);

/* What a tool may want of the turn while it runs; self is good as long as the call. */
struct tool_caller {
	void *self;
	/*
	 * An answer of the turn's model to these messages (OpenAI's, an array; shared), beside the
	 * turn and at its cost. max_tokens 0: no limit. Returns a handle, never 0; calls back once,
	 * from the loop, unless cancelled.
	 */
	uint64_t (*ask)(
	    void *self, json_t *messages, uint32_t max_tokens, tool_on_aside *, void *arg);
	void (*cancel)(void *self, uint64_t handle); /* unknown: nothing */
};

struct tool_runner {
	void *self;
	/*
	 * The tools of those servers that the app may use (NULL: all), appended to `tools` (an
	 * array in OpenAI's form) under names that are not in it, as long as it has less than max
	 * (0: no limit). NULL: there are none.
	 */
	struct tool_menu *(*open)(void *self, const struct conf_app *, size_t max, json_t *tools);
	/* The server that runs the tool of that name; NULL: none does. */
	const char *(*server_of)(const struct tool_menu *, const char *name);
	/* Returns a handle, never 0. Calls back once, from the loop, unless cancelled. Arguments
	 * are checked first. */
	uint64_t (*call)(struct tool_menu *, const char *name, const json_t *arguments,
	    const struct tool_caller *, tool_on_outcome *, void *arg);
	void (*cancel)(void *self, uint64_t handle);
	void (*close)(struct tool_menu *); /* its calls have ended; NULL is fine */
};

#endif
