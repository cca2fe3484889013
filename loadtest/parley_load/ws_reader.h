/*
 * ws_reader - the frames of RFC 6455 as a client sees them: unmasked, wherever
 * the bytes were split.
 *
 * Pure. Between frames there is no memory but one pointer; a frame that came in
 * one piece is given as it lies in the input. What frames mean together is not
 * looked at: of a message in fragments each frame is told.
 */
#ifndef LOADTEST_PARLEY_LOAD_WS_READER_H
#define LOADTEST_PARLEY_LOAD_WS_READER_H

#include "common/str.h"
#include "worker/ws/frame.h"

/* A frame's payload; no server that is measured says more at once. */
enum { WS_READER_PAYLOAD_MAX = 16 << 20 };

struct ws_reader {            /* zeroed before first use */
	struct ws_kept *kept; /* of a frame that is not whole; NULL: nothing */
};

struct ws_got {
	struct str data; /* valid until the next call */
	enum ws_opcode opcode;
	bool is_final;
};

enum ws_reader_said {
	WS_READER_MORE,  /* all bytes are taken */
	WS_READER_FRAME, /* *ret is set */
	WS_READER_FAULT, /* no server may send this */
};

/* Call it until it does not say WS_READER_FRAME. */
enum ws_reader_said ws_reader_next(struct ws_reader *, struct ws_bytes *in, struct ws_got *ret);
void ws_reader_fini(struct ws_reader *); /* empty and usable afterwards */

#endif
