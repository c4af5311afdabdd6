/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "migrate/arrival.h"
#include "migrate/doubt.h"
#include "procfs/procfs.h"

#define ID "0d5e8b1c-3c9b-4f0e-9a57-0123456789ab"

static char *dir;
static const struct link_options options;

static uint64_t start_of(pid_t pid)
{
	struct proc_stat st;
	struct error e = ERROR_INIT;

	assert_int_equal(proc_stat_read(pid, 0, &st, &e), 0);
	return st.start_time;
}

static char state_of(pid_t pid)
{
	struct proc_stat st;
	struct error e = ERROR_INIT;

	return proc_stat_read(pid, 0, &st, &e) < 0 ? 0 : st.state;
}

/* A process that is stopped, as by a waiting SIGSTOP. */
static pid_t stopped_child(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		for (;;)
			pause();
	kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	return pid;
}

static struct journal *entry(enum migration_side side, enum migration_state st, pid_t pid)
{
	struct journal *j = journal_new(dir, side, ID);
	struct error e = ERROR_INIT;

	if (pid)
		journal_add_process(j, pid, start_of(pid), true);
	if (side == SIDE_SOURCE)
		journal_set(j, "192.0.2.9", true, "a-life");
	assert_int_equal(journal_state(j, st, &e), 0);
	return j;
}

/* The same by somebody who has died since. */
static void left_behind(enum migration_side side, enum migration_state st, pid_t pid)
{
	journal_free(entry(side, st, pid));
}

static const char *answer(void)
{
	return arrival_answer(dir, ID, NULL);
}

static void test_unknown(void **state)
{
	(void)state;
	assert_string_equal(answer(), "unknown");
}

static void test_at_work(void **state)
{
	static const struct {
		enum migration_state st;
		const char *answer;
	} rows[] = {{DEST_RECEIVING, "pending"}, {DEST_READY, "pending"},   {DEST_COMMITTED, "pending"},
		    {DEST_STARTING, "running"},  {DEST_RUNNING, "running"}, {DEST_ABORTED, "aborted"}};
	struct error e = ERROR_INIT;
	struct journal *j = entry(SIDE_DESTINATION, DEST_RECEIVING, 0);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(journal_state(j, rows[i].st, &e), 0);
		assert_string_equal(answer(), rows[i].answer);
	}
	/* Who has it cannot lose it to others. */
	arrival_forget(dir, ID, NULL);
	assert_int_equal(arrivals_recover(dir, NULL), 0);
	assert_string_equal(answer(), "aborted");
	journal_remove(j);
	journal_free(j);
	assert_string_equal(answer(), "unknown");
}

/* Nothing that was left before `starting` may ever run: it is killed before the answer is given. */
static void test_died_before_the_start(void **state)
{
	static const enum migration_state rows[] = {DEST_RECEIVING, DEST_READY, DEST_COMMITTED};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		pid_t pid = stopped_child();

		left_behind(SIDE_DESTINATION, rows[i], pid);
		assert_string_equal(answer(), "aborted");
		assert_int_equal(state_of(pid), 'Z');
		waitpid(pid, NULL, 0);
		assert_string_equal(answer(), "aborted");
		arrival_forget(dir, ID, NULL);
		assert_string_equal(answer(), "unknown");
	}
}

static void test_died_in_the_start(void **state)
{
	pid_t pid = stopped_child();
	int status;

	(void)state;
	left_behind(SIDE_DESTINATION, DEST_STARTING, pid);
	assert_string_equal(answer(), "running");
	assert_int_equal(waitpid(pid, &status, WCONTINUED), pid);
	assert_true(WIFCONTINUED(status));
	/* From then on its stops are its own. */
	kill(pid, SIGSTOP);
	waitpid(pid, &status, WUNTRACED);
	assert_string_equal(answer(), "running");
	usleep(20000);
	assert_int_equal(state_of(pid), 'T');
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_string_equal(answer(), "running");
	arrival_forget(dir, ID, NULL);
	assert_string_equal(answer(), "unknown");
}

/* A pid that belongs to another process by now is left alone. */
static void test_reused_pid(void **state)
{
	struct error e = ERROR_INIT;
	pid_t pid = stopped_child();
	struct journal *j = journal_new(dir, SIDE_DESTINATION, ID);

	(void)state;
	journal_add_process(j, pid, start_of(pid) + 1, true);
	assert_int_equal(journal_state(j, DEST_COMMITTED, &e), 0);
	journal_free(j);
	assert_string_equal(answer(), "aborted");
	assert_int_equal(state_of(pid), 'T');
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	arrival_forget(dir, ID, NULL);
}

