/* SPDX-License-Identifier: Apache-2.0 */
#include "target.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "freeze/cgroup.h"
#include "freeze/rescue.h"
#include "freeze/tree.h"

static char mount_point[] = "/tmp/ferry-unit-cgroup-XXXXXX";

/* A hierarchy of our own in a mount namespace of our own; NULL where the kernel does not have it. */
static char *make_group(const char *type, const char *data)
{
	if (mount("none", mount_point, type, 0, data) < 0)
		return NULL;
	char *dir = xasprintf("%s/ferry-unit-%d", mount_point, getpid());

	assert_int_equal(mkdir(dir, 0755), 0);
	return dir;
}

static void put(const char *dir, pid_t pid)
{
	cleanup_free char *path = xasprintf("%s/cgroup.procs", dir);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fprintf(f, "%d", pid);
	assert_int_equal(fclose(f), 0);
}

static void drop_group(char *dir)
{
	for (int i = 0; i < 500 && rmdir(dir) < 0; i++)
		msleep(10);
	assert_int_equal(umount(mount_point), 0);
	free(dir);
}

static void freeze_and_inject(const char *dir, pid_t pid)
{
	struct error e = ERROR_INIT;
	struct freeze_options opt = {.freeze_cgroup = dir, .timeout_ms = 5000};
	struct tree *t;
	int64_t result;

	assert_ok(tree_scan(pid, &t, &e), &e);
	for (int i = 0; i < 5; i++) {
		assert_ok(tree_freeze(t, &opt, NULL, NULL, &e), &e);
		struct task *task = &t->procs[0]->threads[0]->task;
		uint64_t n = shared[0];

		assert_ok(task_save(task, &e), &e);
		assert_ok(task_syscall(task, SYS_getpid, NULL, &result, NULL, NULL, &e), &e);
		assert_int_equal(result, pid);
		assert_int_equal(shared[0], n);
		assert_ok(tree_thaw(t, &e), &e);
		await(0, n + 1000);
	}
	/* Frozen by somebody else: so it is again when we have gone. */
	bool was;

	assert_ok(cgroup_freeze(dir, 5000, &was, &e), &e);
	assert_false(was);
	assert_ok(tree_freeze(t, &opt, NULL, NULL, &e), &e);
	assert_ok(task_save(&t->procs[0]->threads[0]->task, &e), &e);
	assert_ok(task_syscall(&t->procs[0]->threads[0]->task, SYS_getpid, NULL, &result, NULL, NULL, &e),
		  &e);
	assert_ok(tree_thaw(t, &e), &e);
	assert_ok(cgroup_freeze(dir, 5000, &was, &e), &e);
	msleep(20);
	uint64_t n = shared[0];

	msleep(20);
	assert_int_equal(shared[0], n);
	assert_ok(cgroup_set(dir, false, &e), &e);
	await(0, n + 1);
	tree_free(t);
}

/* What a supervisor does with the cgroup after the death of its worker. */
static void cure(const char *dir)
{
	struct error e = ERROR_INIT;
	bool was;

	assert_ok(rescue_init(&e), &e);
	assert_ok(cgroup_freeze(dir, 5000, &was, &e), &e);
	rescue_note_cgroup(dir, false);
	assert_ok(rescue_run(&e), &e);
	await(0, shared[0] + 1000);
	rescue_note_cgroup(dir, true);
	assert_ok(rescue_run(&e), &e);
	for (int i = 0; i < 500 && !cgroup_is_frozen(dir); i++)
		msleep(10);
	assert_true(cgroup_is_frozen(dir));
	rescue_clear_cgroup();
	assert_ok(rescue_run(&e), &e);
	assert_true(cgroup_is_frozen(dir));
	assert_ok(cgroup_set(dir, false, &e), &e);
	await(0, shared[0] + 1000);
}

static void with(const char *type, const char *data)
{
	pid_t pid = target_fork(run_counter);
	char *dir = make_group(type, data);

	if (!dir) {
		target_kill(pid);
		skip();
	}
	await(0, 1);
	put(dir, pid);
	freeze_and_inject(dir, pid);
	cure(dir);
	target_kill(pid);
	drop_group(dir);
}

static void test_v2(void **state)
{
	(void)state;
	with("cgroup2", NULL);
}

static void test_v1(void **state)
{
	(void)state;
	with("cgroup", "freezer");
}

static void test_no_group(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct freeze_options opt = {.freeze_cgroup = "/tmp"};
	struct tree *t;
	pid_t pid = target_fork(run_counter);

	await(0, 1);
	assert_ok(tree_scan(pid, &t, &e), &e);
	assert_int_equal(tree_freeze(t, &opt, NULL, NULL, &e), -ENOENT);
	assert_non_null(strstr(e.text, "/tmp is not a cgroup"));
	await(0, shared[0] + 1000);
	tree_free(t);
	target_kill(pid);
}

static int setup(void **state)
{
	if (target_setup(state) < 0 || !mkdtemp(mount_point) || unshare(CLONE_NEWNS) < 0)
		return -1;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static int teardown(void **state)
{
	rmdir(mount_point);
	return target_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v2),
		cmocka_unit_test(test_v1),
		cmocka_unit_test(test_no_group),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
