/*
 * json_scan - walks over JSON text in place: nothing is built, nothing copied.
 *
 * Pure and strict (RFC 8259): what it has walked over is JSON, but for two things that it
 * leaves to the caller: whether the bytes are UTF-8 (has_high says that there is something to
 * check), and keys that occur twice. The walk is the caller's: it enters what it
 * wants to look into and skips the rest.
 *
 *     json_scan_init(&s, text);
 *     json_scan_object(&s);
 *     while (json_scan_member(&s, &key) == 1)
 *             json_scan_skip(&s, &value);
 *     is_json = json_scan_end(&s);
 */
#ifndef COMMON_JSON_SCAN_H
#define COMMON_JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"

enum { JSON_SCAN_DEPTH_MAX = 128 };

struct json_scan {
	const char *p, *end;
	unsigned depth;  /* containers that are open */
	bool is_first;   /* nothing of the innermost one was read yet */
	bool is_broken;  /* not JSON, or nested too deeply; every verb fails from here on */
	bool is_deep;    /* it was that */
	bool has_high;   /* bytes beyond ASCII were passed */
	bool has_escape; /* the key or string that was read last has a backslash */
};

void json_scan_init(struct json_scan *, struct str);

char json_scan_peek(struct json_scan *); /* first byte of the next value; 0: there is none */

/* Into the container that is next. False: it is none. */
bool json_scan_object(struct json_scan *);
bool json_scan_array(struct json_scan *);

/* 1: a member, its value is next; key is what stands between the quotes. 0: the object has ended.
 * -1: it is not JSON. */
int json_scan_member(struct json_scan *, struct str *ret_key);
int json_scan_element(struct json_scan *); /* likewise, of an array */

/* Over one value of any kind, given as it was written. ret may be NULL. */
bool json_scan_skip(struct json_scan *, struct str *ret);

/* Nothing but spaces is left, and all of it was JSON. */
bool json_scan_end(struct json_scan *);

/* What a string of the text says; text is what json_scan_skip() gave. False: it is no string. */
bool json_scan_decode(struct str text, struct buf *out);

/* ---- keys, as json_scan_member() gave them ---- */

/* What it says, appended to out. */
void json_scan_key_decode(struct str key, struct buf *out);

/* Is it that name, when its escapes are read? */
bool json_scan_key_is(struct str key, struct str name);

/* Might a reader take it for that name who does not tell upper from lower case? Go's encoding/json
 * folds as Unicode does (CaseFolding.txt, simple): U+017F is an s there, U+212A a k. */
bool json_scan_key_resembles(struct str key, struct str name);

/* What it says, appended to out, with those two as s and k: keys that resemble each other are then
 * equal but for the case of ASCII. */
void json_scan_key_text(struct str key, struct buf *out);

#endif
