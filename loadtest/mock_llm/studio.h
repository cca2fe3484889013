/*
 * studio - images, and videos as jobs: POST /images/generations, POST /videos, GET and DELETE
 * /videos/ID.
 *
 * A job's id says when it was begun, how long it takes (`first=` ms, 300 without) and how it ends,
 * so nothing is kept: `fault=finish_cut` fails the job when it is done, those that come before an
 * answer do here as for every route.
 */
#ifndef LOADTEST_MOCK_LLM_STUDIO_H
#define LOADTEST_MOCK_LLM_STUDIO_H

#include <jansson.h>

#include "loadtest/mock_llm/plan.h"
#include "loadtest/mock_llm/server.h"

/* False: not such a path. The plan is borrowed. */
bool studio_is_path(const struct request *);
void studio_answer(struct conn *, const struct request *, const struct plan *);

#endif
