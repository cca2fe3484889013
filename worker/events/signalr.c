/* signalr - see signalr.h. */
#include "worker/events/signalr.h"

#include <string.h>

bool
signalr_next(struct str *rest, struct str *ret_record)
{
	const char *end = rest->len > 0 ? memchr(rest->p, SIGNALR_END, rest->len) : NULL;

	if (end == NULL)
		return false;
	*ret_record = str_sub(rest->p, (size_t)(end - rest->p));
	*rest = str_sub(end + 1, rest->len - ret_record->len - 1);
	return true;
}

static json_t *
parse_object(struct str record)
{
	json_t *json = json_loadb(record.p != NULL ? record.p : "", record.len, 0, NULL);

	if (json_is_object(json))
		return json;
	json_decref(json);
	return NULL;
}

bool
signalr_is_handshake(struct str record)
{
	json_t *json = parse_object(record);
	const char *protocol = json_string_value(json_object_get(json, "protocol"));
	bool is_ours = protocol != NULL && strcmp(protocol, "json") == 0 &&
		       json_integer_value(json_object_get(json, "version")) == 1;

	json_decref(json);
	return is_ours;
}

static bool
has_what_it_needs(const struct signalr_message *m)
{
	switch (m->type) {
	case SIGNALR_INVOCATION:
		return m->target != NULL && json_is_array(m->arguments);
	case SIGNALR_STREAM:
		return m->target != NULL && json_is_array(m->arguments) && m->invocation_id != NULL;
	case SIGNALR_ITEM:
	case SIGNALR_COMPLETION:
	case SIGNALR_CANCEL:
		return m->invocation_id != NULL;
	case SIGNALR_PING:
	case SIGNALR_CLOSE:
		return true;
	}
	return false;
}

bool
signalr_parse(struct str record, struct signalr_message *ret)
{
	struct signalr_message m = {.json = parse_object(record)};
	const json_t *type = json_object_get(m.json, "type");

	m.type = (enum signalr_type)json_integer_value(type);
	m.target = json_string_value(json_object_get(m.json, "target"));
	m.invocation_id = json_string_value(json_object_get(m.json, "invocationId"));
	m.arguments = json_object_get(m.json, "arguments");
	if (m.json == NULL || !json_is_integer(type) || !has_what_it_needs(&m)) {
		json_decref(m.json);
		return false;
	}
	*ret = m;
	return true;
}

void
signalr_fini(struct signalr_message *m)
{
	json_decref(m->json);
	m->json = NULL;
}

static void
add_text(struct buf *b, const char *name, const char *text)
{
	if (text == NULL)
		return;
	buf_printf(b, ",\"%s\":\"", name);
	buf_add_json_escaped(b, str_of(text));
	buf_add_char(b, '"');
}

static void
end_record(struct buf *b)
{
	buf_add_char(b, '}');
	buf_add_char(b, SIGNALR_END);
}

void
signalr_add_handshake(struct buf *b, const char *error)
{
	buf_add_char(b, '{');
	if (error != NULL) {
		buf_add_cstr(b, "\"error\":\"");
		buf_add_json_escaped(b, str_of(error));
		buf_add_char(b, '"');
	}
	end_record(b);
}

void
signalr_add_invocation(struct buf *b, const char *target, struct str arguments)
{
	buf_add_cstr(b, "{\"type\":1");
	add_text(b, "target", target);
	buf_add_cstr(b, ",\"arguments\":[");
	buf_add_str(b, arguments);
	buf_add_char(b, ']');
	end_record(b);
}

void
signalr_add_item(struct buf *b, const char *invocation_id, struct str json)
{
	buf_add_cstr(b, "{\"type\":2");
	add_text(b, "invocationId", invocation_id);
	buf_add_cstr(b, ",\"item\":");
	buf_add_str(b, json);
	end_record(b);
}

void
signalr_add_completion(
    struct buf *b, const char *invocation_id, const char *error, struct str result)
{
	buf_add_cstr(b, "{\"type\":3");
	add_text(b, "invocationId", invocation_id);
	add_text(b, "error", error);
	if (error == NULL && result.len > 0) {
		buf_add_cstr(b, ",\"result\":");
		buf_add_str(b, result);
	}
	end_record(b);
}

void
signalr_add_ping(struct buf *b)
{
	buf_add_cstr(b, "{\"type\":6");
	end_record(b);
}

void
signalr_add_close(struct buf *b, const char *error, bool may_reconnect)
{
	buf_add_cstr(b, "{\"type\":7");
	add_text(b, "error", error);
	if (may_reconnect)
		buf_add_cstr(b, ",\"allowReconnect\":true");
	end_record(b);
}
