/* ws_chat_member: who follows a session, among many others, whoever comes and goes. */
#include "worker/api/ws_chat_member.h"

#include <stdlib.h>

#include "common/check.h"
#include "t/unit/unit.h"

enum { SESSIONS = 500, EACH = 3 };

static struct chat_member *
add(struct chat_table *t, const struct id *session)
{
	struct chat_member *m = xcalloc(1, sizeof(*m));

	id_bits(session, m->session);
	chat_table_add(t, m);
	return m;
}

static size_t
count_of(const struct chat_table *t, const struct id *session)
{
	struct chat_member *m = chat_table_first(t, session);
	size_t count = 0;

	for (; m != NULL; m = chat_table_next(m)) {
		struct id of = chat_member_session(m);

		assert_string_equal(of.s, session->s);
		count++;
	}
	return count;
}

static void
test_empty(void **state)
{
	struct chat_table t = {0};
	struct id session = id_new("sess");

	assert_null(chat_table_first(&t, &session));
	chat_table_fini(&t);
}

static void
test_many(void **state)
{
	static struct chat_member *members[SESSIONS][EACH];
	static struct id sessions[SESSIONS];
	struct chat_table t = {0};
	struct id nobodys = id_new("sess");

	for (int i = 0; i < SESSIONS; i++)
		sessions[i] = id_new("sess");
	for (int j = 0; j < EACH; j++) {
		for (int i = 0; i < SESSIONS; i++)
			members[i][j] = add(&t, &sessions[i]);
	}
	assert_int_equal(t.member_count, SESSIONS * EACH);
	assert_true(t.place_count <= 2 * t.member_count);
	assert_null(chat_table_first(&t, &nobodys));
	for (int i = 0; i < SESSIONS; i++)
		assert_int_equal(count_of(&t, &sessions[i]), EACH);
	/* The first, the last and one between of a chain: all orders occur. */
	for (int i = 0; i < SESSIONS; i++) {
		for (int j = 0; j < EACH; j++) {
			struct chat_member *m = members[i][(i + j) % EACH];

			chat_table_remove(&t, m);
			assert_null(m->at);
			free(m);
			assert_int_equal(count_of(&t, &sessions[i]), EACH - 1 - j);
		}
	}
	for (int i = 0; i < SESSIONS; i++)
		assert_null(chat_table_first(&t, &sessions[i]));
	chat_table_fini(&t);
}

/* All in one chain: the same random end. */
static void
test_one_chain(void **state)
{
	struct chat_member members[64] = {0};
	struct chat_table t = {0};
	uint8_t bits[CHAT_ID_BITS] = {0};

	for (int i = 0; i < 64; i++) {
		members[i].session[0] = (uint8_t)i;
		chat_table_add(&t, &members[i]);
	}
	for (int i = 0; i < 64; i++) {
		bits[0] = (uint8_t)i;
		struct id session = id_of_bits("sess", bits);

		assert_ptr_equal(chat_table_first(&t, &session), &members[i]);
		assert_null(chat_table_next(&members[i]));
		chat_table_remove(&t, &members[i]);
		assert_null(chat_table_first(&t, &session));
	}
	chat_table_fini(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_empty),
	    cmocka_unit_test(test_many),
	    cmocka_unit_test(test_one_chain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
