/* SPDX-License-Identifier: Apache-2.0 */
/* The plan against the obvious way: apply all runs, oldest first, to an array. */
#include "helpers.h"

#include "stream/plan.h"

#define SPAN 200

struct cell {
	size_t run; /* index + 1 of the run that counts here; 0: none */
};

static void expect(const struct plan *p, uint64_t id, struct cell *cells)
{
	memset(cells, 0, SPAN * sizeof(*cells));
	for (int dir = 9; dir >= 0; dir--)
		for (size_t i = 0; i < p->n_runs; i++) {
			const struct plan_run *r = &p->runs[i];

			if ((int)r->dir != dir || r->run.id != id)
				continue;
			for (uint64_t a = r->run.addr; a < r->run.addr + r->run.length; a++)
				cells[a].run = r->run.flags & PAGE_RUN_DROP ? 0 : i + 1;
		}
}

static void check(struct plan *p)
{
	struct cell want[3][SPAN], got[3][SPAN];
	struct error e = ERROR_INIT;

	memset(got, 0, sizeof(got));
	assert_ok(plan_newest(p, &e), &e);
	pieces_sort_for_reading(p->pieces, p->n_pieces);
	for (uint64_t id = 0; id < 3; id++)
		expect(p, id, want[id]);
	for (size_t i = 0; i < p->n_pieces; i++) {
		const struct plan_piece *q = &p->pieces[i];
		const struct wire_run *r = &p->runs[q->run].run;

		assert_true(q->addr >= r->addr && q->addr + q->length <= r->addr + r->length && q->length);
		assert_true(!i || q->run >= p->pieces[i - 1].run);
		for (uint64_t a = q->addr; a < q->addr + q->length; a++) {
			assert_int_equal(got[r->id][a].run, 0);
			got[r->id][a].run = q->run + 1;
		}
	}
	assert_memory_equal(got, want, sizeof(got));
}

static void test_random(void **state)
{
	unsigned seed = 1;

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct plan p = {0};
		struct error e = ERROR_INIT;
		int dirs = 1 + rand_r(&seed) % 10, n = rand_r(&seed) % 60;

		for (int dir = 0; dir < dirs; dir++)
			for (int i = 0; i < n; i++) {
				struct wire_run r = {.id = rand_r(&seed) % 3,
						     .addr = rand_r(&seed) % (SPAN - 1)};

				r.length = 1 + rand_r(&seed) %
						       (SPAN - r.addr - 1 ? MIN(SPAN - r.addr - 1, 40u) : 1);
				r.flags = rand_r(&seed) % 5 == 0 ? PAGE_RUN_DROP : 0;
				assert_ok(plan_add(&p, &r, dir, &e), &e);
			}
		check(&p);
		plan_deinit(&p);
	}
}

/* --- SAME runs: a log of four processes, applied in order ------------------------------------------------
 */

#define PIDS 4

struct world {
	size_t cell[PIDS + 1][SPAN]; /* index + 1 of the run whose data is here; 0: none */
};

static void apply(struct world *w, const struct plan *p, size_t i)
{
	const struct wire_run *r = &p->runs[i].run;

	for (uint64_t a = r->addr; a < r->addr + r->length; a++)
		w->cell[r->id][a] = r->flags & PAGE_RUN_DROP   ? 0
				    : r->flags & PAGE_RUN_SAME ? w->cell[r->offset][a]
							       : i + 1;
}

static struct wire_run random_run(unsigned *seed, const struct wire_run *last)
{
	struct wire_run r = {.id = 1 + rand_r(seed) % PIDS, .addr = rand_r(seed) % (SPAN - 1)};
	int what = rand_r(seed) % 10;

	r.length = 1 + rand_r(seed) % MIN(SPAN - r.addr - 1 ? SPAN - r.addr - 1 : 1, 60u);
	if (what == 0)
		r.flags = PAGE_RUN_DROP;
	if (what < 4 && last && last->flags & PAGE_RUN_SAME) {
		r.flags = PAGE_RUN_SAME;
		r.id = last->id;
		r.offset = last->offset;
	} else if (what >= 7) {
		r.flags = PAGE_RUN_SAME;
		r.offset = 1 + (r.id - 1 + 1 + rand_r(seed) % (PIDS - 1)) % PIDS;
	}
	return r;
}

