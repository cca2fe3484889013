/* studio - see studio.h. */
#include "loadtest/mock_llm/studio.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "loadtest/mock_llm/play.h"

enum { VIDEO_MS = 300, IMAGES_MAX = 10 };

static void
reply(struct conn *conn, json_t *body)
{
	char *text = json_dumps(body, JSON_COMPACT);

	json_decref(body);
	conn_reply(conn, 200, "application/json", "", str_of(text));
	free(text);
}

static void
refuse(struct conn *conn, const char *why)
{
	play_error(conn, 400, "invalid_request_error", "invalid_request", why, NULL);
}

/* ---- images ---- */

static void
images(struct conn *conn, const json_t *request)
{
	const json_t *n = json_object_get(request, "n");
	json_int_t count = json_is_integer(n) ? json_integer_value(n) : 1;
	json_t *data = json_array();

	if (count < 1 || count > IMAGES_MAX) {
		json_decref(data);
		refuse(conn, "n: 1 to 10");
		return;
	}
	for (json_int_t i = 0; i < count; i++)
		json_array_append_new(
		    data, json_pack("{s:o}", "url",
			      json_sprintf("https://mock.invalid/image/%d.png", (int)i)));
	reply(conn,
	    json_pack("{s:I,s:o}", "created", (json_int_t)(clock_wall_ms() / 1000), "data", data));
}

/* ---- videos ---- */

static void
begin_video(struct conn *conn, const struct plan *plan)
{
	uint32_t takes_ms = plan->has_first ? plan->first_ms : VIDEO_MS;
	bool fails = plan->fault == FAULT_FINISH_CUT;

	reply(conn,
	    json_pack("{s:o,s:s,s:s,s:i}", "id",
		json_sprintf("video_%lld_%u_%d", (long long)clock_wall_ms(), takes_ms, (int)fails),
		"object", "video", "status", "queued", "progress", 0));
}

/* video_<begun>_<takes>_<fails>, as begin_video() has named it. */
static bool
video_parse(const char *id, long long *begun_ms, unsigned *takes_ms, int *fails)
{
	static const char prefix[] = "video_";
	char *end;

	if (strncmp(id, prefix, sizeof(prefix) - 1) != 0)
		return false;
	*begun_ms = strtoll(id + sizeof(prefix) - 1, &end, 10);
	if (*end++ != '_')
		return false;
	*takes_ms = (unsigned)strtoul(end, &end, 10);
	if (*end++ != '_')
		return false;
	*fails = (int)strtol(end, &end, 10);
	return *end == '\0';
}

static void
show_video(struct conn *conn, const char *id)
{
	long long begun_ms;
	unsigned takes_ms;
	int fails;

	if (!video_parse(id, &begun_ms, &takes_ms, &fails)) {
		play_error(conn, 404, "invalid_request_error", "not_found", "no such video", NULL);
		return;
	}
	long long age_ms = clock_wall_ms() - begun_ms;
	if (age_ms < (long long)takes_ms)
		reply(conn, json_pack("{s:s,s:s,s:i}", "id", id, "status", "in_progress",
				"progress", (int)(age_ms * 100 / (takes_ms + 1))));
	else if (fails)
		reply(conn, json_pack("{s:s,s:s,s:{s:s,s:s}}", "id", id, "status", "failed",
				"error", "code", "internal_error", "message", "the studio burned"));
	else
		reply(conn,
		    json_pack("{s:s,s:s,s:i,s:o}", "id", id, "status", "completed", "progress", 100,
			"url", json_sprintf("https://mock.invalid/%s.mp4", id)));
}

/* ---- which ---- */

static struct str
behind(struct str path, struct str what)
{
	const char *at = path.len >= what.len ? memmem(path.p, path.len, what.p, what.len) : NULL;

	return at != NULL ? str_sub(at + what.len, path.len - (size_t)(at - path.p) - what.len)
			  : STR_NONE;
}

bool
studio_is_path(const struct request *r)
{
	return behind(r->path, STR("/images/generations")).p != NULL ||
	       behind(r->path, STR("/videos")).p != NULL;
}

void
studio_answer(struct conn *conn, const struct request *r, const struct plan *plan)
{
	struct str name = behind(r->path, STR("/videos/"));
	bool is_images = behind(r->path, STR("/images/generations")).p != NULL;
	bool is_post = str_eq(r->method, STR("POST"));
	json_t *body = is_post ? json_loadb(r->body.p, r->body.len, 0, NULL) : NULL;
	char id[128];

	snprintf(id, sizeof(id), "%.*s", (int)name.len, name.len > 0 ? name.p : "");
	if (is_post && !json_is_string(json_object_get(body, "prompt")))
		refuse(conn, "prompt: expected a string");
	else if (is_post && is_images)
		images(conn, body);
	else if (is_post)
		begin_video(conn, plan);
	else if (str_eq(r->method, STR("DELETE")))
		reply(conn, json_pack("{s:s,s:b}", "id", id, "deleted", 1));
	else
		show_video(conn, id);
	json_decref(body);
}
