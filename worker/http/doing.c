/*
 * doing - which request this worker is at, written where the master finds it when the worker is
 * dead.
 *
 * The fingerprint tells requests apart without telling what is in them: a hash of the name, the
 * path and the first kilobyte of the body (of a message).
 */
#include <string.h>

#include "worker/http/server.h"

enum { HASHED_MAX = 1024 };

/* Eight bytes at a time; not against an adversary, who would only mislead who reads the log. */
static uint64_t
mix(uint64_t h, struct str s)
{
	size_t len = s.len < HASHED_MAX ? s.len : HASHED_MAX;

	h ^= s.len;
	for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
		uint64_t word = 0;

		memcpy(&word, s.p + i, len - i < sizeof(word) ? len - i : sizeof(word));
		h = (h ^ word) * 0x9e3779b97f4a7c15ULL; /* 2^64 / the golden ratio */
		h ^= h >> 29;
	}
	return h;
}

void
http_doing(struct http_server *s, struct str name, struct str path, struct str bytes)
{
	uint64_t fingerprint = mix(mix(mix(1, name), path), bytes);

	s->is_doing = true;
	shm_row_begin_request(
	    s->handoff->shm, s->handoff->who, fingerprint & ~1ULL, name.p, name.len);
}

void
http_done(struct http_server *s)
{
	s->is_doing = false;
	shm_row_end_request(s->handoff->shm, s->handoff->who);
}

bool
http_doing_request(struct http_req *r)
{
	struct http_server *s = r->server;

	if (s->is_doing)
		return false;
	http_doing(s, str_of(r->route->pattern), r->path, http_body(r));
	return true;
}
