/*
 * parleyd - reads the command line and the configuration, then does what was asked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/conf.h"
#include "common/handoff.h"
#include "common/log.h"
#include "master/control.h"
#include "master/help.h"
#include "master/options.h"
#include "master/serve.h"
#include "master/status_main.h"

enum { EXIT_NOT_RUNNING = 3 }; /* as init scripts say it */

/* Asks the running server; its answer goes to standard output. */
static int
ask(const struct conf *conf, const char *verb)
{
	struct buf answer = BUF_INIT;
	bool is_running;
	bool is_ok = control_ask(conf, verb, &answer, &is_running);

	fputs(answer.data, is_ok ? stdout : stderr);
	buf_fini(&answer);
	if (is_ok)
		return EXIT_SUCCESS;
	return is_running ? EXIT_FAILURE : EXIT_NOT_RUNNING;
}

/* The running workers learn at once that keys have changed; without a server nobody must. */
static int
key_command(const struct conf *conf, int argc, char **argv)
{
	int status = worker_key_command(conf, argc, argv);
	struct buf answer = BUF_INIT;
	bool is_running;

	if (status == EXIT_SUCCESS && !control_ask(conf, "keys", &answer, &is_running) &&
	    is_running)
		fprintf(stderr, "the running server was not told: %s", answer.data);
	buf_fini(&answer);
	return status;
}

static int
print_config(const struct conf *conf)
{
	struct buf out = BUF_INIT;

	conf_print(conf, &out);
	fputs(out.data, stdout);
	buf_fini(&out);
	return EXIT_SUCCESS;
}

/* Verbs that need the configuration; takes it over. */
static int
run(struct conf *conf, const struct options *o)
{
	int status = EXIT_SUCCESS;

	switch (o->verb) {
	case VERB_SERVE:
		return serve(conf, o, environ);
	case VERB_CHECK_CONFIG:
		puts("the configuration is good");
		break;
	case VERB_PRINT_CONFIG:
		status = print_config(conf);
		break;
	case VERB_MIGRATE:
		status = worker_migrate(conf);
		break;
	case VERB_KEY:
		status = key_command(conf, o->verb_argc, o->verb_argv);
		break;
	case VERB_STATUS:
		status = status_command(conf, o->verb_argc, o->verb_argv);
		break;
	case VERB_RELOAD:
		status = ask(conf, "reload");
		break;
	case VERB_DRAIN:
		status = ask(conf, o->verb_argc > 0 ? "drain restart" : "drain");
		break;
	case VERB_UPGRADE:
		status = ask(conf, "upgrade");
		break;
	case VERB_HELP:
	case VERB_VERSION:
		break;
	}
	conf_free(&conf);
	return status;
}

static int
load_and_run(const struct options *o)
{
	struct conf_source source = options_conf_source(o, environ);
	struct buf errors = BUF_INIT;
	struct conf *conf = conf_load(&source, &errors);

	if (conf == NULL) {
		fputs(errors.data, stderr);
		buf_fini(&errors);
		return EX_CONFIG;
	}
	buf_fini(&errors);
	return run(conf, o);
}

static int
dispatch(const struct options *o)
{
	switch (o->verb) {
	case VERB_HELP:
		help_print(stdout);
		return EXIT_SUCCESS;
	case VERB_VERSION:
		printf("parleyd %s (%s)\n", PARLEY_VERSION, PARLEY_KIND);
		return EXIT_SUCCESS;
	default:
		return load_and_run(o);
	}
}

int
main(int argc, char **argv)
{
	struct options options;
	struct buf error = BUF_INIT;
	int status;

	if (options_parse(&options, argc, argv, &error)) {
		status = dispatch(&options);
	} else {
		fprintf(stderr, "parleyd: %s\n", error.data);
		help_print_usage(stderr);
		status = EX_USAGE;
	}
	buf_fini(&error);
	options_fini(&options);
	return status;
}
