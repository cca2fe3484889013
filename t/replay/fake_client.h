/*
 * fake_client - client.h with the upstream in the test's hand.
 *
 * Every request is recorded, in order from 0; the test gives it a head, bytes, an end. The
 * limit until the first byte is kept by the fake, as the clock of fake_loop goes.
 */
#ifndef T_REPLAY_FAKE_CLIENT_H
#define T_REPLAY_FAKE_CLIENT_H

#include "worker/client/client.h"

unsigned fake_client_requests(void); /* ever made */
unsigned fake_client_open(void);     /* neither ended nor cancelled */
bool fake_client_is_open(unsigned i);
const char *fake_client_url(unsigned i);
const char *fake_client_body(unsigned i);
const char *fake_client_method(unsigned i);
const char *fake_client_header(unsigned i, const char *name); /* NULL: it has none */

void fake_client_head(unsigned i, int status, const char *type, const char *retry_after);
/* With a value of the header that the request keeps. */
void fake_client_head_kept(unsigned i, int status, const char *type, const char *kept);
void fake_client_say(unsigned i, const char *bytes);
void fake_client_end(unsigned i, enum client_outcome);

/* Of the chat-completions dialect. */
void fake_client_stream(unsigned i);                   /* 200, an event stream */
void fake_client_delta(unsigned i, const char *text);  /* an event */
void fake_client_finish(unsigned i);                   /* finish_reason stop */
void fake_client_answer(unsigned i, const char *text); /* all of it, and the end */
void fake_client_refuse(unsigned i, int status, const char *body, const char *retry_after);

void fake_client_forget(void); /* between tests; nothing is open */

#endif
