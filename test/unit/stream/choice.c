/* SPDX-License-Identifier: Apache-2.0 */
/* What is packed, and when: on traces of links and processors that were made up. */
#include "helpers.h"

#include "stream/choice.h"

#define ALL   (CODEC_BIT(CODEC_LZ4) | CODEC_BIT(CODEC_ZSTD))
#define MIB   (1ull << 20)
#define CHUNK (2 * MIB)

/* A machine and a link: ns per byte. What is not packed is read, which takes time as well. */
struct world {
	double read, copy, link;
	double cpu[CODECS], ratio[CODECS];
	double queue; /* bytes that are in the buffers of the link */
	uint64_t now;
};
#define BUFFER (4.0 * MIB)

/* Sends @bytes as a stream does. Returns the codec. */
static enum codec send_chunk(struct choice *c, struct world *w, uint64_t bytes)
{
	uint64_t t0 = w->now;
	enum codec s = choice_sample(c, w->now);

	w->now += (uint64_t)(w->read * (double)bytes);
	if (s) {
		uint64_t ns = (uint64_t)(w->cpu[s] * CHOICE_SAMPLE);

		w->now += ns;
		choice_packed(c, s, CHOICE_SAMPLE, (uint64_t)(w->ratio[s] * CHOICE_SAMPLE), ns, true, w->now);
	}
	enum codec used = choice_pick(c);
	double wire = (double)bytes;

	if (used) {
		uint64_t ns = (uint64_t)(w->cpu[used] * (double)bytes);

		wire *= w->ratio[used];
		w->now += ns;
		choice_packed(c, used, bytes, (uint64_t)wire, ns, false, w->now);
	}
	w->queue = MAX(0.0, w->queue - (double)(w->now - t0) / w->link);
	uint64_t copying = (uint64_t)(w->copy * wire), waited = 0; /* into the buffer */

	w->queue = MAX(0.0, w->queue + wire - (double)copying / w->link);
	if (w->queue > BUFFER) {
		waited = (uint64_t)((w->queue - BUFFER) * w->link);
		w->queue = BUFFER;
	}
	w->now += copying + waited;
	choice_sent(c, (uint64_t)wire, waited, w->now - t0);
	return used;
}

static void arrive(struct choice *c, struct world *w)
{
	uint64_t ns = (uint64_t)(w->queue * w->link) + 200000;

	w->now += ns;
	w->queue = 0;
	choice_arrived(c, ns);
}

/* The codec of the last of @bytes of page data. */
static enum codec send_all(struct choice *c, struct world *w, uint64_t bytes)
{
	enum codec last = CODEC_NONE;

	for (uint64_t sent = 0; sent < bytes; sent += CHUNK)
		last = send_chunk(c, w, CHUNK);
	return last;
}

static struct world world(double link)
{
	return (struct world){.read = 0.6,
			      .copy = 0.2,
			      .link = link,
			      .cpu = {0, 1.6, 3.5},
			      .ratio = {1, 0.5, 0.35},
			      .now = 1};
}

static struct choice choice(enum compress_mode mode)
{
	struct choice c;

	choice_init(&c, mode, ALL, 0);
	return c;
}

static void test_fast_link(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(0.4);

	for (int i = 0; i < 200; i++) {
		assert_int_equal(choice_sample(&c, w.now), CODEC_NONE);
		assert_int_equal(send_chunk(&c, &w, CHUNK), CODEC_NONE);
	}
	arrive(&c, &w);
	c.hurry = true;
	assert_int_equal(choice_pick(&c), CODEC_NONE);
	assert_false(choice_link_is_slow(&c));
}

/* To a host on the same machine, giving bytes to the link is work, and no sign of a slow one. */
static void test_work_is_no_waiting(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(0.4);

	w.copy = 3;
	assert_int_equal(send_all(&c, &w, 400 * MIB), CODEC_NONE);
	assert_false(choice_link_is_slow(&c));
}

/* 1 Gbit/s: the quick one; 200 Mbit/s: the thorough one. */
static void test_slow_links(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(8);

	assert_int_equal(send_all(&c, &w, 128 * MIB), CODEC_ZSTD); /* max(3.5, 2.8) < max(1.6, 4) */
	w.cpu[CODEC_ZSTD] = 6;
	assert_int_equal(send_all(&c, &w, 128 * MIB), CODEC_LZ4);
	assert_true(choice_link_is_slow(&c));

	c = choice(COMPRESS_AUTO);
	w = world(40);
	assert_int_equal(send_all(&c, &w, 64 * MIB), CODEC_ZSTD);
	assert_in_range((int)c.link_ns, 36, 44);
}

static void test_nothing_to_win(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(40);
	uint64_t sampled = 0;

	w.ratio[CODEC_LZ4] = w.ratio[CODEC_ZSTD] = 0.9;
	for (int i = 0; i < 100; i++) {
		uint64_t before = w.now;
		enum codec s = choice_sample(&c, w.now);

		assert_int_equal(send_chunk(&c, &w, CHUNK), CODEC_NONE);
		if (s)
			sampled += (uint64_t)(w.cpu[s] * CHOICE_SAMPLE);
		assert_true(w.now > before);
	}
	assert_true(sampled > 0);
	assert_true(sampled * 20 < w.now);
}

/* What memory holds changes: what was not worth it is tried again. */
static void test_content_changes(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(40);

	w.ratio[CODEC_LZ4] = w.ratio[CODEC_ZSTD] = 1;
	assert_int_equal(send_all(&c, &w, 64 * MIB), CODEC_NONE);
	w.ratio[CODEC_ZSTD] = 0.2;
	assert_int_equal(send_all(&c, &w, 64 * MIB), CODEC_ZSTD);
	w.ratio[CODEC_ZSTD] = 1;
	assert_int_equal(send_all(&c, &w, 64 * MIB), CODEC_NONE);
}