static void test_recover(void **state)
{
	(void)state;
	left_behind(SIDE_DESTINATION, DEST_RECEIVING, 0);
	assert_int_equal(arrivals_recover(dir, NULL), 1);
	/* No READY had been sent: nobody will ask. */
	assert_string_equal(answer(), "unknown");
	left_behind(SIDE_DESTINATION, DEST_READY, 0);
	assert_int_equal(arrivals_recover(dir, NULL), 1);
	assert_int_equal(arrivals_recover(dir, NULL), 0);
	assert_string_equal(answer(), "aborted");
	arrival_forget(dir, ID, NULL);
}

static void age(int64_t secs)
{
	cleanup_free char *path = xasprintf("%s/journal/in/%s", dir, ID);
	struct timespec t[2] = {{.tv_sec = time(NULL) - secs}, {.tv_sec = time(NULL) - secs}};

	assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static void test_life_time(void **state)
{
	(void)state;
	left_behind(SIDE_DESTINATION, DEST_RUNNING, 0);
	age(JOURNAL_KEEP_SECS - 60);
	journal_sweep(dir, SIDE_DESTINATION);
	assert_string_equal(answer(), "running");
	age(JOURNAL_KEEP_SECS + 60);
	journal_sweep(dir, SIDE_DESTINATION);
	assert_string_equal(answer(), "unknown");
	/* What is not decided is never too old. */
	left_behind(SIDE_DESTINATION, DEST_READY, 0);
	age(JOURNAL_KEEP_SECS * 10);
	journal_sweep(dir, SIDE_DESTINATION);
	assert_string_equal(answer(), "aborted");
	arrival_forget(dir, ID, NULL);
}

/* A state alone needs no room: it is written over the one before. */
static void test_full_disk(void **state)
{
	cleanup_free char *path = xasprintf("%s/fill", dir);
	struct error e = ERROR_INIT;

	(void)state;
	if (mount("tmpfs", dir, "tmpfs", 0, "size=64k") < 0)
		skip();
	struct journal *j = entry(SIDE_DESTINATION, DEST_READY, 0);
	FILE *f = fopen(path, "w");

	while (fwrite(path, 1, 16, f) == 16)
		;
	(void)fclose(f);
	assert_int_equal(journal_state(j, DEST_COMMITTED, &e), 0);
	assert_int_equal(journal_state(j, DEST_STARTING, &e), 0);
	journal_add_process(j, 1, 1, true);
	assert_int_equal(journal_state(j, DEST_RUNNING, &e), -ENOSPC);
	journal_free(j);
	assert_string_equal(answer(), "running");
	assert_int_equal(umount2(dir, MNT_DETACH), 0);
}

/* --- the source's ---------------------------------------------------------------------------------- */

static void test_doubt(void **state)
{
	struct error e = ERROR_INIT;
	pid_t pid = stopped_child();
	char uuid[37] = "";
	int status;

	(void)state;
	assert_false(doubt_find_target(dir, pid, uuid));
	assert_int_equal(doubt_settle(dir, ID, DOUBT_HERE, &options, NULL, &e), -ENOENT);
	error_clear(&e);
	struct journal *j = entry(SIDE_SOURCE, SOURCE_COMMITTING, pid);

	assert_true(doubt_find_target(dir, pid, uuid));
	assert_false(doubt_find_left(dir, uuid)); /* its owner lives */
	assert_int_equal(doubt_settle(dir, ID, DOUBT_HERE, &options, NULL, &e), -EBUSY);
	error_clear(&e);
	journal_free(j);
	assert_true(doubt_find_left(dir, uuid));
	assert_string_equal(uuid, ID);
	assert_false(doubt_find_target(dir, pid + 1, uuid));
	assert_int_equal(doubt_settle(dir, ID, DOUBT_HERE, &options, NULL, &e), 0);
	assert_int_equal(waitpid(pid, &status, WCONTINUED), pid);
	assert_true(WIFCONTINUED(status));
	assert_false(doubt_find_target(dir, pid, uuid));

	left_behind(SIDE_SOURCE, SOURCE_ASKING, pid);
	assert_int_equal(doubt_settle(dir, ID, DOUBT_THERE, &options, NULL, &e), 1);
	assert_int_equal(state_of(pid), 'Z');
	waitpid(pid, NULL, 0);
	assert_false(doubt_find_left(dir, uuid));
}

/* What was decided is done, whoever asks for something else. */
static void test_doubt_decided(void **state)
{
	struct error e = ERROR_INIT;
	pid_t pid = stopped_child();
	char uuid[37];

	(void)state;
	left_behind(SIDE_SOURCE, SOURCE_MOVED, pid);
	assert_int_equal(doubt_settle(dir, ID, DOUBT_HERE, &options, NULL, &e), 1);
	assert_int_equal(state_of(pid), 'Z');
	waitpid(pid, NULL, 0);
	/* Nothing is left that could run: no need to ask anybody. */
	struct journal *j = journal_new(dir, SIDE_SOURCE, ID);

	journal_add_process(j, pid, 1, true);
	journal_set(j, "192.0.2.9", true, NULL);
	assert_int_equal(journal_state(j, SOURCE_COMMITTING, &e), 0);
	journal_free(j);
	assert_int_equal(doubt_settle(dir, ID, DOUBT_ASK, &options, NULL, &e), 1);
	left_behind(SIDE_SOURCE, SOURCE_COPYING, 0);
	assert_int_equal(doubt_settle(dir, ID, DOUBT_ASK, &options, NULL, &e), 0);
	assert_false(doubt_find_left(dir, uuid));
}

static void test_ids(void **state)
{
	(void)state;
	assert_true(journal_uuid_ok(ID));
	assert_false(journal_uuid_ok("../../../../../../../../etc/cron.d/xxxxxx"));
	assert_false(journal_uuid_ok("../../../../../etc/passwd-0123456789a"));
	assert_false(journal_uuid_ok(""));
}

static int set_up(void **state)
{
	static char name[] = "/tmp/ferry-journal.XXXXXX";

	(void)state;
	dir = mkdtemp(name);
	return dir ? 0 : -1;
}

static int tear_down(void **state)
{
	static const char *const subs[] = {"journal/in", "journal/out", "journal", "."};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(subs); i++) {
		cleanup_free char *path = xasprintf("%s/%s", dir, subs[i]);

		if (rmdir(i + 1 < ARRAY_SIZE(subs) ? path : dir) < 0 && errno != ENOENT) {
			printf("%s is not empty\n", path);
			return -1;
		}
	}
	return 0;
}

