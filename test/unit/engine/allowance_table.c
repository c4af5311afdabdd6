/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "engine/allowance_table.h"

static struct restore_limits limits(struct allowance_table *t, size_t slot)
{
	return (struct restore_limits){.memory = 100, .tasks = 10, .table = t, .slot = slot};
}

static void sums(void **state)
{
	struct allowance_table *t = allowance_table_new(4);
	struct restore_limits a = limits(t, 0), b = limits(t, 1), c = limits(t, 2), dry = limits(t, 3);
	uint64_t others;

	(void)state;
	dry.rehearsal = true;
	allowance_claim(&a, "one");
	allowance_claim(&b, "one");
	allowance_claim(&c, "other");
	allowance_claim(&dry, "one");
	assert_true(allowance_share(&a, ALLOWANCE_MEMORY, 60, 60, &others));
	assert_int_equal(others, 0);
	assert_false(allowance_share(&b, ALLOWANCE_MEMORY, 41, 41, &others));
	assert_int_equal(others, 60);
	/* What was refused is not taken, and a rehearsal takes nothing. */
	assert_true(allowance_share(&dry, ALLOWANCE_MEMORY, 40, 40, &others));
	assert_true(allowance_share(&b, ALLOWANCE_MEMORY, 30, 90, &others));
	/* It got what there was: nothing is left for the first to grow by. */
	assert_false(allowance_share(&a, ALLOWANCE_MEMORY, 61, 61, &others));
	assert_int_equal(others, 40);
	assert_true(allowance_share(&c, ALLOWANCE_MEMORY, 100, 100, &others));
	assert_int_equal(others, 0);
	assert_true(allowance_share(&a, ALLOWANCE_TASKS, 6, 6, &others));
	assert_false(allowance_share(&b, ALLOWANCE_TASKS, 5, 5, &others));
	allowance_table_clear(t, 0);
	assert_true(allowance_share(&b, ALLOWANCE_TASKS, 5, 5, &others));
	assert_true(allowance_share(&b, ALLOWANCE_MEMORY, 100, 100, &others));
}

static void alone(void **state)
{
	struct restore_limits a = limits(NULL, 0);
	uint64_t others;

	(void)state;
	assert_true(allowance_share(&a, ALLOWANCE_MEMORY, 100, 100, &others));
	assert_false(allowance_share(&a, ALLOWANCE_MEMORY, 101, 101, &others));
	a.memory = 0;
	assert_true(allowance_share(&a, ALLOWANCE_MEMORY, ~0ull, ~0ull, &others));
	allowance_claim(&a, "nobody");
	allowance_table_clear(NULL, 0);
}

/* Many at once, some of them killed: never more than there is. */
static void crowd(void **state)
{
	struct allowance_table *t = allowance_table_new(8);
	pid_t pids[8];
	unsigned granted = 0;

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			struct restore_limits l = limits(t, i);
			uint64_t others;
			bool fits = false;

			allowance_claim(&l, "one");
			for (int n = 0; n < 2000; n++)
				fits = allowance_share(&l, ALLOWANCE_MEMORY, 30, 30, &others);
			if (i == 7)
				abort();
			_exit(fits);
		}
	}
	for (size_t i = 0; i < 8; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		granted += WIFEXITED(status) && WEXITSTATUS(status);
	}
	assert_true(granted <= 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(sums), cmocka_unit_test(alone),
					   cmocka_unit_test(crowd)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
