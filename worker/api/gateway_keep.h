/*
 * gateway_keep - answers of the OpenAI-compatible routes that are kept, because the client
 * has said that it may go: X-Parley-On-Disconnect: continue.
 *
 * What is given is remembered beside, up to gateway.max_kept, and written into the record when the
 * call has ended, whole or failed, whether the client was still there or not: it alone knows what
 * it has got. GET /v1/answers/{request id} gives it to the same key, for gateway.keep_answers.
 */
#ifndef WORKER_API_GATEWAY_KEEP_H
#define WORKER_API_GATEWAY_KEEP_H

#include "worker/api/call.h"

struct gateway_keep;

struct gateway_keep *gateway_keep_new(struct api_call *, const char *request_id);
void gateway_keep_free(struct gateway_keep **); /* NULL is fine, and for the following */

void gateway_keep_begin(struct gateway_keep *, struct str content_type); /* bytes follow */
void gateway_keep_add(struct gateway_keep *, struct str bytes);
/* The answer has ended. err != 0: it is not whole, and is kept as that error, unless its bytes
 * are a stream that says so. */
void gateway_keep_store(struct gateway_keep *, int err, const char *message, bool is_told);
/* The same of an answer that did not begin. */
void gateway_keep_store_whole(
    struct gateway_keep *, int status, struct str content_type, struct str body);

/* Removes what has expired; once a minute, by the worker that the store has elected. */
struct answer_sweeper;
struct answer_sweeper *answer_sweeper_new(struct api *);
void answer_sweeper_free(struct answer_sweeper **); /* before the store; the loop does not run */

#endif
