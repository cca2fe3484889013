/*
 * parse - the head of an HTTP/1 request, strictly by RFC 9112.
 *
 * Pure. Nothing is repaired and nothing is read leniently: what two servers might
 * understand differently is refused, and the refusal says why.
 */
#ifndef WORKER_HTTP_PARSE_H
#define WORKER_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/str.h"

enum http_refusal {
	REFUSE_NOTHING,
#define X(name, err, text) name,
#include "worker/http/refusals.tbl"
#undef X
	REFUSE_COUNT
};

int http_refusal_err(enum http_refusal); /* E_* */
const char *http_refusal_text(enum http_refusal);

struct http_parse_limits {
	size_t request_line_bytes; /* without its CRLF */
	size_t header_bytes;       /* all header lines together */
	size_t incomplete_bytes;   /* held of a head that is not complete */
	size_t headers;
};

/* As picohttpparser lays it out: h2o reads it. */
struct phr_header {
	const char *name;
	size_t name_len;
	const char *value;
	size_t value_len;
};

struct http_head {
	struct phr_header *headers; /* the caller's array */
	size_t header_cap;

	size_t header_count;
	struct str method;
	struct str target; /* begins with "/", or is "*" */
	int minor_version;
	bool has_length, is_chunked;
	uint64_t content_length;
	enum http_refusal refusal;
};

/*
 * The length of the head, all strs pointing into buf; 0: not complete yet, call again with more;
 * -1: refused, see head->refusal. Refused as soon as the bytes so far show it.
 */
long http_parse_head(
    const struct http_parse_limits *, const char *buf, size_t len, struct http_head *);

#endif
