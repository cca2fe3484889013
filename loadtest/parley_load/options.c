/* options - one row per option; getopt's table and the help are made from the rows. */
#include "loadtest/parley_load/options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/conf_value.h"

enum kind { TARGET, OTHER, TEXT, SIZE, SHARE, U32, U64, REAL, FLAG, WHERE, EXPECT, HELP };

struct row {
	const char *name, *arg, *help;
	enum kind kind;
	size_t offset;
	double min;
};

#define AT(field) offsetof(struct options, field)

static const struct row rows[] = {
    {"target", "HOST:PORT", "where Parley (or the mock) listens; IPv4 (127.0.0.1:8080)", TARGET, 0,
	0},
    {"other", "HOST:PORT",
	"another host, which gets the tool results and the attaches (the target)", OTHER, 0, 0},
    {"key", "KEY", "bearer token", TEXT, AT(key), 0},
    {"header", "TEXT", "one more header of every request, Name: value", TEXT, AT(header), 0},
    {"processes", "N", "that share the load (as many as the sockets need)", U32, AT(processes), 1},
    {"sources", "N", "loopback addresses per process (one per 13,000 users)", U32, AT(sources), 1},
    {"users", "N", "at once, of all processes (16)", U32, AT(users), 1},
    {"count", "N", "operations in all (1000, or what fits in the duration)", U64, AT(count), 1},
    {"duration", "SECONDS", "begin nothing new after so long, preparation left out", U32,
	AT(duration_s), 1},
    {"limit", "SECONDS", "give up after (60)", U32, AT(limit_s), 1},
    {"hold", "SECONDS", "idle ones, once all stand (until SIGTERM)", U32, AT(hold_s), 1},
    {"leave-memory", "SIZE", "begin nothing new when less of the machine's is free (256MiB)", SIZE,
	AT(leave_bytes), 0},
    {"rate", "N", "users who begin per second (all at once)", REAL, AT(rate), 0.01},
    {"offer", "N", "operations per second, whether answered or not; arrivals only", REAL,
	AT(offered), 0.01},
    {"pace", "SECONDS", "between two operations of a user, give or take a half (none)", REAL,
	AT(pace_s), 0},
    {"tokens", "N", "of an answer (20)", U32, AT(tokens), 1},
    {"interval", "MS", "between its tokens, each in a packet of its own (all at once)", U32,
	AT(interval_ms), 0},
    {"model", "NAME", "that is asked for through a gateway (mock)", TEXT, AT(model), 0},
    {"first", "MS", "before an answer through a gateway, give or take a half (0)", U32,
	AT(first_ms), 0},
    {"burst", "N", "tokens of it that come before the interval is kept (0)", U32, AT(burst), 0},
    {"turns", "N", "of a conversation, then a new one begins (10)", U32, AT(turns), 1},
    {"stall", "SECONDS", "that a slow reader reads nothing (20)", U32, AT(stall_s), 1},
    {"plain", NULL, "turns that are not streamed", FLAG, AT(is_plain), 0},
    {"method", "NAME", "of mcp: tools/call, tools/list or initialize (tools/call)", TEXT,
	AT(method), 0},
    {"tool", "NAME", "that mcp calls, with a text (echo)", TEXT, AT(tool), 0},
    {"legacy", NULL, "mcp has sessions: 2025-11-25 instead of 2026-07-28", FLAG, AT(is_legacy), 0},
    {"path", "PATH", "of WebSockets, of MCP (/ws/chat; /mcp)", TEXT, AT(path), 0},
    {"key-in", "WHERE", "an upgrade carries the key: header, protocol or query (header)", WHERE, 0,
	0},
    {"say", "TEXT", "over WebSockets, which any message answers (a ping of Parley's own)", TEXT,
	AT(say), 0},
    {"window", "N", "messages under way on each WebSocket of ws-echo (1)", U32, AT(window), 1},
    {"deflate", NULL, "an upgrade offers permessage-deflate, as browsers do", FLAG,
	AT(offers_deflate), 0},
    {"greet", "TEXT", "what a server wants to be told after the upgrade", TEXT, AT(greet), 0},
    {"greeted", "TEXT", "how its answer to that begins; what comes before is not heard", TEXT,
	AT(greeted), 0},
    {"join", NULL, "a session of its own with each idle WebSocket", FLAG, AT(joins), 0},
    {"devices", "PREFIX", "whose sessions they are, so that a later run finds them", TEXT,
	AT(devices), 0},
    {"sample", "N", "round trips a second over idle WebSockets (none)", REAL, AT(samples_per_s), 0},
    {"active", "PERCENT", "of idle WebSockets that chat, at the pace (0%)", SHARE, AT(active), 0},
    {"tools", "PERCENT", "of turns over WebSockets that call a client's tool (0%)", SHARE,
	AT(tools), 0},
    {"within", "SECONDS", "WebSockets that were cut come back, each at its own moment (at once)",
	REAL, AT(within_s), 0},
    {"passive", NULL, "ws-storm cuts nothing: the server does, or who kills its workers", FLAG,
	AT(is_passive), 0},
    {"journal", "FILE",
	"what became of each turn and connection: FILE.N of process N; steadfast only", TEXT,
	AT(journal), 0},
    {"expect", "TEST", "the run fails unless, as first_p99_us<50000; may be repeated", EXPECT, 0,
	0},
    {"help", NULL, "this", HELP, AT(wants_help), 0},
};

