/*
 * key_text - how keys are written: the secret, the kind, the limits.
 */
#ifndef WORKER_SESSION_KEY_TEXT_H
#define WORKER_SESSION_KEY_TEXT_H

#include "common/arena.h"
#include "worker/session/keys.h"

enum {
	KEY_PREFIX_LEN = 3, /* pc_ ps_ pa_ */
	KEY_RANDOM_LEN = 40,
	KEY_RANDOM_MIN = 24, /* of a key that was made elsewhere */
	KEY_SECRET_LEN = KEY_PREFIX_LEN + KEY_RANDOM_LEN,
	KEY_SECRET_MAX = 256,
};

/* Could this be a secret at all? What is not is not looked up. */
bool key_text_is_sane(struct str secret);
/* 40 letters and digits, 238 random bits, behind the kind's prefix. */
void key_secret_new(enum key_kind, char out[KEY_SECRET_LEN + 1]);

const char *key_kind_name(enum key_kind); /* "client", "server", "admin" */
bool key_kind_parse(const char *name, enum key_kind *ret);

/* {"limit","window_ms","rpm","tpm","rpd","models","budget":{"amount","period"},"tools",
 * "denied_tools","read_only_tools"} into rate, rpm, tpm, rpd, models, budget, tools (texts from the
 * arena); what is absent stays. NULL and what is not
 * an object: nothing. */
void key_limits_parse(const char *json, struct arena *, struct principal *);

#endif
