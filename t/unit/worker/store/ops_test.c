/*
 * ops_test - operations as data: complete, valid SQL, answered by indexes; their
 * wire form; and the two schemas, which must be one.
 *
 * With --postgres it prints every statement as PostgreSQL would have to prepare
 * it: t/wire/schema.test.mjs asks a real server.
 */
#include "t/unit/worker/store/world.h"

#include <ctype.h>

#include "worker/store/op_wire.h"
#include "worker/store/sqlite_db.h"

#define for_each_statement(op, st)                                                                 \
	for (const struct op_statement *st = (op)->statements;                                     \
	     st < (op)->statements + OP_STATEMENTS_MAX && st->sql != NULL; st++)

/* ---- the table ---- */

static void
assert_names_known(const struct op *op, const struct op_statement *st, const char *sql)
{
	for (const char *s = sql; (s = strchr(s, '$')) != NULL;) {
		size_t len = strspn(++s, "abcdefghijklmnopqrstuvwxyz_");

		if (op_position(op, st, str_sub(s, len)) < 0)
			fail_msg("%s: $%.*s is unknown", op->name, (int)len, s);
	}
}

static void
assert_op_is_whole(const struct op *op)
{
	size_t params = op_names_count(op->params);

	for (int g = 0; g < OP_GROUPS_MAX; g++) {
		assert_true(params + op_names_count(op->groups[g]) <= OP_VALUES_MAX);
		for (struct str rest = str_of(op->groups[g]); rest.len > 0;)
			assert_int_equal(op_position(op, &(struct op_statement){.each = 0},
					     str_split(&rest, ' ')),
			    -1);
	}
	for_each_statement(op, st)
	{
		assert_names_known(op, st, st->sql);
		if (st->postgres != NULL)
			assert_names_known(op, st, st->postgres);
		assert_int_equal(st->err != 0, st->expect == OP_ONE || st->expect == OP_NONE);
		assert_true(st->each == 0 || op->groups[st->each - 1] != NULL);
	}
}

static void
operations_are_whole(void **state)
{
	for (unsigned i = 0; i < OP_COUNT; i++) {
		const struct op *op = op_at(i);

		assert_op_is_whole(op);
		assert_int_equal(op_index(op), i);
		assert_ptr_equal(op_find(str_of(op->name)), op); /* no name twice */
	}
	assert_null(op_find(STR("no_such")));
}

static void
postgres_text_numbers_the_names(void **state)
{
	static const struct op op = {.params = "a b c", .groups = {"d"}};
	struct op_statement st = {.sql = "x $c $a $d '$' $c", .each = 1};
	struct buf out = BUF_INIT;
	uint8_t positions[OP_VALUES_MAX];

	assert_int_equal(op_postgres_text(&op, &st, positions, &out), 3);
	assert_string_equal(out.data, "x $1 $2 $3 '$' $1");
	assert_int_equal(positions[0], 2);
	assert_int_equal(positions[1], 0);
	assert_int_equal(positions[2], 3);
	buf_fini(&out);
}

/* ---- how SQLite goes about them ---- */

static void
explain(struct sqlite_db *db, const struct op *op, struct buf *out)
{
	unsigned i = 0;

	buf_clear(out);
	for_each_statement(op, st)
	{
		if (st->sql[0] != '\0')
			sqlite_db_explain(db, op, i, out);
		i++;
	}
}

static void
assert_plan(struct sqlite_db *db, const struct op *op, const char *wanted)
{
	struct buf plan = BUF_INIT;

	explain(db, op, &plan);
	if (strstr(plan.data, wanted) == NULL)
		fail_msg("%s: %s", op->name, plan.data);
	buf_fini(&plan);
}

