/*
 * shapes - records as the JSON that clients see.
 */
#ifndef WORKER_API_SHAPES_H
#define WORKER_API_SHAPES_H

#include <jansson.h>
#include <stdbool.h>

#include "common/arena.h"
#include "worker/store/store.h"

json_t *shape_time(int64_t wall_ms);    /* RFC 3339; null for 0 */
json_t *shape_text(const char *text);   /* a string, or null for NULL */
json_t *shape_stored(const char *json); /* stored JSON text as a value; null when there is none */
const char *shape_dump(struct arena *, const json_t *); /* compact text; NULL for NULL */

/* The system prompt is the team's: shown to server keys only. */
json_t *shape_session(const struct store_session *, bool with_system);
json_t *shape_message(const struct store_message *);
json_t *shape_list(json_t *data, bool has_more); /* takes data */

#endif
