/* queue: order, accounts, marks, sharing; and against a plain model with random steps. */
#include "t/unit/unit.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/ws/queue.h"

static const struct ws_queue_limits limits = {
    .low_bytes = 200, .high_bytes = 400, .bytes_max = 1000};

/* A frame of so many bytes on the wire, below 128. */
static struct ws_out *
out_of(size_t len)
{
	char payload[125];

	memset(payload, 'x', sizeof(payload));
	return ws_out_new(WS_OP_TEXT, str_sub(payload, len - 2));
}

static enum ws_queue_result
push(struct ws_queue *q, size_t len, const struct ws_queue_limits *with)
{
	struct ws_out *out = out_of(len);
	enum ws_queue_result result = ws_queue_push(q, out, with);

	ws_out_unref(&out);
	assert_null(out);
	return result;
}

static void
test_size_of_state(void **state)
{
	assert_int_equal(sizeof(struct ws_queue), sizeof(void *));
}

static void
test_out(void **state)
{
	struct ws_out *out = ws_out_new(WS_OP_TEXT, STR("hello")), *none = NULL;

	assert_int_equal(out->len, 7);
	assert_memory_equal(out->bytes, "\x81\x05hello", 7);
	ws_out_unref(&out);
	out = ws_out_new(WS_OP_PING, STR_NONE);
	assert_int_equal(out->len, 2);
	assert_memory_equal(out->bytes, "\x89\x00", 2);
	ws_out_unref(&out);
	out = ws_out_of_frame((const uint8_t *)"\x88\x02\x03\xe8", 4);
	assert_int_equal(out->len, 4);
	assert_memory_equal(out->bytes, "\x88\x02\x03\xe8", 4);
	assert_int_equal(ws_out_ref(out)->refs, 2);
	struct ws_out *same = out;
	ws_out_unref(&out);
	assert_int_equal(same->refs, 1);
	ws_out_unref(&same);
	ws_out_unref(&none);
}

static void
test_one_frame_for_many(void **state)
{
	struct ws_queue queues[50] = {{NULL}};
	struct ws_out *out = ws_out_new(WS_OP_TEXT, STR("news"));
	struct iovec iov;

	for (size_t i = 0; i < ARRAY_LEN(queues); i++)
		assert_int_equal(ws_queue_push(&queues[i], out, &limits), WS_QUEUE_TAKEN);
	assert_int_equal(out->refs, 51);
	for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
		assert_int_equal(ws_queue_peek(&queues[i], &iov, 1), 1);
		assert_ptr_equal(iov.iov_base, out->bytes);
		ws_queue_consume(&queues[i], out->len, &limits);
		assert_true(ws_queue_is_empty(&queues[i]));
	}
	assert_int_equal(out->refs, 1);
	ws_out_unref(&out);
}

static void
test_marks(void **state)
{
	struct ws_queue q = {NULL};

	/* 100 on the wire and 64 for the frame: 164 each. */
	assert_int_equal(push(&q, 100, &limits), WS_QUEUE_TAKEN);
	assert_int_equal(push(&q, 100, &limits), WS_QUEUE_TAKEN);
	assert_int_equal(push(&q, 100, &limits), WS_QUEUE_HIGH);
	assert_int_equal(ws_queue_cost(&q), 492);
	assert_int_equal(ws_queue_bytes(&q), 300);
	assert_false(ws_queue_consume(&q, 100, &limits)); /* 328: still high */
	assert_int_equal(push(&q, 100, &limits), WS_QUEUE_HIGH);
	assert_false(ws_queue_consume(&q, 150, &limits));
	assert_int_equal(ws_queue_cost(&q), 2 * 64 + 150);
	assert_true(ws_queue_consume(&q, 100, &limits));
	assert_int_equal(push(&q, 2, &limits), WS_QUEUE_TAKEN);
	assert_false(ws_queue_consume(&q, 52, &limits)); /* told already */
	assert_true(ws_queue_is_empty(&q));
	assert_false(ws_queue_consume(&q, 0, &limits));
}

/* What is known of the queue is still known when it has grown. */
static void
test_growing(void **state)
{
	static const struct ws_queue_limits roomy = {
	    .low_bytes = 200, .high_bytes = 400, .bytes_max = 10000};
	struct ws_queue q = {NULL};
	struct iovec iov[40];

	for (size_t i = 0; i < 4; i++)
		push(&q, 100 + i, &roomy);
	ws_queue_consume(&q, 100 + 7, &roomy);
	for (size_t i = 4; i < 40; i++)
		assert_int_equal(push(&q, 100 + i % 8, &roomy), WS_QUEUE_HIGH);
	assert_int_equal(ws_queue_peek(&q, iov, ARRAY_LEN(iov)), 39);
	assert_int_equal(iov[0].iov_len, 101 - 7);
	for (size_t i = 1; i < 39; i++)
		assert_int_equal(iov[i].iov_len, 100 + (i + 1) % 8);

	/* High stays high through growing alone. */
	ws_queue_fini(&q);
	for (size_t i = 0; i < 4; i++)
		push(&q, 100, &roomy);
	assert_int_equal(push(&q, 2, NULL), WS_QUEUE_HIGH);
	assert_true(ws_queue_consume(&q, 402, &roomy));
}