/* A chain: the newest image is added first. */
static void random_log(struct plan *p, struct world *w, unsigned *seed)
{
	int dirs = 1 + rand_r(seed) % 4;
	struct error e = ERROR_INIT;

	for (int dir = 0; dir < dirs; dir++) {
		struct wire_run last = {0};

		for (int n = rand_r(seed) % 40; n; n--) {
			last = random_run(seed, &last);
			assert_ok(plan_add(p, &last, dir, &e), &e);
		}
	}
	memset(w, 0, sizeof(*w));
	for (int dir = dirs; dir--;)
		for (size_t i = 0; i < p->n_runs; i++)
			if ((int)p->runs[i].dir == dir)
				apply(w, p, i);
}

/* What a destination makes of it. @given: how often data were given. */
static void replay(struct world *w, const struct plan *p, size_t *given)
{
	bool began[PIDS + 1] = {0};

	memset(w, 0, sizeof(*w));
	for (size_t i = 0; i < p->n_pieces; i++) {
		const struct plan_piece *q = &p->pieces[i], *before = i ? q - 1 : NULL;

		if (q->kind == PIECE_SAME)
			assert_true(!began[q->id] || (before->kind == PIECE_SAME && before->id == q->id));
		began[q->id] = true;
		for (uint64_t a = q->addr; a < q->addr + q->length; a++)
			w->cell[q->id][a] = q->kind == PIECE_DROP   ? 0
					    : q->kind == PIECE_SAME ? w->cell[q->from][a]
								    : q->run + 1;
		if (q->kind == PIECE_RUN)
			*given += q->length;
	}
}

static void share(struct plan *p, const struct world *want, unsigned *seed, bool all)
{
	struct stream_kin kin[PIDS];
	struct world got;
	struct error e = ERROR_INIT;
	size_t given = 0, different = 0;

	memset(kin, 0, sizeof(kin));
	for (int i = 0; i < PIDS; i++) {
		kin[i].pid = 1 + i;
		kin[i].from = all ? i != 0 : rand_r(seed) % (i + 1);
		page_set_add(&kin[i].common, all ? 0 : rand_r(seed) % SPAN, SPAN);
	}
	assert_ok(plan_share(p, kin, PIDS, &e), &e);
	replay(&got, p, &given);
	assert_memory_equal(&got, want, sizeof(got));
	/* With all cloned from the first, no byte comes more often than there are versions of it, but for the
	 * holder's own, which may come in between and at the end. */
	for (int a = 0; all && a < SPAN; a++)
		for (int i = 1; i <= PIDS; i++) {
			bool seen = !want->cell[i][a];

			for (int j = 1; j < i; j++)
				seen |= want->cell[j][a] == want->cell[i][a];
			different += !seen;
		}
	if (all)
		assert_true(given <= different * 2);
	for (int i = 0; i < PIDS; i++)
		page_set_deinit(&kin[i].common);
}

static void test_same(void **state)
{
	unsigned seed = 7;

	(void)state;
	for (int round = 0; round < 2000; round++) {
		struct plan p = {0};
		struct world want, got;
		struct error e = ERROR_INIT;
		size_t given = 0;

		random_log(&p, &want, &seed);
		assert_ok(plan_newest(&p, &e), &e);
		replay(&got, &p, &given);
		assert_memory_equal(&got, &want, sizeof(got));
		share(&p, &want, &seed, round % 2);
		plan_deinit(&p);
	}
}

