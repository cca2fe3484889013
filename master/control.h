/*
 * control - the socket in run_dir through which `parleyd status|reload|drain` speak
 * to the running master.
 *
 * One line asks ("status\n"), one answer follows, then the connection ends. The answer's
 * first line is "ok" or "error <why>"; after it comes text for people. The socket is
 * 0600: who may open it is who runs the server.
 */
#ifndef MASTER_CONTROL_H
#define MASTER_CONTROL_H

#include <stdbool.h>

#include <event2/event.h>

#include "common/buf.h"
#include "common/conf.h"

struct control;

/* Of error the text is why not; later: control_answer() gives it. */
enum control_answer { CONTROL_OK, CONTROL_ERROR, CONTROL_LATER };

typedef enum control_answer control_verb(void *arg, struct buf *out); /* appends its text */

struct control_verbs {
	control_verb *status, *reload, *drain;
	control_verb *drain_for_restart; /* systemd starts the next one at once */
	control_verb *keys;              /* keys in the store were changed */
	control_verb *upgrade;
};

/* NULL: logged. verbs and arg outlive it. */
struct control *control_new(
    struct event_base *, const char *path, const struct control_verbs *, void *arg);
/* Of a listening socket that is there, now the control's. */
struct control *control_of_fd(struct event_base *, int fd, const struct control_verbs *, void *arg);
int control_fd(const struct control *);
void control_stop_listening(struct control *); /* another master accepts from the socket */
void control_free(struct control **);

/* To all who wait for that verb; NULL has none. */
void control_answer(struct control *, const char *verb, bool is_ok, struct str text);

/*
 * The other end: asks the server of that configuration and waits. False: *answer is why
 * not; *ret_is_running says whether there is a server at all.
 */
bool control_ask(const struct conf *, const char *verb, struct buf *answer, bool *ret_is_running);

#endif
