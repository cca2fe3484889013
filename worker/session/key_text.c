/*
 * key_text - how keys are written: the secret, the kind, the limits.
 */
#include "worker/session/key_text.h"

#include <ctype.h>
#include <jansson.h>
#include <string.h>

#include "common/check.h"
#include "common/crypto.h"

static const struct {
	const char *name, *prefix;
} kinds[] = {
    [KEY_CLIENT] = {"client", "pc_"},
    [KEY_SERVER] = {"server", "ps_"},
    [KEY_ADMIN] = {"admin", "pa_"},
};

bool
key_text_is_sane(struct str secret)
{
	bool has_prefix = false;

	if (secret.len < KEY_PREFIX_LEN + KEY_RANDOM_MIN || secret.len > KEY_SECRET_MAX)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		has_prefix |= str_starts(secret, str_of(kinds[i].prefix));
	return has_prefix;
}

void
key_secret_new(enum key_kind kind, char out[KEY_SECRET_LEN + 1])
{
	static const char letters[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	size_t len = KEY_PREFIX_LEN;
	uint8_t byte;

	memcpy(out, kinds[kind].prefix, KEY_PREFIX_LEN);
	while (len < KEY_SECRET_LEN) {
		crypto_random(&byte, 1);
		if ((byte & 0x3f) < sizeof(letters) - 1) /* 62 of 64: each equally likely */
			out[len++] = letters[byte & 0x3f];
	}
	out[len] = '\0';
}

const char *
key_kind_name(enum key_kind kind)
{
	return kinds[kind].name;
}

bool
key_kind_parse(const char *name, enum key_kind *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (strcmp(kinds[i].name, name) == 0) {
			*ret = (enum key_kind)i;
			return true;
		}
	return false;
}

static void
read_u32(const json_t *limits, const char *name, uint32_t *ret)
{
	const json_t *value = json_object_get(limits, name);

	if (json_is_integer(value) && json_integer_value(value) >= 0 &&
	    json_integer_value(value) <= UINT32_MAX)
		*ret = (uint32_t)json_integer_value(value);
}

/* What is no text stands for `broken`: a list that was meant to restrict must not allow all. */
static void
read_names(const json_t *names, const char *broken, struct arena *arena, struct conf_list *ret)
{
	size_t i;
	json_t *name;

	if (!json_is_array(names) || json_array_size(names) == 0)
		return;
	ret->v = arena_alloc(arena, json_array_size(names) * sizeof(ret->v[0]));
	ret->n = json_array_size(names);
	json_array_foreach(names, i, name)
	{
		ret->v[i] = json_is_string(name)
				? arena_strdup(arena, str_of(json_string_value(name)))
				: broken;
	}
}

/* A budget that cannot be understood allows nothing: less than any call costs. */
static void
read_budget(const json_t *budget, struct budget_rule *ret)
{
	const json_t *amount = json_object_get(budget, "amount");
	const char *period = json_string_value(json_object_get(budget, "period"));

	if (budget == NULL || json_is_null(budget))
		return;
	*ret = budget_rule_of(json_number_value(amount), period != NULL ? period : "total");
	if (!json_is_number(amount) || json_number_value(amount) < 0)
		ret->amount_micros = 1;
}

void
key_limits_parse(const char *json, struct arena *arena, struct principal *p)
{
	json_t *limits = json != NULL ? json_loads(json, 0, NULL) : NULL;
	const json_t *read_only = json_object_get(limits, "read_only_tools");

	if (p->rate.window_ms == 0)
		p->rate.window_ms = 60 * 1000;
	read_u32(limits, "limit", &p->rate.limit);
	read_u32(limits, "window_ms", &p->rate.window_ms);
	read_u32(limits, "rpm", &p->rpm);
	read_u32(limits, "tpm", &p->tpm);
	read_u32(limits, "rpd", &p->rpd);
	read_budget(json_object_get(limits, "budget"), &p->budget);
	read_names(json_object_get(limits, "models"), "", arena, &p->models);
	read_names(json_object_get(limits, "tools"), "", arena, &p->tools.allowed);
	read_names(json_object_get(limits, "denied_tools"), "*", arena, &p->tools.denied);
	p->tools.is_read_only = read_only != NULL && !json_is_false(read_only);
	json_decref(limits);
}
