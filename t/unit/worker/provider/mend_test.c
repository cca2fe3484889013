/* mend_test - an answer in several attempts, laid one over another. */
#include "t/unit/unit.h"

#include <string.h>

#include "worker/provider/mend.h"

static struct mend mend;
static struct buf seen; /* as a client that obeys: "restart" empties it */
static unsigned restarts;

static void
take(struct mend_step step)
{
	if (step.is_restart) {
		buf_clear(&seen);
		restarts++;
		buf_add_str(&seen, step.again);
	}
	buf_add_str(&seen, step.text);
}

static void
say(const char *text)
{
	take(mend_text(&mend, str_of(text)));
}

static void
expect(const char *text, unsigned count)
{
	assert_string_equal(seen.len > 0 ? seen.data : "", text);
	assert_int_equal(restarts, count);
	assert_int_equal(mend.given.len, seen.len);
}

static int
setup(void **state)
{
	restarts = 0;
	return 0;
}

static int
teardown(void **state)
{
	mend_fini(&mend);
	buf_fini(&seen);
	return 0;
}

static void
test_one_attempt(void **state)
{
	say("a ");
	say("b");
	take(mend_end(&mend));
	expect("a b", 0);
}

static void
test_continued(void **state)
{
	say("a b");
	mend_begin(&mend, MEND_CONTINUES);
	assert_false(mend_is_silent(&mend));
	say(" c");
	take(mend_end(&mend));
	expect("a b c", 0);
}

static void
test_repeated(void **state)
{
	say("one two");
	mend_begin(&mend, MEND_REPEATS);
	say("one");
	expect("one two", 0);
	assert_true(mend_is_silent(&mend));
	say(" two three");
	assert_false(mend_is_silent(&mend));
	say(" four");
	take(mend_end(&mend));
	expect("one two three four", 0);
}

static void
test_parted(void **state)
{
	say("one two");
	mend_begin(&mend, MEND_REPEATS);
	say("one t");
	say("hree");
	say(" four");
	take(mend_end(&mend));
	expect("one three four", 1);
}

static void
test_shorter(void **state)
{
	say("one two");
	mend_begin(&mend, MEND_REPEATS);
	say("one");
	take(mend_end(&mend));
	expect("one", 1);
	/* and again, nothing at all */
	mend_begin(&mend, MEND_REPEATS);
	take(mend_end(&mend));
	expect("", 2);
}

/* The first byte of two characters may be the same. */
static void
test_whole_characters(void **state)
{
	say("x\xc3\xa4");
	mend_begin(&mend, MEND_REPEATS);
	struct mend_step step = mend_text(&mend, STR("x\xc3\xb6y"));
	assert_true(step.is_restart);
	assert_int_equal(step.again.len, 1);
	assert_memory_equal(step.text.p, "\xc3\xb6y", 3);
	take(step);
	expect("x\xc3\xb6y", 1);
}

static void
test_broken_again(void **state)
{
	say("one two");
	mend_begin(&mend, MEND_REPEATS);
	say("one"); /* cut here */
	mend_begin(&mend, MEND_REPEATS);
	say("one two three");
	expect("one two three", 0);
	mend_begin(&mend, MEND_REPEATS);
	say("none");
	expect("none", 1);
	mend_begin(&mend, MEND_CONTINUES);
	say(".");
	expect("none.", 1);
}

static void
test_reasoning(void **state)
{
	bool is_restart;

	assert_true(mend_reasoning(&mend, &is_restart));
	assert_false(is_restart);
	/* cut while it thought: the new thoughts are not the old ones */
	mend_begin(&mend, MEND_CONTINUES);
	assert_true(mend_reasoning(&mend, &is_restart));
	assert_true(is_restart);
	assert_true(mend_reasoning(&mend, &is_restart));
	assert_false(is_restart);
	say("one");
	expect("one", 0);
	/* the thoughts before a repeated text are not shown */
	mend_begin(&mend, MEND_REPEATS);
	assert_false(mend_reasoning(&mend, &is_restart));
	say("one two");
	expect("one two", 0);
}

static void
test_reasoning_then_text(void **state)
{
	bool is_restart;

	mend_reasoning(&mend, &is_restart);
	mend_begin(&mend, MEND_REPEATS);
	say("one");
	expect("one", 1);
}

/* Every way to split a repetition gives the same. */
static void
test_every_split(void **state)
{
	static const char *const first = "one tw\xc3\xb6", *const second = "one tw\xc3\xb6 three";

	for (size_t i = 0; i <= strlen(second); i++) {
		if (((unsigned char)second[i] & 0xc0) == 0x80)
			continue;
		say(first);
		mend_begin(&mend, MEND_REPEATS);
		take(mend_text(&mend, str_sub(second, i)));
		take(mend_text(&mend, str_of(second + i)));
		take(mend_end(&mend));
		expect(second, 0);
		mend_fini(&mend);
		buf_clear(&seen);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_one_attempt),
	    TEST(test_continued),
	    TEST(test_repeated),
	    TEST(test_parted),
	    TEST(test_shorter),
	    TEST(test_whole_characters),
	    TEST(test_broken_again),
	    TEST(test_reasoning),
	    TEST(test_reasoning_then_text),
	    TEST(test_every_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