static void
statements_are_valid_and_use_indexes(void **state)
{
	struct world w;
	struct sqlite_failure failure = {""};
	struct sqlite_db *db = NULL;
	struct buf plan = BUF_INIT;

	world_init(&w);
	assert_int_equal(store_migrate(&w.conf), 0);
	assert_int_equal(store_migrate(&w.conf), 0); /* again: nothing to do */
	assert_int_equal(
	    sqlite_db_open(&(struct sqlite_db_conf){.path = w.path, .failure = &failure}, &db), 0);
	for (unsigned i = 0; i < OP_COUNT; i++) {
		const struct op *op = op_at(i);

		/* Of a whole table only for people, and at start; of live turns where hosts die. */
		bool is_rare = op == &op_key_list || op == &op_session_count ||
			       op == &op_turn_lose_former || op == &op_hosts_lose;

		explain(db, op, &plan);
		if (!is_rare && strstr(plan.data, "SCAN chat_sessions") != NULL)
			fail_msg("%s: %s", op->name, plan.data);
		if (!is_rare)
			for (int t = 0; t < 4; t++) {
				static const char *const scans[] = {
				    "SCAN keys", "SCAN turns", "SCAN messages", "SCAN usage"};

				if (strstr(plan.data, scans[t]) != NULL)
					fail_msg("%s: %s", op->name, plan.data);
			}
	}
	assert_plan(db, &op_session_open,
	    "SEARCH chat_sessions USING INDEX chat_sessions_reuse"
	    " (app_id=? AND device_id=? AND last_activity_at>?)");
	assert_plan(db, &op_session_expire, "chat_sessions_idle (last_activity_at<?)");
	assert_plan(db, &op_session_list, "chat_sessions_app (app_id=?");
	assert_plan(db, &op_session_list_device, "chat_sessions_device (app_id=? AND device_id=?");
	assert_plan(db, &op_message_history, "messages_position (session_id=?)");
	assert_plan(db, &op_turn_live, "turns_live (session_id=?)");
	assert_plan(db, &op_turn_lose_all, "turns_owner (owner=?)");
	assert_plan(db, &op_budget_hold, "usage_days_key (key_id=? AND day>?)");
	assert_plan(db, &op_budget_hold, "usage_days_app (app_id=? AND day>?)");
	assert_plan(db, &op_budget_hold, "budget_holds_key (key_id=? AND day>?)");
	assert_plan(db, &op_budget_hold, "budget_holds_app (app_id=? AND day>?)");
	assert_plan(db, &op_budget_lose, "budget_holds_lapse (lapses_at<?)");
	assert_plan(
	    db, &op_usage_by_model, "usage_app (app_id=? AND created_at>? AND created_at<?)");
	buf_fini(&plan);
	sqlite_db_close(&db);
	world_fini(&w);
}

/* ---- the wire ---- */

static void
build_call(struct op_call *call)
{
	op_call_init(call, &op_turn_add);
	op_put_text(call, "turn_1");
	op_put_int(call, INT64_MIN);
	op_put_count(call, 2);
	for (int i = 0; i < 2; i++) {
		op_put_text(call, "sess_1");
		op_put_text(call, i == 0 ? "msg_1" : "");
		op_put_text(call, NULL);
		op_put_blob(call, "a\0b", 3);
		op_put_int(call, i);
		op_put_time(call, i);
	}
	assert_false(op_call_is_complete(call));
	op_put_count(call, 0);
	assert_true(op_call_is_complete(call));
}

static void
calls_come_back_from_the_wire(void **state)
{
	struct op_call call;
	struct op_call_view view;
	struct str rows;

	build_call(&call);
	assert_true(op_call_read(buf_str(&call.wire), &view));
	assert_ptr_equal(view.op, &op_turn_add);
	assert_int_equal(view.param_count, 2);
	assert_string_equal(op_text(&view.values[0]), "turn_1");
	assert_true(op_int(&view.values[1]) == INT64_MIN);
	assert_int_equal(view.groups[0].count, 2);
	assert_int_equal(view.groups[1].count, 0);
	rows = view.groups[0].rows;
	op_call_take_row(&view, 0, &rows);
	assert_string_equal(op_text(&view.values[2]), "sess_1");
	assert_null(op_text(&view.values[4]));
	assert_int_equal(view.values[5].type, OP_BLOB);
	assert_memory_equal(view.values[5].bytes.p, "a\0b", 3);
	assert_int_equal(view.values[7].type, OP_NULL);
	op_call_take_row(&view, 0, &rows);
	assert_string_equal(op_text(&view.values[3]), "");
	assert_int_equal(op_int(&view.values[7]), 1);
	op_call_fini(&call);
}

