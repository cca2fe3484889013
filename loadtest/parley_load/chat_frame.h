/*
 * chat_frame - what a frame of /ws/chat says, as far as a load generator must
 * know. Pure.
 *
 * The frame is searched, not parsed: a quote within a JSON text is escaped, so
 * that "name": can be nothing but a member. The first of a name counts.
 */
#ifndef LOADTEST_PARLEY_LOAD_CHAT_FRAME_H
#define LOADTEST_PARLEY_LOAD_CHAT_FRAME_H

#include "common/str.h"

enum chat_status {
	CHAT_OTHER, /* not a frame that is known here */
	CHAT_PROCESSING,
	CHAT_CHUNK,
	CHAT_TOOL_CALL,
	CHAT_RESTARTED,
	CHAT_COMPLETE,
	CHAT_ERROR,
	CHAT_JOINED,
	CHAT_PONG,
};

enum chat_status chat_frame_status(struct str frame);
/* Of a text member; empty: there is none. */
struct str chat_frame_text(struct str frame, const char *name);
/* Of a number that is not negative; 0: there is none. */
uint64_t chat_frame_number(struct str frame, const char *name);

#endif
