/* SPDX-License-Identifier: Apache-2.0 */
/* Events of several threads are put in the order in which they happened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "engine/order.h"

#define P     PAGE_SIZE_BYTES
#define SLOTS 24
#define SIZE  (4 * P)
#define MAX_N 512

static struct order_event moved(uint64_t from, uint64_t to)
{
	struct order_event ev = {.msg.event = UFFD_EVENT_REMAP};

	ev.msg.arg.remap.from = from * SIZE;
	ev.msg.arg.remap.to = to * SIZE;
	ev.msg.arg.remap.len = SIZE;
	return ev;
}

static struct order_event unmapped(uint64_t at)
{
	struct order_event ev = {.msg.event = UFFD_EVENT_UNMAP};

	ev.msg.arg.remove.start = at * SIZE;
	ev.msg.arg.remove.end = (at + 1) * SIZE;
	return ev;
}

static struct order_event emptied(uint64_t at)
{
	struct order_event ev = unmapped(at);

	ev.msg.event = UFFD_EVENT_REMOVE;
	return ev;
}

/* What is where: 0: nothing; -1: memory without content; else content. */
struct memory {
	int slot[SLOTS];
};

static int is_there(void *ctx, uint64_t addr)
{
	const struct memory *m = ctx;

	return m->slot[addr / SIZE] != 0;
}

static void apply(struct memory *m, const struct order_event *ev)
{
	uint64_t from = ev->msg.arg.remap.from / SIZE, to = ev->msg.arg.remap.to / SIZE,
		 at = ev->msg.arg.remove.start / SIZE;

	switch (ev->msg.event) {
	case UFFD_EVENT_REMAP:
		m->slot[to] = m->slot[from];
		m->slot[from] = ev->stays ? -1 : 0;
		break;
	case UFFD_EVENT_UNMAP:
		m->slot[at] = 0;
		break;
	default:
		m->slot[at] = -1;
	}
}

/* @m, as it was before, becomes what the events make of it; @now: what is mapped in the end. */
static void understand(struct memory *m, struct order_event *ev, size_t n, const struct memory *now,
		       bool after)
{
	const struct memory before = *m;
	const struct order_memory memory = {is_there, (void *)(after ? now : &before), after};
	size_t order[MAX_N];

	order_pair(ev, n, n);
	size_t k = order_events(ev, n, &memory, order);

	for (size_t i = 0; i < k; i++)
		apply(m, &ev[order[i]]);
}

#define EXPECT(before, events, after)                                 \
	do {                                                          \
		struct memory was = {before}, now = {after};          \
		struct order_event list[] = events;                   \
                                                                      \
		understand(&was, list, ARRAY_SIZE(list), &now, true); \
		assert_memory_equal(&was, &now, sizeof(now));         \
	} while (0)
#define LIST(...)           \
	{                   \
		__VA_ARGS__ \
	}

/* The first of two threads does something to place 1 and is late to tell; the second moves place 2 there. */
static void test_late(void **state)
{
	(void)state;
	EXPECT(LIST(0, 10, 20), LIST(moved(2, 1), unmapped(2), unmapped(1)), LIST(0, 20, 0));
	EXPECT(LIST(0, 10, 20, 0), LIST(moved(2, 1), moved(1, 3), unmapped(1), unmapped(2)),
	       LIST(0, 20, 0, 10));
	EXPECT(LIST(0, 10, 20, 0), LIST(moved(2, 1), moved(1, 3), unmapped(2), unmapped(1)),
	       LIST(0, 20, 0, 10));
}

/* It did so afterwards. */
static void test_in_time(void **state)
{
	(void)state;
	EXPECT(LIST(0, 0, 20), LIST(moved(2, 1), unmapped(2), unmapped(1)), LIST(0, 0, 0));
	EXPECT(LIST(0, 0, 20), LIST(unmapped(1), moved(2, 1), unmapped(2)), LIST(0, 0, 0));
	EXPECT(LIST(0, 0, 20, 0), LIST(moved(1, 3), moved(2, 1), unmapped(2), unmapped(1)),
	       LIST(0, 0, 0, 20));
	EXPECT(LIST(0, 0, 20), LIST(emptied(1), moved(2, 1), unmapped(2)), LIST(0, -1, 0));
}

/* MREMAP_DONTUNMAP: no other event follows. */
static void test_stays(void **state)
{
	(void)state;
	EXPECT(LIST(0, 10, 0), LIST(moved(1, 2)), LIST(0, -1, 10));
	EXPECT(LIST(0, 10, 0, 30), LIST(moved(1, 2), unmapped(1), moved(3, 1), unmapped(3)),
	       LIST(0, 30, 10, 0));
}

