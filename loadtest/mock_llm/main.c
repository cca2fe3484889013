/*
 * mock_llm - an OpenAI-compatible upstream for tests and benchmarks.
 *
 * POST /v1/chat/completions, /v1/embeddings, images and videos (studio.h), GET /v1/models, and
 * /mock/.. for the tests. One process, one loop. What it can be asked to do is in plan.h and
 * faults.tbl; --help prints it.
 */
#include <event2/event.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/check.h"
#include "loadtest/mock_llm/control.h"
#include "loadtest/mock_llm/messages.h"
#include "loadtest/mock_llm/play.h"
#include "loadtest/mock_llm/studio.h"

enum { EMBEDDING_DIMENSIONS = 8, EMBEDDING_DIMENSIONS_MAX = 4096 };

struct mock {
	struct event_base *base;
	struct server *server;
	struct control *control;
	struct plan defaults;
};

/* ---- routes ---- */

static void
reply_json(struct conn *conn, json_t *body)
{
	char *text = json_dumps(body, JSON_COMPACT);

	json_decref(body);
	conn_reply(conn, 200, "application/json", "", str_of(text));
	free(text);
}

static void
answer_models(struct conn *conn)
{
	static const char *const ids[] = {"mock", "mock-embedding", "gpt-4o-mini"};
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		json_array_append_new(
		    list, json_pack("{s:s, s:s, s:i, s:s}", "id", ids[i], "object", "model",
			      "created", 0, "owned_by", "mock"));
	reply_json(conn, json_pack("{s:s, s:o}", "object", "list", "data", list));
}

/* A vector that depends on the text only, of values between -1 and 1. */
static json_t *
embedding_of(struct str text, json_int_t dimensions)
{
	json_t *vector = json_array();
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < text.len; i++)
		h = (h ^ (unsigned char)text.p[i]) * 16777619u;
	for (json_int_t i = 0; i < dimensions; i++) {
		h = (h ^ (uint32_t)i) * 16777619u;
		json_array_append_new(vector, json_real((int32_t)h / 2147483648.0));
	}
	return vector;
}

static struct str
json_text(const json_t *j)
{
	return str_sub(json_string_value(j), json_string_length(j));
}

static void
answer_embeddings(struct conn *conn, const json_t *request)
{
	json_t *input = json_object_get(request, "input"), *data = json_array();
	const json_t *asked = json_object_get(request, "dimensions");
	json_int_t dimensions =
	    json_is_integer(asked) ? json_integer_value(asked) : EMBEDDING_DIMENSIONS;
	size_t count = json_is_string(input) ? 1 : json_array_size(input), bytes = 0;

	if (count == 0 || dimensions < 1 || dimensions > EMBEDDING_DIMENSIONS_MAX) {
		json_decref(data);
		play_error(conn, 400, "invalid_request_error", "invalid_request",
		    "input: expected a string or an array of strings", NULL);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		struct str text =
		    json_text(json_is_string(input) ? input : json_array_get(input, i));

		bytes += text.len;
		json_array_append_new(
		    data, json_pack("{s:s, s:I, s:o}", "object", "embedding", "index",
			      (json_int_t)i, "embedding", embedding_of(text, dimensions)));
	}
	json_int_t tokens = (json_int_t)(bytes + 3) / 4;
	reply_json(conn, json_pack("{s:s, s:o, s:O, s:{s:I, s:I}}", "object", "list", "data", data,
			     "model", json_object_get(request, "model"), "usage", "prompt_tokens",
			     tokens, "total_tokens", tokens));
}

static void
answer_chat(struct mock *m, struct conn *conn, const json_t *request, struct plan *plan)
{
	const json_t *model = json_object_get(request, "model");

	if (json_is_string(model))
		plan_parse_model(plan, json_text(model));
	play_chat(m->base, m->control, conn, request, false, plan);
}

