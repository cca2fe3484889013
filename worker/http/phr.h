/*
 * phr - the symbols of picohttpparser that we define in libh2o's place (phr.c).
 */
#ifndef WORKER_HTTP_PHR_H
#define WORKER_HTTP_PHR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct phr_header;
struct phr_chunked_decoder;

/* The length of the head, -2: not complete. Called by libh2o only. */
int phr_parse_request(const char *buf, size_t len, const char **method, size_t *method_len,
    const char **path, size_t *path_len, int *minor_version, struct phr_header *headers,
    size_t *num_headers, size_t last_len);

/* As chunked_decode(). Called by libh2o only. */
ssize_t phr_decode_chunked(struct phr_chunked_decoder *, char *buf, size_t *len);

/* Is it ours that libh2o calls? Not so when the executable does not export it. */
bool phr_is_in_place(void);

#endif