/* The first half is taken: what belongs to the second stays whole. */
static void test_half(void **state)
{
	struct order_event ev[] = {moved(1, 2), moved(3, 4), unmapped(3), unmapped(1)};

	(void)state;
	order_pair(ev, 4, 1);
	assert_true(ev[3].out && !ev[2].out);
	assert_false(ev[0].stays);
}

/* --- threads at random ---------------------------------------------------------------------------------- */

#define THREADS 4

struct thread {
	int mine; /* slot */
	enum { RUNS, HAS_DONE, TELLS } at;
	struct order_event tell, next;
	bool has_next;
	size_t since; /* in the queue; the newest is read first */
};

static int any_free(const struct memory *m)
{
	int i = rand() % SLOTS;

	while (m->slot[i])
		i = (i + 1) % SLOTS;
	return i;
}

/* The place that became free last, as the kernel does; or any. */
static int place(const struct memory *m, int last)
{
	return last >= 0 && !m->slot[last] && rand() % 3 ? last : any_free(m);
}

static void act(struct memory *m, struct thread *t, int *last, bool may_unmap)
{
	int to = place(m, *last);
	struct order_event ev = moved((uint64_t)t->mine, (uint64_t)to);

	t->at = HAS_DONE;
	t->has_next = false;
	switch (rand() % 4) {
	case 0:
		t->tell = emptied((uint64_t)t->mine);
		apply(m, &t->tell);
		break;
	case 1:
		if (may_unmap) {
			t->tell = unmapped((uint64_t)t->mine);
			apply(m, &t->tell);
			*last = t->mine;
			t->mine = -1; /* what it maps now is not ours */
			break;
		}
		/* fallthrough */
	default:
		apply(m, &ev);
		t->tell = ev;
		t->next = unmapped((uint64_t)t->mine);
		t->has_next = true;
		*last = t->mine;
		t->mine = to;
	}
}

static size_t run(struct memory *m, struct thread *t, size_t threads, int budget, bool once,
		  struct order_event *ret)
{
	size_t n = 0, clock = 0, busy = threads;
	int last = -1, acted[THREADS] = {0};

	while (busy) {
		size_t i = (size_t)rand() % threads, newest = threads;

		if (t[i].at == RUNS && t[i].mine >= 0 && budget > 0 && !(once && acted[i])) {
			act(m, &t[i], &last, true);
			acted[i] = 1;
			budget--;
		} else if (t[i].at == HAS_DONE && rand() % 2) {
			t[i].at = TELLS;
			t[i].since = ++clock;
		}
		for (size_t k = 0; k < threads; k++)
			if (t[k].at == TELLS && (newest == threads || t[k].since > t[newest].since))
				newest = k;
		if (newest < threads && rand() % 2) {
			ret[n++] = t[newest].tell;
			t[newest].at = t[newest].has_next ? HAS_DONE : RUNS;
			t[newest].tell = t[newest].next;
			t[newest].has_next = false;
		}
		busy = 0;
		for (size_t k = 0; k < threads; k++)
			busy += t[k].at != RUNS || (t[k].mine >= 0 && budget > 0 && !(once && acted[k]));
	}
	return n;
}

/* How many of @rounds are understood wrongly. */
static int wrong(size_t threads, int budget, bool once, bool after, int rounds)
{
	int bad = 0;

	for (int seed = 1; seed <= rounds; seed++) {
		struct memory now = {{0}}, before;
		struct thread t[THREADS] = {{0}};
		struct order_event ev[MAX_N];

		srand((unsigned)seed);
		for (size_t i = 0; i < threads; i++) {
			t[i].mine = any_free(&now);
			now.slot[t[i].mine] = 100 + (int)i;
		}
		before = now;
		size_t n = run(&now, t, threads, budget, once, ev);

		understand(&before, ev, n, &now, after);
		bad += memcmp(&before, &now, sizeof(now)) != 0;
	}
	return bad;
}

/* Each thread does one thing, told in whatever order; or one does many. */
static void test_random(void **state)
{
	(void)state;
	assert_int_equal(wrong(4, 4, true, true, 20000), 0);
	assert_int_equal(wrong(1, 30, false, true, 5000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_late), cmocka_unit_test(test_in_time), cmocka_unit_test(test_stays),
		cmocka_unit_test(test_half), cmocka_unit_test(test_random),
	};

	if (getenv("ORDER_RATES")) {
		for (int budget = 4; budget <= 32; budget *= 2)
			print_message(
				"%d events of 4 threads: %d of 20000 wrong; by what was there before %d\n",
				budget, wrong(4, budget, false, true, 20000),
				wrong(4, budget, false, false, 20000));
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
