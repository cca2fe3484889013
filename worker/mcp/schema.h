/*
 * schema - does a value match a JSON Schema? For the arguments of a tool, before it is called.
 *
 * Pure and bounded: not a whole validator but the keywords that tools use. What it refuses does not
 * match; what it lets pass may still be refused by the tool itself. Known are
 *
 *   type enum const
 *   properties required additionalProperties propertyNames dependentRequired minProperties
 *   maxProperties
 *   items prefixItems (and items as an array) additionalItems contains minItems maxItems
 * uniqueItems minLength maxLength (in characters) minimum maximum exclusiveMinimum exclusiveMaximum
 * (numbers, and the booleans of draft 4) multipleOf allOf anyOf oneOf not if then else $ref to a
 * place in the same schema (#, #/..); any other is not followed and matches
 *
 * and true and false as schemas. null for a property that is not required counts as none: models
 * write it so. Every other keyword (pattern, format, patternProperties, ..)
 * matches: where patternProperties stands additionalProperties is not looked at, because which
 * properties are additional cannot be said. A schema that would take more than SCHEMA_STEPS_MAX
 * steps or is nested more deeply than SCHEMA_DEPTH_MAX matches from there on.
 */
#ifndef WORKER_MCP_SCHEMA_H
#define WORKER_MCP_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>

#include "common/buf.h"

enum { SCHEMA_STEPS_MAX = 100000, SCHEMA_DEPTH_MAX = 64 };

/* False: *why gets one sentence for who wrote the value, "location.city: expected a string." */
bool schema_matches(const json_t *schema, const json_t *value, struct buf *why);

#endif
