/*
 * json_real - the numbers of a JSON text as short as they can be read back.
 *
 * Pure. jansson writes doubles with 17 digits: 0.1 as 0.10000000000000001.
 */
#ifndef COMMON_JSON_REAL_H
#define COMMON_JSON_REAL_H

/* Valid JSON, changed in place; it never grows. Integers and strings stay as they are. */
void json_shorten_reals(char *text);

#endif
