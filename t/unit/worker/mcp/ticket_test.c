/* ticket_test - what is sealed is read back, and nothing else is. */
#include "worker/mcp/ticket.h"

#include "t/unit/unit.h"

static const struct mcp_ticket sample = {
    .revision = MCP_2025_06_18,
    .owner = {1, 2, 3, 4, 5, 6, 7, 255},
    .issued_ms = 1790000000123,
    .nonce = 0xfedcba9876543210,
    .caps = TICKET_SAMPLING | TICKET_ROOTS,
    .home = {0x8000000000000001, 0xffffffff, 7},
};

static void
round_trip(void **state)
{
	char text[TICKET_TEXT_LEN + 1];
	struct mcp_ticket t;

	(void)state;
	mcp_ticket_format(&sample, STR("key"), text);
	assert_int_equal(strlen(text), TICKET_TEXT_LEN);
	assert_true(mcp_ticket_parse(str_of(text), STR("key"), &t));
	assert_int_equal(t.revision, sample.revision);
	assert_memory_equal(t.owner, sample.owner, sizeof(t.owner));
	assert_true(t.issued_ms == sample.issued_ms && t.nonce == sample.nonce);
	assert_int_equal(t.caps, sample.caps);
	assert_true(t.home.host == sample.home.host && t.home.row == sample.home.row &&
		    t.home.number == sample.home.number);
	assert_false(mcp_ticket_parse(str_of(text), STR("other"), &t));
}

static void
every_changed_byte_is_noticed(void **state)
{
	char text[TICKET_TEXT_LEN + 1];
	struct mcp_ticket t;

	(void)state;
	mcp_ticket_format(&sample, STR("key"), text);
	for (size_t i = 0; i < TICKET_TEXT_LEN; i++) {
		char was = text[i];

		text[i] = was == 'A' ? 'B' : 'A';
		assert_false(mcp_ticket_parse(str_of(text), STR("key"), &t));
		text[i] = was;
		assert_false(mcp_ticket_parse(str_sub(text, i), STR("key"), &t));
	}
	assert_false(mcp_ticket_parse(STR_NONE, STR("key"), &t));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(round_trip),
	    cmocka_unit_test(every_changed_byte_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