/* Rounds that the buffers on the way swallow whole: only the end of a round tells. */
static void test_short_rounds(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(40);

	for (int i = 0; i < 3; i++) {
		send_all(&c, &w, 4 * MIB);
		arrive(&c, &w);
	}
	assert_in_range((int)c.link_ns, 36, 50);
	/* One of a few pages is mostly something else. */
	double before = c.link_ns;

	send_chunk(&c, &w, 65536);
	w.now += 50000000;
	choice_arrived(&c, 50000000);
	assert_true(c.link_ns == before);
}

/* Packing pays where it is done beside the sending, which it is not in a round of a few pages. */
static void test_short_round_costs_all(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(5);

	w.cpu[CODEC_LZ4] = 9;
	assert_int_equal(send_all(&c, &w, 128 * MIB), CODEC_ZSTD); /* max(3.5, 0.35 * 5) */
	arrive(&c, &w);
	assert_int_equal(send_chunk(&c, &w, 65536), CODEC_NONE); /* 3.5 + 3.5 / 3 + 0.35 * 5 */
	arrive(&c, &w);
	assert_true(choice_stop_factor(&c) == 1);
}

/* A link that has become faster is believed. */
static void test_faster(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(40);

	send_all(&c, &w, 64 * MIB);
	w.link = 0.3;
	w.queue = 0;
	send_all(&c, &w, 1024 * MIB);
	arrive(&c, &w);
	assert_true(c.link_ns < 15);
}

static void test_orders(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_LZ4);
	struct world w = world(0.4);

	assert_int_equal(choice_pick(&c), CODEC_LZ4);
	assert_int_equal(choice_sample(&c, 1), CODEC_NONE);
	c = choice(COMPRESS_ZSTD);
	assert_int_equal(send_all(&c, &w, 64 * MIB), CODEC_ZSTD);
	c = choice(COMPRESS_NONE);
	w = world(40);
	assert_int_equal(send_all(&c, &w, 64 * MIB), CODEC_NONE);
	assert_true(choice_link_is_slow(&c)); /* seen all the same */
	/* The reader knows only one. */
	choice_init(&c, COMPRESS_AUTO, CODEC_BIT(CODEC_LZ4), 0);
	assert_int_equal(send_all(&c, &w, 64 * MIB), CODEC_LZ4);
	choice_init(&c, COMPRESS_ZSTD, CODEC_BIT(CODEC_LZ4), 0);
	assert_int_equal(choice_pick(&c), CODEC_NONE);
}

/* At the stop the parts come one after the other, whatever was ordered. */
static void test_stop(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_ZSTD);
	struct world w = world(0.4);

	send_all(&c, &w, 64 * MIB);
	arrive(&c, &w);
	c.hurry = true;
	assert_int_equal(choice_pick(&c), CODEC_NONE);

	/* 5 ns a byte: 3.5 + 3.5 / 3 + 0.35 * 5 is more, though max(3.5, 0.35 * 5) is less. */
	c = choice(COMPRESS_AUTO);
	w = world(5);
	w.cpu[CODEC_LZ4] = 9;
	assert_int_equal(send_all(&c, &w, 128 * MIB), CODEC_ZSTD);
	c.hurry = true;
	assert_int_equal(choice_pick(&c), CODEC_NONE);
	/* 40 ns a byte: it pays at the stop, too. */
	c = choice(COMPRESS_AUTO);
	w = world(40);
	send_all(&c, &w, 128 * MIB);
	c.hurry = true;
	assert_int_equal(choice_pick(&c), CODEC_ZSTD);
}

/* --max-bandwidth is known before anything was sent, and holds in the rounds only. */
static void test_limit(void **state)
{
	(void)state;
	struct choice c;
	struct world w = world(0.4);

	choice_init(&c, COMPRESS_AUTO, ALL, 20 * MIB);
	assert_int_equal(send_all(&c, &w, 8 * MIB), CODEC_ZSTD);
	assert_true(choice_link_is_slow(&c));
	c.hurry = true;
	assert_int_equal(choice_pick(&c), CODEC_NONE);
}

/* What is saved in rounds and not at the stop is known when the stop is decided upon. */
static void test_stop_factor(void **state)
{
	(void)state;
	struct choice c = choice(COMPRESS_AUTO);
	struct world w = world(0.4);

	assert_true(choice_stop_factor(&c) == 1); /* nothing is known */
	send_all(&c, &w, 64 * MIB);
	assert_true(choice_stop_factor(&c) == 1); /* nothing is packed */
	c = choice(COMPRESS_AUTO);
	w = world(5);
	w.cpu[CODEC_LZ4] = 9;
	send_all(&c, &w, 128 * MIB);
	arrive(&c, &w);
	/* 3.5 in rounds, 5 at the stop */
	assert_in_range((int)(choice_stop_factor(&c) * 100), 120, 170);
	assert_false(c.hurry);
	/* Over a link slower than its limit it is the link's own time that counts. */
	choice_init(&c, COMPRESS_NONE, ALL, 100 * MIB);
	w = world(40);
	send_all(&c, &w, 64 * MIB);
	assert_true(choice_stop_factor(&c) == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fast_link),
		cmocka_unit_test(test_work_is_no_waiting),
		cmocka_unit_test(test_short_round_costs_all),
		cmocka_unit_test(test_slow_links),
		cmocka_unit_test(test_nothing_to_win),
		cmocka_unit_test(test_content_changes),
		cmocka_unit_test(test_short_rounds),
		cmocka_unit_test(test_faster),
		cmocka_unit_test(test_orders),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_stop_factor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
