/* netaddr: addresses to listen on, networks to believe. */
#include "t/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "common/check.h"
#include "common/netaddr.h"

static void
test_addresses(void **state)
{
	static const struct {
		const char *text;
		int family;
		uint16_t port;
		bool is_loopback;
	} good[] = {{"127.0.0.1:8080", AF_INET, 8080, true}, {"127.9.9.9:0", AF_INET, 0, true},
	    {"0.0.0.0:80", AF_INET, 80, false}, {"10.1.2.3:65535", AF_INET, 65535, false},
	    {"[::1]:8080", AF_INET6, 8080, true}, {"[::]:8080", AF_INET6, 8080, false},
	    {":8080", AF_INET6, 8080, false}, {"[::ffff:127.0.0.1]:1", AF_INET6, 1, true},
	    {"[::ffff:10.0.0.1]:1", AF_INET6, 1, false}, {"unix:/run/x.sock", AF_UNIX, 0, true},
	    {"unix:relative.sock", AF_UNIX, 0, true}};
	static const char *const bad[] = {"", ":", "8080", "localhost:8080", "127.0.0.1",
	    "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:80 ", "127.0.0:80",
	    "::1:8080", "[::1]", "[::1]8080", "[]:80", "[:80", "[127.0.0.1]:80",
	    "unix:", "http://127.0.0.1:80"};

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct netaddr a;

		assert_true(netaddr_parse(str_of(good[i].text), &a));
		assert_int_equal(a.sa.sa_family, good[i].family);
		assert_int_equal(netaddr_port(&a), good[i].port);
		assert_int_equal(netaddr_is_loopback(&a), good[i].is_loopback);
		assert_int_equal(netaddr_is_unix(&a), good[i].family == AF_UNIX);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct netaddr a;

		assert_false(netaddr_parse(str_of(bad[i]), &a));
	}
}

static void
test_a_unix_path_must_fit(void **state)
{
	char text[200] = "unix:";
	struct netaddr a;

	memset(text + 5, 'p', 107);
	assert_true(netaddr_parse(str_of(text), &a));
	assert_int_equal(strlen(a.un.sun_path), 107);
	text[5 + 107] = 'p';
	assert_false(netaddr_parse(str_of(text), &a));
	assert_false(netaddr_parse(str_sub("unix:a\0b", 8), &a));
}

static bool
has(const char *net_text, const char *ip)
{
	struct netaddr_net net;
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

	assert_true(netaddr_net_parse(str_of(net_text), &net));
	if (inet_pton(AF_INET, ip, &v4.sin_addr) == 1)
		return netaddr_net_has(&net, (struct sockaddr *)&v4);
	assert_int_equal(inet_pton(AF_INET6, ip, &v6.sin6_addr), 1);
	return netaddr_net_has(&net, (struct sockaddr *)&v6);
}

static void
test_networks(void **state)
{
	assert_true(has("10.0.0.0/8", "10.255.0.1"));
	assert_false(has("10.0.0.0/8", "11.0.0.0"));
	assert_true(has("10.0.0.0/8", "::ffff:10.1.1.1")); /* as a v6 socket sees it */
	assert_true(has("192.0.2.7", "192.0.2.7"));
	assert_false(has("192.0.2.7", "192.0.2.6"));
	assert_true(has("192.0.2.6/31", "192.0.2.7"));
	assert_true(has("0.0.0.0/0", "8.8.8.8"));
	assert_false(has("0.0.0.0/0", "2001:db8::1"));
	assert_true(has("::/0", "2001:db8::1"));
	assert_true(has("fd00::/8", "fdab::1"));
	assert_false(has("fd00::/8", "fe80::1"));
	assert_true(has("2001:db8::/33", "2001:db8:7fff::1"));
	assert_false(has("2001:db8::/33", "2001:db8:8000::1"));
	assert_true(has("::1", "::1"));
}

static void
test_what_is_no_network(void **state)
{
	static const char *const bad[] = {"", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/8/8",
	    "10.0.0.1/8", "10.0.0", "::/129", "fd00::1/8", "host", "10.0.0.0/-1", "10.0.0.0/ 8",
	    "unix:/x"};
	struct netaddr_net net;
	struct sockaddr unix_peer = {.sa_family = AF_UNIX};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(netaddr_net_parse(str_of(bad[i]), &net));
	assert_true(netaddr_net_parse(STR("::/0"), &net));
	assert_false(netaddr_net_has(&net, &unix_peer));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_addresses),
	    cmocka_unit_test(test_a_unix_path_must_fit),
	    cmocka_unit_test(test_networks),
	    cmocka_unit_test(test_what_is_no_network),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