/* Says "x" all the time. */
static pid_t talker(int say)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;; usleep(10000))
			(void)!write(say, "x", 1);
	return pid;
}

/* A process that traces @pid and lets it come to its SIGSTOP, but has not seen that yet. */
static pid_t tracer_of(pid_t pid)
{
	int ready[2];
	siginfo_t i;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid_t tracer = fork();

	if (tracer == 0) {
		if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0 && kill(pid, SIGSTOP) == 0 &&
		    waitid(P_PID, (id_t)pid, &i, WSTOPPED | WNOWAIT | __WALL) == 0 && i.si_status == SIGSTOP)
			(void)!write(ready[1], "x", 1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return tracer;
}

/* Its process has let go of the journal, but not of whom it traces: a dying process closes its files first.
 */
static void test_died_but_still_tracing(void **unused)
{
	int said[2];
	char c[4096];

	(void)unused;
	assert_int_equal(pipe2(said, O_NONBLOCK), 0);
	pid_t pid = talker(said[1]), tracer = tracer_of(pid);

	left_behind(SIDE_DESTINATION, DEST_STARTING, pid);
	assert_string_equal(answer(), "running");
	while (read(said[0], c, sizeof(c)) > 0)
		;
	kill(tracer, SIGKILL);
	waitpid(tracer, NULL, 0);
	struct pollfd p = {.fd = said[0], .events = POLLIN};

	assert_int_equal(poll(&p, 1, 20000), 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(said[0]);
	close(said[1]);
	arrival_forget(dir, ID, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_at_work),
		cmocka_unit_test(test_died_before_the_start),
		cmocka_unit_test(test_died_in_the_start),
		cmocka_unit_test(test_died_but_still_tracing),
		cmocka_unit_test(test_reused_pid),
		cmocka_unit_test(test_recover),
		cmocka_unit_test(test_life_time),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_doubt),
		cmocka_unit_test(test_doubt_decided),
		cmocka_unit_test(test_ids),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
