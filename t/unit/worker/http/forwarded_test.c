/*
 * forwarded_test - addresses, forwarding headers and PROXY protocol headers.
 */
#include "t/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "worker/http/forwarded.h"

static struct netaddr_net nets[2];
static const struct addr_nets trusted = {nets, 2};

static int
setup(void **state)
{
	assert_true(netaddr_net_parse(STR("10.0.0.0/8"), &nets[0]));
	assert_true(netaddr_net_parse(STR("127.0.0.1"), &nets[1]));
	return 0;
}

static struct addr
addr(const char *text)
{
	struct addr a = {0};

	assert_true(addr_parse(str_of(text), &a));
	return a;
}

static void
is(const struct addr *a, const char *text)
{
	char out[ADDR_TEXT_MAX];

	addr_format(a, out);
	assert_string_equal(out, text);
}

static void
test_networks(void **state)
{
	static const char *const of[][2] = {
	    {"192.0.2.1", "192.0.2.1"},
	    {"::ffff:192.0.2.1", "192.0.2.1"},
	    {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
	    {"::1", "::"},
	};
	char out[ADDR_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_LEN(of); i++) {
		struct addr a = addr(of[i][0]);

		addr_format_network(&a, out);
		assert_string_equal(out, of[i][1]);
	}
}

static void
test_addresses(void **state)
{
	static const char *const good[][2] = {
	    {"192.0.2.1", "192.0.2.1"},
	    {"192.0.2.1:8080", "192.0.2.1"},
	    {"2001:db8::1", "2001:db8::1"},
	    {"[2001:db8::1]", "2001:db8::1"},
	    {"[2001:db8::1]:443", "2001:db8::1"},
	    {"::ffff:192.0.2.1", "192.0.2.1"},
	};
	static const char *const bad[] = {"", "[", "[]", "[::1", "[::1]x", "a", "192.0.2",
	    "1.2.3.4.5", "192.0.2.1 ", "unknown", "_hidden", "::g", "unix"};
	struct addr a;

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		a = addr(good[i][0]);
		is(&a, good[i][1]);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(addr_parse(str_of(bad[i]), &a));
	a = addr("127.3.4.5");
	assert_true(addr_is_loopback(&a));
	a = addr("::1");
	assert_true(addr_is_loopback(&a));
	a = addr("128.0.0.1");
	assert_false(addr_is_loopback(&a));
	a = (struct addr){.kind = ADDR_UNIX};
	assert_true(addr_is_loopback(&a));
	assert_true(addr_nets_have(&trusted, &a)); /* as 127.0.0.1 */
	is(&a, "unix");
	a.kind = ADDR_NONE;
	assert_false(addr_is_loopback(&a));
	assert_false(addr_nets_have(&trusted, &a));
}

static void
walks(const char *header, bool is_rfc7239, const char *peer, const char *client)
{
	struct addr a = addr(peer);

	if (is_rfc7239)
		forwarded_walk(str_of(header), &trusted, &a);
	else
		forwarded_walk_for(str_of(header), &trusted, &a);
	is(&a, client);
}

static void
test_x_forwarded_for(void **state)
{
	walks("192.0.2.1", false, "10.1.1.1", "192.0.2.1");
	walks("192.0.2.1", false, "203.0.113.9", "203.0.113.9"); /* the peer is not trusted */
	walks("198.51.100.7, 192.0.2.1", false, "10.1.1.1", "192.0.2.1");
	walks("198.51.100.7, 192.0.2.1,10.2.2.2", false, "10.1.1.1", "192.0.2.1");
	walks("10.3.3.3, 10.2.2.2", false, "10.1.1.1", "10.3.3.3");
	walks("192.0.2.1, unknown, 10.2.2.2", false, "10.1.1.1", "10.2.2.2");
	walks("2001:db8::7", false, "10.1.1.1", "2001:db8::7");
	walks("", false, "10.1.1.1", "10.1.1.1");
	walks(",,,", false, "10.1.1.1", "10.1.1.1");
}

static void
test_forwarded(void **state)
{
	walks("for=192.0.2.1", true, "10.1.1.1", "192.0.2.1");
	walks("For=\"[2001:db8::7]:4711\";proto=https", true, "10.1.1.1", "2001:db8::7");
	walks("by=10.9.9.9;for=198.51.100.7, for=192.0.2.1", true, "10.1.1.1", "192.0.2.1");
	walks("for=192.0.2.1;by=\"a,b\", for=10.2.2.2", true, "10.1.1.1", "192.0.2.1");
	walks("for=_secret, for=10.2.2.2", true, "10.1.1.1", "10.2.2.2");
	walks("proto=https", true, "10.1.1.1", "10.1.1.1");
	walks("for=\"", true, "10.1.1.1", "10.1.1.1");
}

/* Every prefix is incomplete, the whole is taken and what follows is left. */
static void
takes(const char *bytes, size_t len, const char *client)
{
	struct addr a = {0};
	char *copy;

	for (size_t i = 0; i < len; i++) {
		copy = malloc(i > 0 ? i : 1);
		memcpy(copy, bytes, i);
		assert_int_equal(proxy_header_parse(copy, i, &a), 0);
		assert_int_equal(a.kind, ADDR_NONE);
		free(copy);
	}
	copy = malloc(len + 3);
	memcpy(copy, bytes, len);
	memcpy(copy + len, "GET", 3);
	assert_int_equal(proxy_header_parse(copy, len + 3, &a), len);
	free(copy);
	if (client == NULL)
		assert_int_equal(a.kind, ADDR_NONE);
	else
		is(&a, client);
}

#define TAKES(literal, client) takes(literal, sizeof(literal) - 1, client)

static long
proxy(const char *bytes, size_t len)
{
	struct addr a = {0};

	return proxy_header_parse(bytes, len, &a);
}

static void
test_proxy_v1(void **state)
{
	char long_line[200];

	TAKES("PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n", "192.0.2.1");
	TAKES("PROXY TCP6 2001:db8::1 ::1 5000 80\r\n", "2001:db8::1");
	TAKES("PROXY UNKNOWN\r\n", NULL);
	TAKES("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", NULL);
#define BAD(s) assert_int_equal(proxy(s, sizeof(s) - 1), PROXY_BAD)
	BAD("PROXY TCP4 192.0.2.1 10.0.0.1 5000\r\n");
	BAD("PROXY TCP4 192.0.2.1 10.0.0.1 5000 99999\r\n");
	BAD("PROXY TCP4 x 10.0.0.1 5000 80\r\n");
	BAD("PROXY UDP4 192.0.2.1 10.0.0.1 5000 80\r\n");
	BAD("PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\n");
	memset(long_line, 'a', sizeof(long_line));
	memcpy(long_line, "PROXY ", 6);
	assert_int_equal(proxy(long_line, sizeof(long_line)), PROXY_BAD);
	assert_int_equal(proxy("GET / HTTP", 10), PROXY_NONE);
	assert_int_equal(proxy("PRI * HTTP/2", 12), PROXY_NONE);
	assert_int_equal(proxy("\r\nGET /", 7), PROXY_NONE);
}

#define V2 "\r\n\r\n\0\r\nQUIT\n"

static void
test_proxy_v2(void **state)
{
	TAKES(V2 "\x21\x11\0\x0c"
		 "\xc0\0\x02\x01"
		 "\x0a\0\0\x01"
		 "\x13\x88\0\x50",
	    "192.0.2.1");
	TAKES(V2 "\x21\x11\0\x0f"
		 "\xc0\0\x02\x01"
		 "\x0a\0\0\x01"
		 "\x13\x88\0\x50"
		 "\x04\0\0",
	    "192.0.2.1"); /* with a TLV */
	TAKES(V2 "\x21\x21\0\x24"
		 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
		 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"
		 "\x13\x88\0\x50",
	    "2001:db8::1");
	TAKES(V2 "\x20\0\0\0", NULL); /* LOCAL */
	TAKES(V2 "\x21\0\0\0", NULL); /* UNSPEC */
	BAD(V2 "\x31\x11\0\x0c"
	       "\xc0\0\x02\x01"
	       "\x0a\0\0\x01"
	       "\x13\x88\0\x50");
	BAD(V2 "\x22\x11\0\x0c"
	       "\xc0\0\x02\x01"
	       "\x0a\0\0\x01"
	       "\x13\x88\0\x50");
	BAD(V2 "\x21\x11\0\x04"
	       "\xc0\0\x02\x01");
	BAD(V2 "\x21\x11\xff\xff");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_addresses),
	    cmocka_unit_test(test_networks),
	    cmocka_unit_test(test_x_forwarded_for),
	    cmocka_unit_test(test_forwarded),
	    cmocka_unit_test(test_proxy_v1),
	    cmocka_unit_test(test_proxy_v2),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
