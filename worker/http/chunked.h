/*
 * chunked - the body of a request in chunks, strictly by RFC 9112, section 7.1.
 *
 * Pure. Decodes in place: size lines, extensions and trailers are taken out.
 */
#ifndef WORKER_HTTP_CHUNKED_H
#define WORKER_HTTP_CHUNKED_H

#include <stddef.h>
#include <stdint.h>

enum {
	CHUNKED_MORE = -2,
	CHUNKED_BAD = -1,
	CHUNKED_OVERHEAD_MAX = 16 << 10, /* extensions and trailers of one body */
};

/* As picohttpparser's decoder in size and zeroed start: h2o allocates it. */
struct phr_chunked_decoder {
	size_t bytes_left; /* of the present chunk */
	char consume_trailer;
	uint8_t digits;
	uint8_t state;
	uint32_t overhead;
};

/*
 * Decodes buf[0..*len), which follows what was given before: *len becomes the number of body bytes
 * at buf. The number of bytes after them that belong to what follows the body; CHUNKED_MORE;
 * CHUNKED_BAD.
 */
long chunked_decode(struct phr_chunked_decoder *, char *buf, size_t *len);

#endif