/* A parent with two versions of a page that two children each still share, and one of its own. */
static void test_versions(void **state)
{
	struct plan p = {0};
	struct error e = ERROR_INIT;
	struct stream_kin kin[5];
	struct world got;
	size_t given = 0;

	(void)state;
	memset(kin, 0, sizeof(kin));
	assert_ok(plan_add(&p, &(struct wire_run){.id = 1, .addr = 0, .length = 100}, 0, &e), &e);
	for (uint64_t c = 2; c < 4; c++)
		assert_ok(plan_add(&p,
				   &(struct wire_run){.id = c,
						      .addr = 0,
						      .length = 100,
						      .flags = PAGE_RUN_SAME,
						      .offset = 1},
				   0, &e),
			  &e);
	assert_ok(plan_add(&p, &(struct wire_run){.id = 1, .addr = 0, .length = 50}, 0, &e), &e);
	assert_ok(plan_add(&p,
			   &(struct wire_run){
				   .id = 4, .addr = 0, .length = 100, .flags = PAGE_RUN_SAME, .offset = 1},
			   0, &e),
		  &e);
	assert_ok(plan_add(&p, &(struct wire_run){.id = 1, .addr = 0, .length = 10}, 0, &e), &e);
	assert_ok(plan_newest(&p, &e), &e);
	for (int i = 0; i < 4; i++) {
		kin[i].pid = 1 + i;
		kin[i].from = i != 0;
		page_set_add(&kin[i].common, 0, 100);
	}
	assert_ok(plan_share(&p, kin, 4, &e), &e);
	replay(&got, &p, &given);
	/* The first version: 100; the second where it is shared: 40; its other ten go to child 4 alone; the
	 * last one: 10. */
	assert_int_equal(given, 160);
	for (int i = 0; i < 4; i++)
		page_set_deinit(&kin[i].common);
	plan_deinit(&p);
}

/* Runs that name each other, in ever more steps, end in an error or in time. */
static void test_steps(void **state)
{
	struct plan p = {0};
	struct error e = ERROR_INIT;

	(void)state;
	for (int i = 0; i < 8000; i++)
		assert_ok(plan_add(&p,
				   &(struct wire_run){.id = 1 + i % 2,
						      .addr = i % 7,
						      .length = 50,
						      .flags = PAGE_RUN_SAME,
						      .offset = 2 - i % 2},
				   0, &e),
			  &e);
	assert_int_equal(plan_newest(&p, &e), -EBADMSG);
	plan_deinit(&p);
}

static void test_all_keeps_order(void **state)
{
	struct plan p = {0};
	struct error e = ERROR_INIT;

	(void)state;
	for (int i = 0; i < 5000; i++)
		assert_ok(plan_add(&p, &(struct wire_run){.addr = 5000 - i, .length = 100}, 0, &e), &e);
	assert_ok(plan_all(&p, &e), &e);
	assert_int_equal(p.n_pieces, 5000);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(p.pieces[i].run, i);
	plan_deinit(&p);
	assert_ok(plan_newest(&p, &e), &e);
	assert_int_equal(p.n_pieces, 0);
}

/* A run that is cut by a newer one in its middle, spaces that do not touch each other. */
static void test_cut(void **state)
{
	struct plan p = {0};
	struct error e = ERROR_INIT;

	(void)state;
	assert_ok(plan_add(&p, &(struct wire_run){.addr = 40, .length = 20}, 0, &e), &e);
	assert_ok(plan_add(&p, &(struct wire_run){.addr = 0, .length = 100}, 1, &e), &e);
	assert_ok(plan_add(&p, &(struct wire_run){.space = SPACE_OBJECT, .addr = 0, .length = 100}, 1, &e),
		  &e);
	assert_ok(plan_newest(&p, &e), &e);
	pieces_sort_for_reading(p.pieces, p.n_pieces);
	assert_int_equal(p.n_pieces, 4);
	const struct plan_piece want[] = {
		{.run = 0, .addr = 40, .length = 20},
		{.run = 1, .addr = 0, .length = 40},
		{.run = 1, .addr = 60, .length = 40},
		{.run = 2, .addr = 0, .length = 100},
	};

	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(p.pieces[i].run, want[i].run);
		assert_int_equal(p.pieces[i].addr, want[i].addr);
		assert_int_equal(p.pieces[i].length, want[i].length);
	}
	plan_deinit(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),          cmocka_unit_test(test_same),
		cmocka_unit_test(test_versions),        cmocka_unit_test(test_steps),
		cmocka_unit_test(test_all_keeps_order), cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
