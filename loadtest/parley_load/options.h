/*
 * options - the command line of parley_load. Pure: prints nothing, ends
 * nothing.
 */
#ifndef LOADTEST_PARLEY_LOAD_OPTIONS_H
#define LOADTEST_PARLEY_LOAD_OPTIONS_H

#include <stdio.h>

#include "loadtest/parley_load/expect.h"

enum { OPTIONS_EXPECTS_MAX = 16, OPTIONS_HOST_MAX = 16 };

enum key_in { KEY_IN_HEADER, KEY_IN_PROTOCOL, KEY_IN_QUERY };

struct options {
	char host[OPTIONS_HOST_MAX]; /* IPv4 */
	uint16_t port;
	char other_host[OPTIONS_HOST_MAX]; /* "": the same as the target */
	uint16_t other_port;
	const char *key;    /* borrowed from argv, as expects; NULL: none */
	const char *header; /* of each request, "Name: value"; NULL: none */
	const char *scenario;

	const char *path;            /* of WebSockets */
	enum key_in key_in;          /* of their upgrade */
	const char *say;             /* over them; NULL: a ping of Parley's own */
	uint32_t window;             /* messages under way on each */
	const char *greet, *greeted; /* said after it, and the start of the answer; NULL: neither */
	bool offers_deflate;
	bool joins;           /* idle ones a session of their own */
	const char *devices;  /* whose sessions those are; NULL: nobody's */
	double samples_per_s; /* round trips while they are held */
	double active;        /* the share of them that chats, 0 to 1 */
	double tools;         /* the share of turns that call a client's tool */
	double within_s;      /* after a cut they come back; each at a moment of its own */
	bool is_passive;      /* the server cuts, not we */
	const char *journal;  /* what happened, for who compares; NULL: nobody does */

	uint32_t processes; /* 0: as many as the sockets need */
	uint32_t sources;   /* loopback addresses a process connects from; 0: as many as it needs */
	uint32_t users;     /* of all processes, as all that follows */
	uint64_t count;     /* 0: until the duration ends */
	uint32_t duration_s; /* 0: until the count is reached */
	uint32_t limit_s;
	uint32_t hold_s;      /* 0: until SIGTERM */
	uint64_t leave_bytes; /* of memory: below it nothing is begun */
	double rate;          /* users who begin per second; 0: all at once */
	double offered;       /* operations per second, done or not */
	double pace_s;        /* of one user */

	uint32_t tokens, interval_ms, turns, stall_s;
	const char *model;
	const char *method, *tool; /* of MCP */
	bool is_legacy;
	uint32_t first_ms, burst; /* of the gateway scenario's answers */
	bool is_plain, wants_help;

	struct expect expects[OPTIONS_EXPECTS_MAX];
	size_t expect_count;
};

/* False: *ret_error (in static memory) says what is wrong. */
bool options_parse(struct options *ret, int argc, char **argv, const char **ret_error);

void options_print(FILE *);

#endif
