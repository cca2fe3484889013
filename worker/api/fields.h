/*
 * fields - what a request's body and query may hold, read with clear refusals.
 *
 * Each reader returns false after it has answered the call: return then. An
 * absent or null field leaves the result at its default.
 */
#ifndef WORKER_API_FIELDS_H
#define WORKER_API_FIELDS_H

#include "worker/api/call.h"

/* Parses the JSON object of the body into call->body; an empty object when there is none and it is
 * optional. */
bool fields_body(struct api_call *, struct http_req *, bool is_required);

bool field_text(struct api_call *, const char *name, size_t bytes_max, const char **ret);
bool field_bool(struct api_call *, const char *name, bool *ret);
/* type is JSON_OBJECT or JSON_ARRAY; borrowed from the body. */
bool field_json(struct api_call *, const char *name, json_type type, const json_t **ret);
bool field_count(struct api_call *, const char *name, uint64_t min, uint64_t max, uint64_t *ret);

bool query_count(struct api_call *, struct http_req *, const char *name, uint64_t min, uint64_t max,
    uint64_t *ret);

/* An array of OpenAI function tools with valid, unique names. */
bool field_tools(struct api_call *, const json_t **ret);
/* A model alias of the config. */
bool field_model(struct api_call *, const char **ret);

/* The app lets its clients choose this ("model", "tools"); server keys may always. */
bool field_may_choose(struct api_call *, const char *what);

#endif
