/*
 * turn_lost - what becomes of a live turn whose owner is dead, as a list of SQL assignments.
 *
 * Private to worker/store. Needs the parameters now and message.
 */
#ifndef WORKER_STORE_TURN_LOST_H
#define WORKER_STORE_TURN_LOST_H

#define TURN_LOST                                                                                  \
	"state = 'failed', error_code = 'worker_lost', error_message = $message,"                  \
	" fence = fence + 1, ended_at = from_ms($now)"

#endif
