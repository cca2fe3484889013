/*
 * tickets - the keys that TLS session tickets are sealed with, in shared memory: a client that
 * reconnects resumes at any worker.
 *
 * There are three, one per period: the present one seals, the one before it still opens,
 * and so does the next, because another host's clock may be ahead. The master writes, once in
 * a while; a reader that meets a write tries again, and goes without when the writer has died
 * in the midst of it.
 */
#ifndef COMMON_TICKETS_H
#define COMMON_TICKETS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

enum { TICKET_NAME_LEN = 16, TICKET_WORDS = 10 };

/* RFC 5077, 4: a name by which the key is found, a key to encrypt, one to authenticate. */
struct ticket_key {
	uint8_t name[TICKET_NAME_LEN];
	uint8_t aes[32];
	uint8_t hmac[32];
};

enum ticket_period { TICKET_LAST, TICKET_PRESENT, TICKET_NEXT, TICKET_PERIODS };

struct tickets {
	_Atomic uint64_t sequence; /* odd: being written; 0: never was */
	_Atomic uint64_t words[TICKET_PERIODS][TICKET_WORDS];
};

/* The master's. secret not empty: keys of the period of that number, made from it, the same at
 * every host; empty: random ones, of which the next becomes the present. */
void tickets_turn(struct tickets *, struct str secret, uint64_t period);

/* False: there is none. */
bool tickets_get(const struct tickets *, enum ticket_period, struct ticket_key *ret);

#endif
