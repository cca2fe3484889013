/* crypto: the vectors of the standards, and randomness that a fork does not share. */
#include "t/unit/unit.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/crypto.h"

static void
expect_hex(const uint8_t *bytes, const char *want)
{
	char hex[SHA256_HEX_LEN + 1];

	crypto_hex(bytes, SHA256_LEN, hex);
	assert_string_equal(hex, want);
}

static void
test_sha256(void **state)
{
	uint8_t out[SHA256_LEN];

	/* FIPS 180-4 examples. */
	crypto_sha256(STR("abc"), out);
	expect_hex(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	crypto_sha256(STR("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), out);
	expect_hex(out, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	crypto_sha256(STR_NONE, out);
	expect_hex(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void
test_sha1(void **state)
{
	uint8_t out[SHA1_LEN];
	char hex[2 * SHA1_LEN + 1];

	/* FIPS 180-4 examples. */
	crypto_sha1(STR("abc"), out);
	crypto_hex(out, sizeof(out), hex);
	assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
	crypto_sha1(STR("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), out);
	crypto_hex(out, sizeof(out), hex);
	assert_string_equal(hex, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
}

static void
test_hmac_sha256(void **state)
{
	char key[131], data[50];
	uint8_t out[SHA256_LEN];

	/* RFC 4231, test cases 1, 2, 3 and 6. */
	memset(key, 0x0b, 20);
	crypto_hmac_sha256(str_sub(key, 20), STR("Hi There"), out);
	expect_hex(out, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	crypto_hmac_sha256(STR("Jefe"), STR("what do ya want for nothing?"), out);
	expect_hex(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, sizeof(key));
	memset(data, 0xdd, sizeof(data));
	crypto_hmac_sha256(str_sub(key, 20), str_sub(data, 50), out);
	expect_hex(out, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	crypto_hmac_sha256(
	    str_sub(key, 131), STR("Test Using Larger Than Block-Size Key - Hash Key First"), out);
	expect_hex(out, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	/* The well-known values of the empty key over nothing. */
	crypto_hmac_sha256(STR_NONE, STR_NONE, out);
	expect_hex(out, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void
test_base64(void **state)
{
	/* RFC 4648, section 10. */
	static const char *const known[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="},
	    {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
	    {"\xfb\xff\xfe", "+//+"}};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		struct buf b = BUF_INIT;

		buf_add_cstr(&b, "");
		crypto_base64(str_of(known[i][0]), &b);
		assert_string_equal(b.data, known[i][1]);
		buf_clear(&b);
		assert_true(crypto_base64_decode(str_of(known[i][1]), &b));
		assert_string_equal(b.data, known[i][0]);
		buf_fini(&b);
	}
}

static void
test_base64_round_trip(void **state)
{
	char bytes[100];

	for (size_t len = 0; len <= sizeof(bytes); len++) {
		struct buf text = BUF_INIT, back = BUF_INIT;

		crypto_random(bytes, len);
		crypto_base64url(str_sub(bytes, len), &text);
		assert_int_equal(text.len, (len * 4 + 2) / 3);
		assert_true(text.len == 0 || strpbrk(text.data, "+/=") == NULL);
		assert_true(crypto_base64_decode(buf_str(&text), &back));
		assert_true(str_eq(buf_str(&back), str_sub(bytes, len)));
		buf_clear(&text);
		buf_clear(&back);
		crypto_base64(str_sub(bytes, len), &text);
		assert_int_equal(text.len, (len + 2) / 3 * 4);
		assert_true(crypto_base64_decode(buf_str(&text), &back));
		assert_true(str_eq(buf_str(&back), str_sub(bytes, len)));
		buf_fini(&text);
		buf_fini(&back);
	}
}

static void
test_base64_refuses(void **state)
{
	static const char *const bad[] = {"A", "AAAAA", "=",
	    "==", "====", "Zg=", "Zm8==", "Zm9v=", "Zm9v====", "Z=g=", "Zm 9v", "Zm9v\n", "Zm9*",
	    "\xc3\xa9==", "Zm9vY==="};
	struct buf b = BUF_INIT;

	buf_add_cstr(&b, "before");
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (crypto_base64_decode(str_of(bad[i]), &b))
			fail_msg("%s was taken for base64", bad[i]);
		assert_string_equal(b.data, "before");
		assert_int_equal(b.len, 6);
	}
	assert_false(crypto_base64_decode(str_sub("AA\0A", 4), &b));
	buf_fini(&b);
}

static void
test_equal(void **state)
{
	assert_true(crypto_equal("abc", 3, "abc", 3));
	assert_false(crypto_equal("abc", 3, "abd", 3));
	assert_false(crypto_equal("abc", 3, "ab", 2));
	assert_true(crypto_equal("", 0, "", 0));
}

static void
test_random(void **state)
{
	uint8_t seen[256] = {0}, one[200];
	size_t count = 0;

	/* Every byte value comes up, in requests of every size. */
	for (size_t len = 0; len <= sizeof(one); len++) {
		crypto_random(one, len);
		for (size_t i = 0; i < len; i++)
			seen[one[i]] = 1;
	}
	for (size_t i = 0; i < 256; i++)
		count += seen[i];
	assert_int_equal(count, 256);
	uint8_t large[1000] = {0}, zero[1000] = {0};
	crypto_random(large, sizeof(large));
	assert_memory_not_equal(large, zero, sizeof(zero));
}

static void
test_a_child_does_not_share_randomness(void **state)
{
	uint8_t ours[16], theirs[16];
	int fds[2], status;

	crypto_random(ours, sizeof(ours)); /* fills the pool that the child inherits */
	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		crypto_random(theirs, sizeof(theirs));
		_exit(write(fds[1], theirs, sizeof(theirs)) == (ssize_t)sizeof(theirs) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(fds[0], theirs, sizeof(theirs)), sizeof(theirs));
	crypto_random(ours, sizeof(ours));
	assert_memory_not_equal(ours, theirs, sizeof(ours));
	close(fds[0]);
	close(fds[1]);
}

static void
test_sealed_and_opened(void **state)
{
	static const uint8_t key[SHA256_LEN] = {1}, other[SHA256_LEN] = {2};
	struct buf sealed = BUF_INIT, again = BUF_INIT, out = BUF_INIT;

	for (size_t len = 0; len < 40; len += 13) {
		struct str text = str_sub("what must not lie open in the record....", len);

		buf_clear(&sealed);
		buf_clear(&again);
		buf_clear(&out);
		crypto_seal(key, text, &sealed);
		crypto_seal(key, text, &again);
		assert_false(str_eq(buf_str(&sealed), buf_str(&again))); /* another nonce */
		assert_true(crypto_open(key, buf_str(&sealed), &out));
		assert_true(str_eq(buf_str(&out), text));
		assert_false(crypto_open(other, buf_str(&sealed), &out));
		for (size_t i = 0; i < sealed.len; i++) {
			sealed.data[i] ^= 1;
			assert_false(crypto_open(key, buf_str(&sealed), &out));
			sealed.data[i] ^= 1;
			assert_false(crypto_open(key, str_sub(sealed.data, i), &out));
		}
		assert_true(str_eq(buf_str(&out), text));
	}
	buf_fini(&sealed);
	buf_fini(&again);
	buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sealed_and_opened),
	    cmocka_unit_test(test_sha256),
	    cmocka_unit_test(test_sha1),
	    cmocka_unit_test(test_hmac_sha256),
	    cmocka_unit_test(test_base64),
	    cmocka_unit_test(test_base64_round_trip),
	    cmocka_unit_test(test_base64_refuses),
	    cmocka_unit_test(test_equal),
	    cmocka_unit_test(test_random),
	    cmocka_unit_test(test_a_child_does_not_share_randomness),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