/* Anthropic's: the same answers in other words. */
static void
answer_messages(struct mock *m, struct conn *conn, const struct request *r, const json_t *request,
    struct plan *plan)
{
	const char *error = NULL;
	json_t *chat = messages_request(request, &error);

	if (request_header(r, STR("x-api-key")).len == 0 ||
	    request_header(r, STR("anthropic-version")).len == 0)
		error = "x-api-key and anthropic-version: headers are required";
	if (!json_is_string(json_object_get(request, "model")))
		error = "model: Field required";
	if (error != NULL) {
		plan_fini(plan);
		play_error(conn, 400, "invalid_request_error", "invalid_request", error, NULL);
	} else {
		plan_parse_model(plan, json_text(json_object_get(request, "model")));
		play_chat(m->base, m->control, conn, chat, true, plan);
	}
	json_decref(chat);
}

/* Other routes than chat have the faults that come before an answer. */
static bool
has_early_fault(struct mock *m, struct conn *conn, struct plan *plan)
{
	bool is_done = control_spend(m->control, plan) && play_early_fault(conn, plan);

	plan_fini(plan);
	return is_done;
}

static bool
ends_with(struct str s, struct str end)
{
	return s.len >= end.len && str_eq(str_sub(s.p + s.len - end.len, end.len), end);
}

static void
answer_post(struct mock *m, struct conn *conn, const struct request *r, struct plan *plan)
{
	json_t *body = json_loadb(r->body.p, r->body.len, 0, NULL);

	if (!json_is_object(body)) {
		plan_fini(plan);
		play_error(conn, 400, "invalid_request_error", "invalid_json",
		    "the body is not a JSON object", NULL);
	} else if (ends_with(r->path, STR("/chat/completions")))
		answer_chat(m, conn, body, plan);
	else if (ends_with(r->path, STR("/messages")))
		answer_messages(m, conn, r, body, plan);
	else if (!has_early_fault(m, conn, plan))
		answer_embeddings(conn, body);
	json_decref(body);
}

/* Also directives in a model's name, and in the prompt. */
static void
studio(struct mock *m, struct conn *conn, const struct request *r, struct plan *plan)
{
	json_t *body = json_loadb(r->body.p, r->body.len, 0, NULL);
	struct buf plain = BUF_INIT;
	const char *error = NULL;

	if (json_is_string(json_object_get(body, "model")))
		plan_parse_model(plan, json_text(json_object_get(body, "model")));
	if (json_is_string(json_object_get(body, "prompt")))
		plan_parse_message(
		    plan, json_text(json_object_get(body, "prompt")), &plain, &error);
	buf_fini(&plain);
	json_decref(body);
	if (!control_spend(m->control, plan) || !play_early_fault(conn, plan))
		studio_answer(conn, r, plan);
	plan_fini(plan);
}

static void
on_request(void *arg, struct conn *conn, const struct request *r)
{
	struct mock *m = arg;
	struct plan plan;
	const char *error;
	bool is_post = str_eq(r->method, STR("POST"));

	if (str_eq(r->path, STR("/")) || str_eq(r->path, STR("/health"))) {
		conn_reply(conn, 200, "text/plain", "", STR("mock_llm\n"));
		return;
	}
	if (control_answer(m->control, m->server, conn, r))
		return;
	control_note(m->control, r);
	plan_copy(&plan, &m->defaults);
	control_apply(m->control, &plan);
	if (!plan_parse(&plan, request_header(r, STR("x-mock")), &error)) {
		plan_fini(&plan);
		play_error(conn, 400, "invalid_request_error", "invalid_request", error, NULL);
	} else if (studio_is_path(r)) {
		studio(m, conn, r, &plan);
	} else if (is_post && (ends_with(r->path, STR("/chat/completions")) ||
				  ends_with(r->path, STR("/messages")) ||
				  ends_with(r->path, STR("/embeddings")))) {
		answer_post(m, conn, r, &plan);
	} else if (!is_post && ends_with(r->path, STR("/models"))) {
		if (!has_early_fault(m, conn, &plan))
			answer_models(conn);
	} else {
		plan_fini(&plan);
		play_error(conn, 404, "invalid_request_error", "not_found", "no such route", NULL);
	}
}

