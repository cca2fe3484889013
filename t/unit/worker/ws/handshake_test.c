/* handshake: what is an opening, and which subprotocols and keys are in it. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/err.h"
#include "worker/ws/handshake.h"

/* The example of RFC 6455 section 1.3. */
#define RFC_KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define RFC_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

struct row {
	int want;
	const char *upgrade, *connection, *version, *key;
};

static const struct row rows[] = {
    {0, "websocket", "Upgrade", "13", RFC_KEY},
    {0, "WebSocket", "keep-alive, upgrade", " 13 ", " " RFC_KEY "\t"},
    {0, "h2c , websocket", "UPGRADE,x", "13", RFC_KEY},
    {0, "websocket", ",,Upgrade,", "13", "////////////////++++/Q=="},
    {E_UPGRADE_REQUIRED, NULL, "Upgrade", "13", RFC_KEY},
    {E_UPGRADE_REQUIRED, NULL, NULL, NULL, NULL},
    {E_UPGRADE_REQUIRED, "", "Upgrade", "13", RFC_KEY},
    {E_UPGRADE_REQUIRED, "h2c", "Upgrade", "13", RFC_KEY},
    {E_UPGRADE_REQUIRED, "websockets", "Upgrade", "13", RFC_KEY},
    {E_UPGRADE_REQUIRED, "web socket", "Upgrade", "13", RFC_KEY},
    {E_UPGRADE_REQUIRED, "websocket", "Upgrade", NULL, RFC_KEY},
    {E_UPGRADE_REQUIRED, "websocket", "Upgrade", "", RFC_KEY},
    {E_UPGRADE_REQUIRED, "websocket", "Upgrade", "8", RFC_KEY},
    {E_UPGRADE_REQUIRED, "websocket", "Upgrade", "12", RFC_KEY},
    {E_UPGRADE_REQUIRED, "websocket", "Upgrade", "14", RFC_KEY},
    {E_UPGRADE_REQUIRED, "websocket", "Upgrade", "013", RFC_KEY},
    {E_UPGRADE_REQUIRED, "websocket", "Upgrade", "13, 8", RFC_KEY},
    {E_UPGRADE_REQUIRED, "websocket", "Upgrade", "8", "bad"}, /* the version is told first */
    {E_INVALID_REQUEST, "websocket", NULL, "13", RFC_KEY},
    {E_INVALID_REQUEST, "websocket", "keep-alive", "13", RFC_KEY},
    {E_INVALID_REQUEST, "websocket", "upgraded", "13", RFC_KEY},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", NULL},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", ""},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZQ"},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZQ="},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZQ==="},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZWE="},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZWFh"},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhlIHNhbXBsZSB-b25jZQ=="},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhlIHNhbXBsZSB_b25jZQ=="},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhlIHNhbXB=ZSBub25jZQ=="},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", "dGhl IHNhbXBsZSBub25jZ=="},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13",
	"\xc3\xa9"
	"hlIHNhbXBsZSBub25jZQ=="},
    {E_INVALID_REQUEST, "websocket", "Upgrade", "13", RFC_KEY ", " RFC_KEY},
};

static void
test_openings(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct row *r = &rows[i];
		struct ws_offer offer = {
		    str_of(r->upgrade), str_of(r->connection), str_of(r->version), str_of(r->key)};
		char accept[WS_ACCEPT_LEN + 1] = "untouched";
		const char *fault = NULL;

		if (ws_handshake_check(&offer, accept, &fault) != r->want)
			fail_msg("row %zu: %s", i, fault != NULL ? fault : "accepted");
		assert_int_equal(fault != NULL, r->want != 0);
		if (r->want != 0)
			assert_string_equal(accept, "untouched");
		else
			assert_int_equal(strlen(accept), WS_ACCEPT_LEN);
	}
}

static void
test_accept(void **state)
{
	struct ws_offer offer = {STR("websocket"), STR("Upgrade"), STR("13"), STR(RFC_KEY)};
	char accept[WS_ACCEPT_LEN + 1];
	const char *fault;

	assert_int_equal(ws_handshake_check(&offer, accept, &fault), 0);
	assert_string_equal(accept, RFC_ACCEPT);
	/* Computed apart, with Python's hashlib. */
	offer.key = STR("x3JJHMbDL1EzLkh9GBhXDw==");
	assert_int_equal(ws_handshake_check(&offer, accept, &fault), 0);
	assert_string_equal(accept, "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
}

static void
test_protocols(void **state)
{
	static const struct {
		const char *list;
		bool is_good, has_parley;
		const char *bearer;
	} lists[] = {
	    {NULL, true, false, NULL},
	    {"", true, false, NULL},
	    {"parley", true, true, NULL},
	    {"parley, bearer.pc_abc-DEF_123", true, true, "pc_abc-DEF_123"},
	    {"bearer.pc_abc,parley", true, true, "pc_abc"},
	    {"\tparley ,, bearer.x ,", true, true, "x"},
	    {"bearer.pc_abc", true, false, "pc_abc"},
	    {"parley, bearer.", true, true, ""},
	    {"graphql-ws, mqtt", true, false, NULL},
	    {"Parley, Bearer.x", true, false, NULL}, /* names have case */
	    {"parley.2, bearerx", true, false, NULL},
	    {"parley, bearer.a.b", true, true, "a.b"},
	    {"parley, parley", false, false, NULL},
	    {"bearer.a, bearer.b", false, false, NULL},
	    {"bearer.a, bearer.a", false, false, NULL},
	    {"parley, bearer.a b", false, false, NULL},
	    {"parley; bearer.a", false, false, NULL},
	    {"parley, \"bearer.a\"", false, false, NULL},
	    {"parley, bearer.a/b", false, false, NULL},
	    {"parley, bearer.a=", false, false, NULL},
	    {"parley, b\xc3\xa9", false, false, NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		struct ws_protocols found = {true, STR("untouched")};

		if (ws_protocols_parse(str_of(lists[i].list), &found) != lists[i].is_good)
			fail_msg("%s", lists[i].list);
		if (!lists[i].is_good) {
			assert_true(found.has_parley && str_eq(found.bearer, STR("untouched")));
			continue;
		}
		assert_int_equal(found.has_parley, lists[i].has_parley);
		assert_int_equal(found.bearer.p != NULL, lists[i].bearer != NULL);
		assert_true(str_eq(found.bearer, str_of(lists[i].bearer)));
	}
	struct ws_protocols found;
	assert_false(ws_protocols_parse(str_sub("parley\0", 7), &found));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_openings),
	    cmocka_unit_test(test_accept),
	    cmocka_unit_test(test_protocols),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
