/* progress - twice a second, as a faster line cannot be read. */
#include "loadtest/parley_load/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"

enum { EVERY_MS = 500 };

static void
print(const struct progress *p, const struct tally *t, uint64_t now_ms)
{
	double rate = (double)(t->done - p->shown_done) * 1e3 / (double)(now_ms - p->shown_ms);

	fprintf(stderr,
	    "\r\033[K%7.1f s  open %llu  done %llu (%.0f/s)  failed %llu  refused %llu  "
	    "p99 first %.1f ms, whole %.1f ms  lag %.1f ms",
	    (double)(now_ms - p->began_ms) / 1e3, (unsigned long long)t->open,
	    (unsigned long long)t->done, rate, (unsigned long long)t->failed,
	    (unsigned long long)t->refused, (double)latency_percentile(&t->first, 99) / 1e3,
	    (double)latency_percentile(&t->whole, 99) / 1e3,
	    (double)latency_percentile(&t->lag, 99) / 1e3);
	fflush(stderr);
}

void
progress_show(struct progress *p, const struct tally *tallies, uint32_t count)
{
	uint64_t now_ms = clock_mono_ms();

	if (now_ms - p->shown_ms < EVERY_MS || !isatty(STDERR_FILENO))
		return;
	struct tally *sum = xcalloc(1, sizeof(*sum));
	for (uint32_t i = 0; i < count; i++)
		tally_merge(sum, &tallies[i]);
	print(p, sum, now_ms);
	p->shown_ms = now_ms;
	p->shown_done = sum->done;
	free(sum);
}

void
progress_end(const struct progress *p)
{
	if (p->shown_ms > 0)
		fprintf(stderr, "\n");
}
