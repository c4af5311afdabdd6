/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>

#include <cmocka.h>

#include "base/util.h"
#include "migrate/journal.h"

#define ID "0d5e8b1c-3c9b-4f0e-9a57-0123456789ab"

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < MIGRATION_STATES; i++) {
		assert_int_equal(state_rows[i].state, i);
		assert_non_null(state_rows[i].name);
		/* The journal has a field of this width. */
		assert_true(strlen(state_rows[i].name) <= 12);
		assert_int_equal(migration_state_find(state_rows[i].side, state_rows[i].name), i);
	}
	assert_int_equal(migration_state_find(SIDE_SOURCE, "ready"), MIGRATION_NO_STATE);
	for (size_t i = 0; i < n_transition_rows; i++) {
		const struct transition_row *t = &transition_rows[i];

		assert_int_equal(state_rows[t->from].side, state_rows[t->to].side);
		assert_true(t->from < t->to); /* nothing ever goes back */
		for (size_t k = 0; k < i; k++)
			assert_false(transition_rows[k].from == t->from && transition_rows[k].to == t->to);
	}
}

/* Every state is reached, and every one but the last has a way on. */
static void test_reachable(void **state)
{
	bool reached[MIGRATION_STATES] = {[SOURCE_IDLE] = true, [DEST_IDLE] = true};
	bool leads[MIGRATION_STATES] = {[SOURCE_ENDED] = true, [DEST_ENDED] = true};

	(void)state;
	for (size_t i = 0; i < n_transition_rows; i++) {
		reached[transition_rows[i].to] = true;
		leads[transition_rows[i].from] = true;
	}
	for (size_t i = 0; i < MIGRATION_STATES; i++) {
		assert_true(reached[i]);
		assert_true(leads[i]);
	}
}

/* What the promise rests on. */
static void test_no_short_cut(void **state)
{
	(void)state;
	assert_false(transition_is_legal(SOURCE_COMMITTING, SOURCE_STAYED));
	assert_false(transition_is_legal(SOURCE_COMMITTING, SOURCE_ENDED));
	assert_false(transition_is_legal(SOURCE_SENT, SOURCE_MOVED));
	assert_false(transition_is_legal(DEST_READY, DEST_STARTING));
	assert_false(transition_is_legal(DEST_STARTING, DEST_ABORTED));
	assert_false(transition_is_legal(DEST_RUNNING, DEST_ABORTED));
	assert_false(transition_is_legal(DEST_ABORTED, DEST_COMMITTED));
	/* Pages that are still wanted are not thrown away. (To `stayed` it goes only when the machine there
	 * was restarted, and an operator says so: doubt.c.) */
	assert_false(transition_is_legal(SOURCE_SERVING, SOURCE_ENDED));
	assert_false(transition_is_legal(DEST_FETCHING, DEST_ABORTED));
	assert_false(transition_is_legal(DEST_FETCHING, DEST_ENDED));
	assert_false(transition_is_legal(DEST_COMMITTED, DEST_FETCHING));
}

static char seen[256];

static void on_event(void *ctx, const json_t *ev)
{
	(void)ctx;
	strcat(seen, json_string_value(json_object_get(ev, "state")));
	strcat(seen, " ");
}

static void test_move(void **state)
{
	struct events events = {.emit = on_event};
	struct machine m = {.state = SOURCE_IDLE, .events = &events};
	struct error e = ERROR_INIT;

	(void)state;
	assert_int_equal(machine_move(&m, SOURCE_HELLO, &e), 0);
	assert_int_equal(machine_move(&m, SOURCE_FROZEN, &e), -EPROTO);
	assert_non_null(strstr(e.text, "hello"));
	assert_int_equal(m.state, SOURCE_HELLO);
	error_clear(&e);
	assert_int_equal(machine_move(&m, SOURCE_STAYED, &e), 0);
	assert_string_equal(seen, "hello stayed ");
}

/* Where the journal decides it is written first, and without it nothing moves. */
static void test_journal(void **state)
{
	char dir[] = "/tmp/ferry-states.XXXXXX";
	struct error e = ERROR_INIT;
	struct journal *j;

	(void)state;
	assert_non_null(mkdtemp(dir));
	cleanup_free char *missing = xasprintf("%s/no/such/place", dir),
			  *sub = xasprintf("%s/journal/in", dir);
	struct machine m = {.state = DEST_IDLE};

	m.journal = journal_new(missing, SIDE_DESTINATION, ID);
	assert_true(machine_move(&m, DEST_RECEIVING, &e) < 0);
	assert_int_equal(m.state, DEST_IDLE);
	error_clear(&e);
	journal_free(m.journal);
	m.journal = journal_new(dir, SIDE_DESTINATION, ID);
	assert_int_equal(machine_move(&m, DEST_RECEIVING, &e), 0);
	assert_int_equal(journal_open(&j, dir, SIDE_DESTINATION, ID, &e), 0);
	assert_int_equal(j->state, DEST_RECEIVING);
	assert_int_equal(j->fd, -1);
	journal_free(j);
	assert_int_equal(machine_move(&m, DEST_ABORTED, &e), 0);
	assert_int_equal(machine_move(&m, DEST_ENDED, &e), 0);
	assert_int_equal(journal_open(&j, dir, SIDE_DESTINATION, ID, &e), -ENOENT);
	journal_free(m.journal);
	assert_int_equal(rmdir(sub), 0);
	*strrchr(sub, '/') = 0;
	assert_int_equal(rmdir(sub), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),        cmocka_unit_test(test_reachable),
		cmocka_unit_test(test_no_short_cut), cmocka_unit_test(test_move),
		cmocka_unit_test(test_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
