/* mend - see mend.h. */
#include "worker/provider/mend.h"

void
mend_fini(struct mend *m)
{
	buf_fini(&m->given);
	*m = (struct mend){0};
}

void
mend_begin(struct mend *m, enum mend_way way)
{
	m->way = m->given.len > 0 ? way : MEND_REPEATS;
	m->repeated = 0;
}

bool
mend_is_silent(const struct mend *m)
{
	return m->way == MEND_REPEATS && m->repeated < m->given.len;
}

static bool
is_inside_character(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

/* How much of the text repeats what was given; whole characters. */
static size_t
common_prefix(const struct mend *m, struct str text)
{
	size_t left = m->given.len - m->repeated, n = 0;

	while (n < left && n < text.len && m->given.data[m->repeated + n] == text.p[n])
		n++;
	while (n > 0 && n < text.len && is_inside_character(text.p[n]))
		n--;
	return n;
}

/* All is void but what both have said. */
static struct mend_step
restart(struct mend *m)
{
	m->given.len = m->repeated;
	if (m->given.data != NULL)
		m->given.data[m->given.len] = '\0';
	m->gave_reasoning = false;
	return (struct mend_step){.is_restart = true, .again = buf_str(&m->given)};
}

static struct mend_step
give(struct mend *m, struct mend_step step, struct str text)
{
	size_t again_len = step.again.len, at = m->given.len;

	buf_add_str(&m->given, text);
	m->repeated = m->given.len;
	step.again = str_sub(m->given.data, again_len);
	step.text = str_sub(m->given.data + at, text.len);
	return step;
}

struct mend_step
mend_text(struct mend *m, struct str text)
{
	struct mend_step step = {0};

	if (!mend_is_silent(m)) {
		/* Nothing was said yet, and the thoughts that were shown are another attempt's. */
		if (m->way == MEND_REPEATS && m->repeated == 0 && m->gave_reasoning)
			step = restart(m);
		m->way = MEND_CONTINUES;
		return give(m, step, text);
	}
	size_t same = common_prefix(m, text);
	m->repeated += same;
	if (same == text.len)
		return step;
	if (m->repeated < m->given.len)
		step = restart(m);
	m->way = MEND_CONTINUES;
	return give(m, step, str_sub(text.p + same, text.len - same));
}

bool
mend_reasoning(struct mend *m, bool *ret_is_restart)
{
	*ret_is_restart = false;
	if (mend_is_silent(m))
		return false;
	if (m->way == MEND_REPEATS && m->repeated == 0 && m->gave_reasoning) {
		restart(m);
		*ret_is_restart = true;
	}
	m->way = MEND_CONTINUES;
	m->gave_reasoning = true;
	return true;
}

struct mend_step
mend_end(struct mend *m)
{
	if (!mend_is_silent(m))
		return (struct mend_step){0};
	return restart(m);
}