/* On the heap, at its exact size: a sanitizer sees the first byte too far. */
static bool
read_exactly(struct str wire, bool is_call)
{
	char *copy = malloc(wire.len > 0 ? wire.len : 1);
	struct op_call_view view;
	struct op_rows rows;
	bool is_good;

	memcpy(copy, wire.p, wire.len);
	wire.p = copy;
	is_good = is_call ? op_call_read(wire, &view) : op_rows_read(wire, &rows);
	free(copy);
	return is_good;
}

static void
assert_only_the_whole_is_read(struct str wire, bool is_call)
{
	char *bad = xstrndup("", 0);

	assert_true(read_exactly(wire, is_call));
	for (size_t len = 0; len < wire.len; len++)
		assert_false(read_exactly(str_sub(wire.p, len), is_call));
	bad = xrealloc(bad, wire.len + 1);
	memcpy(bad, wire.p, wire.len);
	bad[wire.len] = 0;
	assert_false(read_exactly(str_sub(bad, wire.len + 1), is_call));
	for (size_t i = 0; i < wire.len; i++)
		for (int value = 0; value < 256; value++) {
			bad[i] = (char)value;
			read_exactly(str_sub(bad, wire.len), is_call);
			bad[i] = wire.p[i];
		}
	free(bad);
}

static void
damaged_wires_are_refused(void **state)
{
	struct op_answer answer = {.err = E_TURN_IN_PROGRESS, .changes = 300, .columns = 2};
	struct op_value values[] = {
	    {.type = OP_TEXT, .bytes = STR("text")}, {.type = OP_INT, .number = -70000}};
	struct buf wire = BUF_INIT;
	struct op_call call;

	build_call(&call);
	assert_only_the_whole_is_read(buf_str(&call.wire), true);
	op_call_fini(&call);
	for (answer.rows = 0; answer.rows < 3; answer.rows++) {
		op_answer_add(&answer, &values[0]);
		op_answer_add(&answer, &values[1]);
	}
	op_answer_write(&answer, &wire);
	assert_only_the_whole_is_read(buf_str(&wire), false);
	op_answer_fini(&answer);
	buf_fini(&wire);
}

static void
answers_come_back_from_the_wire(void **state)
{
	struct op_answer answer = {
	    .err = E_TURN_IN_PROGRESS, .changes = 300, .columns = 2, .rows = 1, .is_cut = true};
	struct op_value values[OP_VALUES_MAX] = {
	    {.type = OP_TEXT, .bytes = STR("text")}, {.type = OP_INT, .number = -70000}};
	struct buf wire = BUF_INIT;
	struct op_rows rows;

	op_answer_add(&answer, &values[0]);
	op_answer_add(&answer, &values[1]);
	op_answer_write(&answer, &wire);
	assert_true(op_rows_read(buf_str(&wire), &rows));
	assert_int_equal(rows.err, E_TURN_IN_PROGRESS);
	assert_int_equal(rows.changes, 300);
	assert_true(rows.is_cut);
	assert_true(op_rows_next(&rows, values));
	assert_string_equal(op_text(&values[0]), "text");
	assert_int_equal(op_int(&values[1]), -70000);
	assert_false(op_rows_next(&rows, values));
	op_answer_fini(&answer);
	buf_fini(&wire);
}

/* ---- the two schemas ---- */

enum { LINES_MAX = 1000, LINE_MAX_LEN = 512 };

struct schema {
	char lines[LINES_MAX][LINE_MAX_LEN];
	size_t count;
};

