/* conf_yaml - texts as YAML wants them written. Private to the conf_*.c files. */
#ifndef COMMON_CONF_YAML_H
#define COMMON_CONF_YAML_H

#include "common/buf.h"
#include "common/str.h"

/* A double-quoted scalar, on one line. */
void conf_yaml_quote(struct buf *, struct str);

/* A comment: the words of a text in lines of at most `width` columns. */
void conf_yaml_comment(struct buf *, unsigned indent, unsigned width, struct str text);

#endif