/* ---- the program ---- */

static void
print_help(void)
{
	printf("mock_llm [--listen ADDR:PORT] [--tokens N] [--interval-ms N] [--first-ms N]\n\n"
	       "  --listen ADDR:PORT  default 127.0.0.1:0; the address is printed when ready\n"
	       "  --tokens N          answer tok0 tok1 ..; without it: echo: and the user's text\n"
	       "  --interval-ms N     between deltas; 0: as fast as they are read, many in a "
	       "segment\n"
	       "  --first-ms N        before the head\n\n"
	       "Per request: header `X-Mock: tokens=20,interval=0`, model `mock-tokens-20`, or\n"
	       "[[mock tokens=20 ..]] in the last user message. Words: tokens interval first text\n"
	       "reasoning cached no_usage refusal finish burst stamped, tool=NAME args={..} "
	       "(repeated) "
	       "hops=N|endless,\n"
	       "fault after size hop times key retry_after message. Faults:\n\n");
#define X(name, text, help) printf("  %-17s %s\n", text, help);
#include "loadtest/mock_llm/faults.tbl"
#undef X
	printf("\nGET /mock/stats, GET /mock/requests, POST /mock/reset, POST /mock/fault\n"
	       "{\"next\":2,\"fault\":\"status:503\",\"retry_after\":1}\n");
}

static void
raise_file_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static uint32_t
number_or_exit(const char *option, const char *text)
{
	uint64_t n;

	if (!str_to_u64(str_of(text), &n) || n > UINT32_MAX) {
		fprintf(stderr, "mock_llm: --%s: not a number: %s\n", option, text);
		exit(64);
	}
	return (uint32_t)n;
}

/* The address to listen on. */
static const char *
parse_options(int argc, char **argv, struct plan *defaults)
{
	static const struct option options[] = {{"listen", required_argument, NULL, 'l'},
	    {"tokens", required_argument, NULL, 't'}, {"interval-ms", required_argument, NULL, 'i'},
	    {"first-ms", required_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *listen = "127.0.0.1:0";
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'l':
			listen = optarg;
			break;
		case 't':
			defaults->tokens = number_or_exit("tokens", optarg);
			defaults->has_tokens = true;
			break;
		case 'i':
			defaults->interval_ms = number_or_exit("interval-ms", optarg);
			break;
		case 'f':
			defaults->first_ms = number_or_exit("first-ms", optarg);
			break;
		case 'h':
			print_help();
			exit(0);
		default:
			exit(64);
		}
	}
	return listen;
}

static void
on_signal(evutil_socket_t sig, short what, void *arg)
{
	(void)sig, (void)what;
	event_base_loopbreak(arg);
}

int
main(int argc, char **argv)
{
	struct mock m = {.base = event_base_new()};

	check(m.base != NULL);
	plan_init(&m.defaults);
	const char *listen = parse_options(argc, argv, &m.defaults);
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	m.control = control_new();
	m.server = server_new(m.base, listen, &(struct server_handlers){on_request}, &m);
	if (m.server == NULL)
		exit(1);
	struct event *term = evsignal_new(m.base, SIGTERM, on_signal, m.base);
	struct event *intr = evsignal_new(m.base, SIGINT, on_signal, m.base);
	event_add(term, NULL);
	event_add(intr, NULL);
	printf("mock_llm listening on %s\n", server_address(m.server));
	fflush(stdout);
	event_base_dispatch(m.base);

	event_free(term);
	event_free(intr);
	server_free(&m.server);
	control_free(&m.control);
	plan_fini(&m.defaults);
	event_base_free(m.base);
	return 0;
}