/* What counts: no comments, no empty lines, no functions, no " STRICT". */
static void
read_schema(const char *path, struct schema *ret)
{
	FILE *f = fopen(path, "r");
	char line[LINE_MAX_LEN], *strict;
	bool is_function = false;

	assert_non_null(f);
	ret->count = 0;
	while (fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strstr(line, "CREATE OR REPLACE FUNCTION") != NULL)
			is_function = true;
		if (is_function) {
			is_function = strstr(line, "$$;") == NULL;
			continue;
		}
		if (line[0] == '\0' || strncmp(line, "--", 2) == 0)
			continue;
		if ((strict = strstr(line, ") STRICT;")) != NULL)
			strcpy(strict, ");");
		assert_true(ret->count < LINES_MAX);
		strcpy(ret->lines[ret->count++], line);
	}
	fclose(f);
}

static const char *
postgres_type(const char *name, const char *type, const char *theirs)
{
	if (strcmp(type, "BLOB") == 0)
		return "bytea";
	if (strcmp(type, "TEXT") == 0)
		return strncmp(theirs, "json", 4) == 0 ? theirs : "text";
	if (strlen(name) > 3 && strcmp(name + strlen(name) - 3, "_at") == 0)
		return "timestamptz";
	if (strncmp(name, "is_", 3) == 0)
		return "boolean";
	return strcmp(name, "version") == 0 ? "integer" : "bigint";
}

static void
assert_same_schema(const char *sqlite_path, const char *postgres_path)
{
	static struct schema sqlite, postgres;

	read_schema(sqlite_path, &sqlite);
	read_schema(postgres_path, &postgres);
	assert_true(sqlite.count > 1);
	assert_int_equal(sqlite.count, postgres.count);
	for (size_t i = 0; i < sqlite.count; i++) {
		char name[64], type[64], their_name[64], their_type[64];
		int end, their_end;

		if (sqlite.lines[i][0] != '\t') {
			assert_string_equal(sqlite.lines[i], postgres.lines[i]);
			continue;
		}
		assert_int_equal(sscanf(sqlite.lines[i], " %63s %63[A-Z]%n", name, type, &end), 2);
		assert_int_equal(sscanf(postgres.lines[i], " %63s %63[a-z]%n", their_name,
				     their_type, &their_end),
		    2);
		assert_string_equal(name, their_name);
		assert_string_equal(postgres_type(name, type, their_type), their_type);
		assert_string_equal(sqlite.lines[i] + end, postgres.lines[i] + their_end);
	}
}

static void
the_schemas_are_one(void **state)
{
	assert_same_schema("sql/sqlite/001_init.sql", "sql/postgres/001_init.sql");
	assert_same_schema("sql/sqlite/002_budgets.sql", "sql/postgres/002_budgets.sql");
	assert_same_schema("sql/sqlite/003_hosts.sql", "sql/postgres/003_hosts.sql");
	assert_same_schema("sql/sqlite/004_answers.sql", "sql/postgres/004_answers.sql");
	assert_same_schema("sql/sqlite/006_tasks.sql", "sql/postgres/006_tasks.sql");
	assert_same_schema("sql/sqlite/007_webhooks.sql", "sql/postgres/007_webhooks.sql");
	assert_same_schema(
	    "sql/sqlite/010_webhook_order.sql", "sql/postgres/010_webhook_order.sql");
}

static int
print_for_postgres(void)
{
	uint8_t positions[OP_VALUES_MAX];

	for (unsigned i = 0; i < OP_COUNT; i++) {
		int n = 0;

		for_each_statement(op_at(i), st)
		{
			struct buf sql = BUF_INIT;

			op_postgres_text(op_at(i), st, positions, &sql);
			if (sql.len > 0)
				printf("PREPARE %s_%d AS %s;\n", op_at(i)->name, n++, sql.data);
			buf_fini(&sql);
		}
	}
	return 0;
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(operations_are_whole),
	    cmocka_unit_test(postgres_text_numbers_the_names),
	    cmocka_unit_test(statements_are_valid_and_use_indexes),
	    cmocka_unit_test(calls_come_back_from_the_wire),
	    cmocka_unit_test(answers_come_back_from_the_wire),
	    cmocka_unit_test(damaged_wires_are_refused),
	    cmocka_unit_test(the_schemas_are_one),
	};

	if (argc > 1 && strcmp(argv[1], "--postgres") == 0)
		return print_for_postgres();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