static void
test_full(void **state)
{
	struct ws_queue q = {NULL};
	size_t taken = 0;

	while (push(&q, 100, &limits) != WS_QUEUE_FULL)
		taken++;
	assert_int_equal(taken, 6);
	assert_int_equal(ws_queue_cost(&q), 6 * 164);
	assert_int_equal(push(&q, 2, &limits), WS_QUEUE_FULL);
	assert_int_equal(push(&q, 50, NULL), WS_QUEUE_HIGH); /* a last close frame */
	assert_int_equal(ws_queue_cost(&q), 6 * 164 + 114);
	ws_queue_fini(&q);
	assert_true(ws_queue_is_empty(&q));

	/* Tiny frames count, too. */
	for (taken = 0; push(&q, 2, &limits) != WS_QUEUE_FULL;)
		taken++;
	assert_int_equal(taken, 1000 / 66);
	ws_queue_fini(&q);
}

static void
test_one_of_any_size(void **state)
{
	struct ws_queue q = {NULL};
	char *large = xcalloc(1, 5000);
	struct ws_out *out = ws_out_new(WS_OP_TEXT, str_sub(large, 5000));

	assert_int_equal(ws_queue_push(&q, out, &limits), WS_QUEUE_HIGH);
	assert_int_equal(ws_queue_push(&q, out, &limits), WS_QUEUE_FULL);
	assert_int_equal(push(&q, 2, &limits), WS_QUEUE_FULL);
	assert_true(ws_queue_consume(&q, out->len, &limits));
	assert_int_equal(push(&q, 2, &limits), WS_QUEUE_TAKEN);
	ws_queue_fini(&q);
	ws_out_unref(&out);
	free(large);
}

static void
test_cut(void **state)
{
	struct ws_queue q = {NULL};

	ws_queue_cut(&q, 0);
	for (size_t i = 0; i < 5; i++)
		push(&q, 100, NULL);
	ws_queue_consume(&q, 30, &limits); /* of the first */
	ws_queue_cut(&q, 470);
	assert_int_equal(ws_queue_bytes(&q), 470);
	ws_queue_cut(&q, 71); /* the last of them is the first byte of the second frame */
	assert_int_equal(ws_queue_bytes(&q), 170);
	ws_queue_cut(&q, 70);
	assert_int_equal(ws_queue_bytes(&q), 70);
	ws_queue_cut(&q, 0); /* it has begun: the peer needs the rest */
	assert_int_equal(ws_queue_bytes(&q), 70);
	push(&q, 4, NULL);
	ws_queue_consume(&q, 74, &limits);
	assert_true(ws_queue_is_empty(&q));
	push(&q, 100, NULL);
	ws_queue_cut(&q, 0);
	assert_true(ws_queue_is_empty(&q));
}

/* The bytes that come out are those that went in, whatever was taken at a time. */
static void
test_random_steps(void **state)
{
	static uint8_t in[1 << 20], heard[1 << 20];
	struct ws_queue q = {NULL};
	size_t in_len = 0, out_len = 0;
	uint32_t seed = 12345;

	for (unsigned turn = 0; turn < 5000; turn++) {
		struct iovec iov[4];
		char payload[300];

		seed = seed * 1664525 + 1013904223;
		size_t len = (seed >> 8) % sizeof(payload);
		memset(payload, (int)turn, sizeof(payload));
		struct ws_out *out = ws_out_new(WS_OP_BINARY, str_sub(payload, len));
		if ((seed >> 28) < 12 && ws_queue_push(&q, out, &limits) != WS_QUEUE_FULL) {
			memcpy(in + in_len, out->bytes, out->len);
			in_len += out->len;
		}
		ws_out_unref(&out);
		assert_int_equal(ws_queue_bytes(&q), in_len - out_len);
		size_t pieces = ws_queue_peek(&q, iov, 1 + (seed >> 16) % 4),
		       most = (seed >> 4) % 900;
		size_t begin = out_len;
		for (size_t i = 0; i < pieces && out_len - begin < most; i++) {
			size_t n = iov[i].iov_len;

			if (n > most - (out_len - begin))
				n = most - (out_len - begin);
			memcpy(heard + out_len, iov[i].iov_base, n);
			out_len += n;
		}
		ws_queue_consume(&q, out_len - begin, &limits);
		assert_true(ws_queue_cost(&q) <= limits.bytes_max);
		assert_memory_equal(in + begin, heard + begin, out_len - begin);
	}
	assert_true(out_len > 100000);
	ws_queue_fini(&q);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_size_of_state),
	    cmocka_unit_test(test_out),
	    cmocka_unit_test(test_one_frame_for_many),
	    cmocka_unit_test(test_marks),
	    cmocka_unit_test(test_growing),
	    cmocka_unit_test(test_full),
	    cmocka_unit_test(test_one_of_any_size),
	    cmocka_unit_test(test_cut),
	    cmocka_unit_test(test_random_steps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
