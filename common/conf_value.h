/*
 * conf_value - the texts of single values: durations, sizes, numbers, switches.
 * Pure. A parser leaves *ret alone when it returns false.
 */
#ifndef COMMON_CONF_VALUE_H
#define COMMON_CONF_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"

bool conf_parse_bool(struct str, bool *ret); /* true false yes no on off 1 0, any case */
bool conf_parse_int(struct str, int64_t *ret);
bool conf_parse_float(struct str, double *ret);
bool conf_parse_duration(struct str, uint64_t *ret_ms); /* 500ms 30s 5m 1h 1d, or 0 */
bool conf_parse_size(struct str, uint64_t *ret_bytes);  /* 16KiB 1MiB 2GiB 512B 512 */

/* The shortest text that the parser reads back as the same value. */
void conf_format_duration(struct buf *, uint64_t ms);
void conf_format_size(struct buf *, uint64_t bytes);
void conf_format_float(struct buf *, double);

#endif