static bool
parse_address(const char *text, char host[OPTIONS_HOST_MAX], uint16_t *ret_port)
{
	const char *colon = strrchr(text, ':');
	struct in_addr address;
	uint64_t port;

	if (colon == NULL || (size_t)(colon - text) >= OPTIONS_HOST_MAX ||
	    !str_to_u64(str_of(colon + 1), &port) || port == 0 || port > UINT16_MAX)
		return false;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	*ret_port = (uint16_t)port;
	return inet_pton(AF_INET, host, &address) == 1;
}

static bool
parse_real(const char *text, double min, double *ret)
{
	char *end;
	double value = strtod(text, &end);

	if (*text < '0' || *text > '9' || *end != '\0' || value < min || value > 1e9)
		return false;
	*ret = value;
	return true;
}

static bool
parse_share(const char *text, double *ret)
{
	size_t len = strlen(text);
	char number[16];
	double percent;

	if (len < 2 || len > sizeof(number) || text[len - 1] != '%')
		return false;
	memcpy(number, text, len - 1);
	number[len - 1] = '\0';
	return parse_real(number, 0, &percent) && percent <= 100 && (*ret = percent / 100, true);
}

static bool
parse_key_in(const char *text, enum key_in *ret)
{
	static const char *const names[] = {
	    [KEY_IN_HEADER] = "header", [KEY_IN_PROTOCOL] = "protocol", [KEY_IN_QUERY] = "query"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strcmp(text, names[i]) == 0)
			return *ret = (enum key_in)i, true;
	}
	return false;
}

static bool
parse_expect(struct options *o, const char *text)
{
	return o->expect_count < OPTIONS_EXPECTS_MAX &&
	       expect_parse(text, &o->expects[o->expect_count]) && ++o->expect_count > 0;
}

static bool
parse_value(struct options *o, const struct row *row, const char *text)
{
	void *at = (char *)o + row->offset;
	uint64_t n;

	switch (row->kind) {
	case TARGET:
		return parse_address(text, o->host, &o->port);
	case OTHER:
		return parse_address(text, o->other_host, &o->other_port);
	case TEXT:
		*(const char **)at = text;
		return true;
	case SHARE:
		return parse_share(text, at);
	case SIZE:
		return conf_parse_size(str_of(text), at);
	case U32:
		if (!str_to_u64(str_of(text), &n) || (double)n < row->min || n > 100000000)
			return false;
		*(uint32_t *)at = (uint32_t)n;
		return true;
	case U64:
		return str_to_u64(str_of(text), &n) && (double)n >= row->min &&
		       (*(uint64_t *)at = n, true);
	case REAL:
		return parse_real(text, row->min, at);
	case FLAG:
	case HELP:
		*(bool *)at = true;
		return true;
	case WHERE:
		return parse_key_in(text, &o->key_in);
	case EXPECT:
		return parse_expect(o, text);
	}
	return false;
}

static const char *
check_together(struct options *o)
{
	if (o->users < o->processes)
		return "--users must be at least --processes";
	if ((o->greet == NULL) != (o->greeted == NULL))
		return "--greet and --greeted need each other";
	if (o->count == 0 && o->duration_s == 0)
		o->count = 1000;
	return NULL;
}

bool
options_parse(struct options *ret, int argc, char **argv, const char **ret_error)
{
	struct option table[ARRAY_LEN(rows) + 1] = {{0}};
	static char error[160];
	int index;

	*ret = (struct options){.host = "127.0.0.1",
	    .port = 8080,
	    .users = 16,
	    .limit_s = 60,
	    .leave_bytes = 256 << 20,
	    .tokens = 20,
	    .turns = 10,
	    .stall_s = 20,
	    .path = "/ws/chat",
	    .model = "mock",
	    .method = "tools/call",
	    .tool = "echo",
	    .window = 1};
	*ret_error = error;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		table[i] = (struct option){
		    rows[i].name, rows[i].arg != NULL ? required_argument : no_argument, NULL, 1};
	opterr = 0;
	optind = 0;
	for (int c; (c = getopt_long(argc, argv, "", table, &index)) != -1;) {
		if (c != 1) {
			snprintf(error, sizeof(error),
			    "no such option, or its value is missing: %s", argv[optind - 1]);
			return false;
		}
		if (!parse_value(ret, &rows[index], optarg)) {
			snprintf(error, sizeof(error), "--%s %.60s is not understood",
			    rows[index].name, optarg);
			return false;
		}
	}
	if (ret->wants_help)
		return true;
	if (optind != argc - 1) {
		snprintf(error, sizeof(error), "name one scenario");
		return false;
	}
	ret->scenario = argv[optind];
	*ret_error = check_together(ret);
	return *ret_error == NULL;
}

void
options_print(FILE *out)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *arg = rows[i].arg != NULL ? rows[i].arg : "";

		fprintf(out, "  --%s %-*s %s\n", rows[i].name, (int)(18 - strlen(rows[i].name)),
		    arg, rows[i].help);
	}
}
