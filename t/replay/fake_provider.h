/*
 * fake_provider - provider.h with the model's words in the test's hand.
 *
 * A call is recorded; the test gives it text, tools, an end. It knows the models
 * "default" (with a price) and "free" (without).
 */
#ifndef T_REPLAY_FAKE_PROVIDER_H
#define T_REPLAY_FAKE_PROVIDER_H

#include "worker/provider/provider.h"

struct providers *fake_providers_new(struct loop *);

unsigned fake_provider_calls(const struct providers *);     /* ever made */
unsigned fake_provider_open(const struct providers *);      /* neither ended nor cancelled */
unsigned fake_provider_cancelled(const struct providers *); /* ever */

/* The newest call. */
const json_t *fake_provider_messages(const struct providers *);
const json_t *fake_provider_tools(const struct providers *); /* NULL: none */
uint32_t fake_provider_timeout(const struct providers *);

/* Said in the newest open call. */
void fake_provider_say(struct providers *, const char *text);
void fake_provider_restart(struct providers *); /* what this call has said is void */
void fake_provider_think(struct providers *, const char *text);
void fake_provider_end(struct providers *); /* finish stop; 10 tokens in, 5 out, 2 cached */
void fake_provider_finish(struct providers *, enum provider_finish);
void fake_provider_fail(struct providers *, int err, const char *message);
/* Asks for tools and ends. */
void fake_provider_ask(struct providers *, const struct provider_tool_call *, uint32_t count);
void fake_provider_ask_one(
    struct providers *, const char *id, const char *name, const char *arguments);

/* From now on every call says this text by itself and ends. NULL: no more. */
void fake_provider_auto(struct providers *, const char *text);

#endif
