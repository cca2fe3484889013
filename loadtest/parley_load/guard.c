/* guard - a few numbers of /proc. */
#include "loadtest/parley_load/guard.h"

#include <inttypes.h>
#include <stdio.h>

enum { PROC_TEXT_MAX = 8192 };

/* The kernel drops packets at the last of tcp_mem's numbers; files need some room for others. */
static const double files_share_max = 0.97, tcp_share_max = 0.9;

/* The nth number after the word; `fallback` when it is not there. */
static uint64_t
number_after(struct str text, const char *word, int nth, uint64_t fallback)
{
	const char *at = text.len > 0 ? memmem(text.p, text.len, word, strlen(word)) : NULL;
	uint64_t n = fallback;

	if (at == NULL)
		return fallback;
	const char *end = text.p + text.len;
	for (at += strlen(word); nth > 0; nth--) {
		while (at < end && (*at < '0' || *at > '9') && *at != '\n')
			at++;
		const char *from = at;
		while (at < end && *at >= '0' && *at <= '9')
			at++;
		if (!str_to_u64(str_sub(from, (size_t)(at - from)), &n))
			return fallback;
	}
	return n;
}

struct guard_seen
guard_read(struct str meminfo, struct str file_nr, struct str sockstat, struct str tcp_mem)
{
	struct guard_seen seen;
	uint64_t free_kib = number_after(meminfo, "MemFree:", 1, UINT64_MAX / 1024);

	if (free_kib < UINT64_MAX / 1024)
		free_kib += number_after(meminfo, "Active(file):", 1, 0) +
			    number_after(meminfo, "Inactive(file):", 1, 0);
	seen.free_bytes = free_kib * 1024;
	seen.files_open = number_after(file_nr, "", 1, 0);
	seen.files_max = number_after(file_nr, "", 3, UINT64_MAX);
	seen.tcp_pages = number_after(sockstat, "TCP: inuse", 5, 0);
	seen.tcp_pages_max = number_after(tcp_mem, "", 3, UINT64_MAX);
	return seen;
}

const char *
guard_judge(const struct guard_seen *seen, uint64_t leave_bytes)
{
	static char reason[160];

	if (seen->free_bytes < leave_bytes)
		snprintf(reason, sizeof(reason),
		    "no more memory: %" PRIu64 " MiB are free, --leave-memory is %" PRIu64 " MiB",
		    seen->free_bytes >> 20, leave_bytes >> 20);
	else if ((double)seen->files_open > (double)seen->files_max * files_share_max)
		snprintf(reason, sizeof(reason),
		    "no more files: %" PRIu64 " of the machine's %" PRIu64
		    " (fs.file-max) are open",
		    seen->files_open, seen->files_max);
	else if ((double)seen->tcp_pages > (double)seen->tcp_pages_max * tcp_share_max)
		snprintf(reason, sizeof(reason),
		    "no more TCP memory: %" PRIu64 " of %" PRIu64 " pages (net.ipv4.tcp_mem)",
		    seen->tcp_pages, seen->tcp_pages_max);
	else
		return NULL;
	return reason;
}

static struct str
read_text(const char *path, char text[PROC_TEXT_MAX])
{
	FILE *f = fopen(path, "re");
	size_t len = 0;

	if (f != NULL) {
		len = fread(text, 1, PROC_TEXT_MAX, f);
		fclose(f);
	}
	return str_sub(text, len);
}

const char *
guard_look(uint64_t leave_bytes)
{
	static char texts[4][PROC_TEXT_MAX];
	struct guard_seen seen = guard_read(read_text("/proc/meminfo", texts[0]),
	    read_text("/proc/sys/fs/file-nr", texts[1]), read_text("/proc/net/sockstat", texts[2]),
	    read_text("/proc/sys/net/ipv4/tcp_mem", texts[3]));

	return guard_judge(&seen, leave_bytes);
}
