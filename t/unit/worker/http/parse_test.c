/*
 * parse_test - heads of requests, good and bad, whole and split at every byte.
 */
#include "t/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/err.h"
#include "worker/http/parse.h"

static const struct http_parse_limits limits = {
    .request_line_bytes = 8192, .header_bytes = 32768, .incomplete_bytes = 16384, .headers = 100};

static struct phr_header headers[100];

static long
parse(const char *text, size_t len, struct http_head *head)
{
	*head = (struct http_head){.headers = headers, .header_cap = 100};
	return http_parse_head(&limits, text, len, head);
}

/* In memory of its own size, so that a sanitizer sees every byte read beyond the end. */
static long
parse_prefix(const char *text, size_t len, struct http_head *head)
{
	char *copy = malloc(len > 0 ? len : 1);
	long n;

	memcpy(copy, text, len);
	n = parse(copy, len, head);
	free(copy);
	return n;
}

static void
accepts(const char *text, struct http_head *head)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++) {
		if (parse_prefix(text, i, head) != 0)
			fail_msg("prefix %zu of \"%s\" is not incomplete: %s", i, text,
			    head->refusal != REFUSE_NOTHING ? http_refusal_text(head->refusal)
							    : "?");
	}
	assert_int_equal(parse(text, len, head), len);
	assert_int_equal(head->refusal, REFUSE_NOTHING);
}

/* Refused whole, for this reason, and no prefix is accepted or refused for another. */
static void
refuses(const char *text, enum http_refusal why)
{
	size_t len = strlen(text);
	struct http_head head;

	assert_int_equal(parse_prefix(text, len, &head), -1);
	if (head.refusal != why)
		fail_msg("\"%s\": %s", text, http_refusal_text(head.refusal));
	for (size_t i = 0; i < len; i++) {
		long n = parse_prefix(text, i, &head);

		assert_true(n == 0 || (n == -1 && head.refusal == why));
	}
}

static struct str
header(const struct http_head *head, size_t i)
{
	return str_sub(head->headers[i].value, head->headers[i].value_len);
}

static void
test_plain(void **state)
{
	struct http_head h;

	accepts("GET /a/b?c=d&e=%20 HTTP/1.1\r\nHost: x:80\r\nAccept:*/*\r\nEmpty:\r\n"
		"Odd:  a\tb \t\r\n\r\n",
	    &h);
	assert_true(str_eq(h.method, STR("GET")));
	assert_true(str_eq(h.target, STR("/a/b?c=d&e=%20")));
	assert_int_equal(h.minor_version, 1);
	assert_int_equal(h.header_count, 4);
	assert_true(str_eq(header(&h, 0), STR("x:80")));
	assert_true(str_eq(header(&h, 1), STR("*/*")));
	assert_int_equal(header(&h, 2).len, 0);
	assert_true(str_eq(header(&h, 3), STR("a\tb")));
	assert_false(h.has_length || h.is_chunked);
	accepts("\r\nGET / HTTP/1.1\r\nHost:\r\n\r\n", &h);
	accepts("GET / HTTP/1.0\r\n\r\n", &h);
	assert_int_equal(h.minor_version, 0);
	accepts("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", &h);
	accepts("M-SEARCH / HTTP/1.1\r\nHost: [::1]:8080\r\nX: caf\xc3\xa9\r\n\r\n", &h);
}

