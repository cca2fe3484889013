/*
 * verdict - what an attempt means: delivered, again later, a dead letter. Pure: takes the dice.
 *
 *   2xx                       delivered
 *   410                       the endpoint wants no more (Standard Webhooks): it is disabled
 *   refused address, bad URL  dead at once: another attempt would be refused as well
 *   all else                  again after backoff * 2^n and up to a quarter more, or after a longer
 *                             Retry-After; dead when max_retries were made
 */
#ifndef WORKER_WEBHOOK_VERDICT_H
#define WORKER_WEBHOOK_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "worker/client/client.h"

enum verdict_what { VERDICT_DELIVERED, VERDICT_AGAIN, VERDICT_DEAD, VERDICT_GONE };

struct attempt {
	enum client_outcome outcome;
	int status;              /* 0: no head came */
	uint64_t before;         /* attempts before this one */
	uint64_t retry_after_ms; /* 0: none */
	double dice;             /* 0 <= dice < 1 */
};

struct verdict {
	enum verdict_what what;
	const char *error;    /* NULL: delivered */
	uint64_t delay_ms;    /* of VERDICT_AGAIN */
	bool counts_as_fault; /* for the breaker */
};

struct verdict verdict_of(const struct attempt *, const struct conf_webhooks *);

#endif
