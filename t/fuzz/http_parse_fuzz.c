/*
 * http_parse_fuzz - the head of a request, its body in chunks, and a PROXY header.
 *
 * What is accepted must lie within the input, no prefix of it may be accepted, and
 * one that is refused may only be so for being too long while it is incomplete.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "worker/http/chunked.h"
#include "worker/http/forwarded.h"
#include "worker/http/parse.h"
#include "worker/http/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADERS_MAX = 16 };

static const struct http_parse_limits limits = {.request_line_bytes = 256,
    .header_bytes = 1024,
    .incomplete_bytes = 512,
    .headers = HEADERS_MAX};

static struct phr_header headers[HEADERS_MAX];

static long
parse(const char *text, size_t len, struct http_head *head)
{
	*head = (struct http_head){.headers = headers, .header_cap = HEADERS_MAX};
	return http_parse_head(&limits, text, len, head);
}

static void
check_inside(struct str s, const char *text, size_t len)
{
	check(s.p >= text && s.p + s.len <= text + len);
}

static void
check_accepted(const struct http_head *head, const char *text, size_t len)
{
	char decoded[512];
	size_t decoded_len;

	check(head->refusal == REFUSE_NOTHING);
	check_inside(head->method, text, len);
	check(head->target.len > 0 && head->target.len <= 256);
	for (size_t i = 0; i < head->header_count; i++) {
		check_inside(str_sub(head->headers[i].name, head->headers[i].name_len), text, len);
		check_inside(
		    str_sub(head->headers[i].value, head->headers[i].value_len), text, len);
		check(head->headers[i].name_len > 0);
	}
	check(!(head->has_length && head->is_chunked));
	route_decode(head->target, true, decoded, &decoded_len);
}

static void
try_head(const char *text, size_t size)
{
	struct http_head head;
	long n = parse(text, size, &head);

	if (n > 0) {
		check((size_t)n <= size);
		check_accepted(&head, text, size);
		for (long i = 0; i < n; i++) {
			long m = parse(text, (size_t)i, &head);

			check(m == 0 || (m == -1 && head.refusal == REFUSE_INCOMPLETE_TOO_LONG));
		}
	} else if (n < 0) {
		check(head.refusal != REFUSE_NOTHING && http_refusal_text(head.refusal) != NULL);
	}
}

/* Whole and byte by byte must come to the same. */
static void
try_chunked(const char *text, size_t size)
{
	struct phr_chunked_decoder whole = {0}, slow = {0};
	char *a = malloc(size + 1), *b = malloc(size + 1);
	size_t a_len = size, b_len = 0;
	long r, s = CHUNKED_MORE;

	memcpy(a, text, size);
	r = chunked_decode(&whole, a, &a_len);
	for (size_t i = 0; i < size && s == CHUNKED_MORE; i++) {
		size_t one = 1;

		b[b_len] = text[i];
		s = chunked_decode(&slow, b + b_len, &one);
		b_len += one;
	}
	check((r < 0) == (s < 0) && (r >= 0 || r == s));
	check(a_len == b_len && memcmp(a, b, a_len) == 0);
	free(a);
	free(b);
}

static void
try_peer(const char *text, size_t size)
{
	struct netaddr_net net;
	struct addr_nets trusted = {&net, 1};
	struct addr client = {.kind = ADDR_UNIX};
	long n = proxy_header_parse(text, size, &client);
	char out[ADDR_TEXT_MAX];

	check(n <= (long)size);
	check(netaddr_net_parse(STR("0.0.0.0/0"), &net));
	forwarded_walk_for(str_sub(text, size), &trusted, &client);
	forwarded_walk(str_sub(text, size), &trusted, &client);
	addr_format(&client, out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = calloc(size > 0 ? size : 1, 1);

	if (size > 0)
		memcpy(text, data, size);
	try_head(text, size);
	try_chunked(text, size);
	try_peer(text, size);
	free(text);
	return 0;
}