static void
test_absolute_form(void **state)
{
	struct http_head h;

	accepts("GET http://a.b:80/c?d HTTP/1.1\r\nHost: x\r\n\r\n", &h);
	assert_true(str_eq(h.target, STR("/c?d")));
	accepts("GET https://a.b HTTP/1.1\r\nHost: x\r\n\r\n", &h);
	assert_true(str_eq(h.target, STR("/")));
	refuses("GET http:///c HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET http:// HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET http://a?b HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET ftp://a/ HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
}

static void
test_body_headers(void **state)
{
	struct http_head h;

	accepts("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n", &h);
	assert_true(h.has_length);
	assert_int_equal(h.content_length, 12);
	accepts("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n", &h);
	assert_true(h.is_chunked);
	accepts(
	    "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length:0\r\n\r\n", &h);
#define POST "POST / HTTP/1.1\r\nHost: x\r\n"
	refuses(POST "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", REFUSE_LENGTH_TWICE);
	refuses(POST "Content-Length: 1\r\ncontent-length: 1\r\n\r\n", REFUSE_LENGTH_TWICE);
	refuses(POST "Content-Length: 1, 1\r\n\r\n", REFUSE_LENGTH);
	refuses(POST "Content-Length: +1\r\n\r\n", REFUSE_LENGTH);
	refuses(POST "Content-Length: -1\r\n\r\n", REFUSE_LENGTH);
	refuses(POST "Content-Length: 0x1\r\n\r\n", REFUSE_LENGTH);
	refuses(POST "Content-Length:\r\n\r\n", REFUSE_LENGTH);
	refuses(POST "Content-Length: 99999999999999999999\r\n\r\n", REFUSE_LENGTH);
	refuses(POST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
	    REFUSE_LENGTH_WITH_CODING);
	refuses(POST "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
	    REFUSE_LENGTH_WITH_CODING);
	refuses(POST "Transfer-Encoding: gzip, chunked\r\n\r\n", REFUSE_CODING);
	refuses(POST "Transfer-Encoding: identity\r\n\r\n", REFUSE_CODING);
	refuses(POST "Transfer-Encoding: xchunked\r\n\r\n", REFUSE_CODING);
	refuses(
	    POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", REFUSE_CODING);
	refuses("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", REFUSE_CODING);
	refuses(POST "Expect: tea\r\n\r\n", REFUSE_EXPECT);
}

static void
test_request_line(void **state)
{
	refuses("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses(" GET / HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_METHOD);
	refuses("G\x01T / HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_METHOD);
	refuses("GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_METHOD);
	refuses("GET / HTTP/1.1 \r\nHost: x\r\n\r\n", REFUSE_VERSION);
	refuses("GET / HTTP/2.0\r\nHost: x\r\n\r\n", REFUSE_VERSION);
	refuses("GET / HTTP/1.2\r\nHost: x\r\n\r\n", REFUSE_VERSION);
	refuses("GET / http/1.1\r\nHost: x\r\n\r\n", REFUSE_VERSION);
	refuses("GET /\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET /caf\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET a HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET * HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_TARGET);
	refuses("GET / HTTP/1.1\nHost: x\r\n\r\n", REFUSE_BARE_LF);
	refuses("GET / HTTP/1.1\rHost: x\r\n\r\n", REFUSE_BARE_CR);
	refuses("\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_BARE_LF);
	refuses("\r\n\r\nGET / HTTP/1.1\r\n\r\n", REFUSE_METHOD);
	refuses("\x16\x03\x01\x02", REFUSE_METHOD); /* a TLS hello */
	refuses("AVERYLONGMETHODNAMETHATNOBODYUSES / HTTP/1.1\r\nHost: x\r\n\r\n", REFUSE_METHOD);
}

static void
test_headers(void **state)
{
#define GET "GET / HTTP/1.1\r\nHost: x\r\n"
	refuses(GET "A : b\r\n\r\n", REFUSE_SPACE_BEFORE_COLON);
	refuses(GET "A\t: b\r\n\r\n", REFUSE_SPACE_BEFORE_COLON);
	refuses(GET "A: b\r\n c\r\n\r\n", REFUSE_FOLDED);
	refuses(GET "A: b\r\n\tc\r\n\r\n", REFUSE_FOLDED);
	refuses(GET "A: b\n\r\n", REFUSE_BARE_LF);
	refuses(GET "A: b\r\n\n", REFUSE_BARE_LF);
	refuses(GET "A: b\rC: d\r\n\r\n", REFUSE_BARE_CR);
	refuses(GET "A\r\n\r\n", REFUSE_HEADER_NAME);
	refuses(GET ": b\r\n\r\n", REFUSE_HEADER_NAME);
	refuses(GET "A(b): c\r\n\r\n", REFUSE_HEADER_NAME);
	refuses(GET "A\xc3\xa9: c\r\n\r\n", REFUSE_HEADER_NAME);
	refuses(GET "A: b\x01\r\n\r\n", REFUSE_HEADER_VALUE);
	refuses(GET "A: b\x7f\r\n\r\n", REFUSE_HEADER_VALUE);
	refuses("GET / HTTP/1.1\r\n\r\n", REFUSE_NO_HOST);
	refuses("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", REFUSE_HOST_TWICE);
	refuses("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", REFUSE_HOST);
	refuses("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", REFUSE_HOST);
	refuses("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", REFUSE_HOST);
}

static void
test_nul_bytes(void **state)
{
	static const char in_value[] = "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n";
	static const char in_path[] = "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n";
	struct http_head head;

	assert_int_equal(parse(in_value, sizeof(in_value) - 1, &head), -1);
	assert_int_equal(head.refusal, REFUSE_HEADER_VALUE);
	assert_int_equal(parse(in_path, sizeof(in_path) - 1, &head), -1);
	assert_int_equal(head.refusal, REFUSE_TARGET);
}

/* "GET /aaa.. HTTP/1.1\r\nHost: x\r\n" + lines of 100 bytes each + "\r\n"; freed by the caller. */
static char *
make(size_t target_len, size_t lines, bool is_complete, size_t *ret_len)
{
	char *text = malloc(target_len + lines * 100 + 100), *p = text;

	p += sprintf(p, "GET /");
	memset(p, 'a', target_len - 1);
	p += target_len - 1;
	p += sprintf(p, " HTTP/1.1\r\nHost: x\r\n");
	for (size_t i = 0; i < lines; i++)
		p += sprintf(p, "X-%04zu: %090d\r\n", i, 0);
	if (is_complete)
		p += sprintf(p, "\r\n");
	*ret_len = (size_t)(p - text);
	return text;
}

static enum http_refusal
refusal_of(size_t target_len, size_t lines, bool is_complete)
{
	struct http_head head;
	size_t len;
	char *text = make(target_len, lines, is_complete, &len);

	parse(text, len, &head);
	free(text);
	return head.refusal;
}

static void
test_limits(void **state)
{
	size_t fixed = strlen("GET  HTTP/1.1");

	assert_int_equal(refusal_of(8192 - fixed, 0, true), REFUSE_NOTHING);
	assert_int_equal(refusal_of(8193 - fixed, 0, true), REFUSE_LINE_TOO_LONG);
	assert_int_equal(refusal_of(20000, 0, true), REFUSE_LINE_TOO_LONG);
	assert_int_equal(refusal_of(1, 99, true), REFUSE_NOTHING);
	assert_int_equal(refusal_of(1, 100, true), REFUSE_TOO_MANY_HEADERS);
	assert_int_equal(refusal_of(1, 90, false), REFUSE_NOTHING);
	assert_int_equal(refusal_of(8000, 90, false), REFUSE_INCOMPLETE_TOO_LONG);
}

static void
test_header_block_limit(void **state)
{
	size_t len = 0, cap = 40000;
	char *text = malloc(cap);
	struct http_head head;

	len += (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: x\r\nBig: ");
	memset(text + len, 'v', 33000);
	len += 33000;
	len += (size_t)sprintf(text + len, "\r\n\r\n");
	assert_int_equal(parse(text, len, &head), -1);
	assert_int_equal(head.refusal, REFUSE_HEADER_TOO_LONG);
	assert_int_equal(http_refusal_err(head.refusal), E_HEADERS_TOO_LARGE);
	free(text);
}

/* Just the request line so far, longer than it may be: refused before its end comes. */
static void
test_line_without_end(void **state)
{
	char *text = malloc(9000);
	struct http_head head;

	memset(text, 'a', 9000);
	memcpy(text, "GET /", 5);
	assert_int_equal(parse(text, 8000, &head), 0);
	assert_int_equal(parse(text, 9000, &head), -1);
	assert_int_equal(head.refusal, REFUSE_LINE_TOO_LONG);
	assert_int_equal(http_refusal_err(head.refusal), E_URI_TOO_LONG);
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_plain),
	    cmocka_unit_test(test_absolute_form),
	    cmocka_unit_test(test_body_headers),
	    cmocka_unit_test(test_request_line),
	    cmocka_unit_test(test_headers),
	    cmocka_unit_test(test_nul_bytes),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_header_block_limit),
	    cmocka_unit_test(test_line_without_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
