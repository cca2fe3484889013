/* conf_keep: of two configurations, what a reload may change and what stays. */
#include "t/unit/unit.h"

#include <string.h>

#include "common/conf.h"

static struct conf *
load(const char *text)
{
	struct conf_source source = {.text = str_of(text)};
	struct buf errors = BUF_INIT;
	struct conf *conf = conf_load(&source, &errors);

	if (conf == NULL)
		fail_msg("%s", errors.data);
	buf_fini(&errors);
	return conf;
}

static void
test_live_keys_change_and_the_others_stay(void **state)
{
	struct conf *now = load("listen: [\"127.0.0.1:1\", \"unix:/a\"]\nbacklog: 1000\n"
				"run_dir: here\nmax_connections: 10\nlog: {level: warn}\n"
				"store: {url: \"sqlite:a\", pool_size: 3}\n");
	struct conf *next = load("listen: [\"127.0.0.1:2\"]\nbacklog: 2000\n"
				 "run_dir: there\nmax_connections: 20\nlog: {level: error}\n"
				 "store: {url: \"sqlite:b\", pool_size: 4}\n");
	struct buf keys = BUF_INIT, errors = BUF_INIT;

	assert_int_equal(conf_diff_needs_restart(now, next, &keys), 4);
	assert_true(conf_keep_needs_restart(next, now, &errors));
	assert_int_equal(errors.len, 0);
	buf_clear(&keys);
	assert_int_equal(conf_diff_needs_restart(now, next, &keys), 0);
	conf_free(&now); /* nothing of it is borrowed */
	assert_int_equal(next->listen.n, 2);
	assert_string_equal(next->listen.v[1], "unix:/a");
	assert_int_equal(next->backlog, 1000);
	assert_string_equal(next->run_dir, "here");
	assert_string_equal(next->store.url, "sqlite:a");
	assert_int_equal(next->store.pool_size, 4);
	assert_int_equal(next->max_connections, 20);
	assert_string_equal(next->log.level, "error");
	buf_fini(&keys);
	conf_free(&next);
}

/* Good on its own, but not with the listener and the backlog that stay. */
static void
test_what_does_not_go_together_is_refused(void **state)
{
	struct conf *now = load("listen: ['0.0.0.0:80']\nbacklog: 600\nkeys: []\n"
				"providers: [{name: p, base_url: 'http://h'}]\n"
				"models: [{name: m, targets: [{provider: p, model: x}]}]\n");
	struct conf *next = load("backlog: 1000\nconnection_queue_size: 1000\n"
				 "keys: [{kind: admin, secret: " CONF_DEMO_ADMIN_KEY "}]\n"
				 "providers: [{name: p, base_url: 'http://h'}]\n"
				 "models: [{name: m, targets: [{provider: p, model: x}]}]\n");
	struct buf errors = BUF_INIT;

	assert_false(conf_keep_needs_restart(next, now, &errors));
	assert_string_equal(errors.data, "with what needs a restart: connection_queue_size: "
					 "expected at most backlog, which is 600\n"
					 "with what needs a restart: keys[0].secret: a demo key is "
					 "refused on 0.0.0.0:80, which is "
					 "not loopback: expected a secret of your own\n");
	buf_fini(&errors);
	conf_free(&now);
	conf_free(&next);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_live_keys_change_and_the_others_stay),
	    cmocka_unit_test(test_what_does_not_go_together_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
