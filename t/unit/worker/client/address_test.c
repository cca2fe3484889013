/* address_test - what requests on behalf of others must not reach. */
#include "t/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "common/check.h"
#include "worker/client/address.h"

static const char *const refused[] = {"0.0.0.0", "10.0.0.1", "10.255.255.255", "100.64.0.1",
    "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:0:127.0.0.1",
    "::ffff:127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8",
    "2002:a00:1::", "2001::1", "fc00::1", "fdff::1", "fe80::1", "febf::1", "fec0::1", "ff02::1"};
static const char *const allowed[] = {"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1",
    "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "169.253.1.1",
    "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.167.1.1", "192.169.0.1", "198.17.1.1",
    "198.20.0.1", "223.255.255.255", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
    "2002:808:808::", "2606:4700::1111", "2a00:1450::1", "2001:4860::8888"};

static bool
is_private(const char *ip)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};

	if (inet_pton(AF_INET, ip, &in.sin_addr) == 1)
		return address_is_private((struct sockaddr *)&in);
	assert_int_equal(inet_pton(AF_INET6, ip, &in6.sin6_addr), 1);
	return address_is_private((struct sockaddr *)&in6);
}

static void
test_addresses(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		if (!is_private(refused[i]) || !address_text_is_private(refused[i]))
			fail_msg("%s was allowed", refused[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(allowed); i++) {
		if (is_private(allowed[i]) || address_text_is_private(allowed[i]))
			fail_msg("%s was refused", allowed[i]);
	}
}

static void
test_what_is_no_address(void **state)
{
	struct sockaddr sa = {.sa_family = AF_UNIX};

	assert_true(address_is_private(&sa));
	assert_true(address_text_is_private(""));
	assert_true(address_text_is_private("example.org"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_addresses),
	    cmocka_unit_test(test_what_is_no_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
