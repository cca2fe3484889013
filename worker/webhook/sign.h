/*
 * sign - the signature of a webhook, as Standard Webhooks has it (standardwebhooks.com, 1.0.0):
 * HMAC-SHA-256 over "id.timestamp.body", in base64 behind "v1,". Pure.
 */
#ifndef WORKER_WEBHOOK_SIGN_H
#define WORKER_WEBHOOK_SIGN_H

#include "common/buf.h"
#include "common/str.h"

/* "whsec_" and base64 is a key; anything else is one as it stands. Appends. */
void sign_key(struct str secret, struct buf *out);

/* "v1,.. v1,..": one for each secret that is not empty; appends, nothing when all are. */
void sign_webhook(const char *const *secrets, size_t count, struct str id, uint64_t timestamp_s,
    struct str body, struct buf *out);

#endif
