/* SPDX-License-Identifier: Apache-2.0 */
/*
 * soft-dirty: what another process writes while the target stands still is noticed; and where nobody writes
 * that is known, too, if the target has a memory cgroup for itself.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* The files of plugins are in no library. First: cmocka has a macro named fail. */
#include "../../../plugins/dirty-backends/common/parallel.c"
#include "../../../plugins/dirty-backends/common/ranges.c"
#include "../../../plugins/dirty-backends/common/scan.c"
#include "../../../plugins/dirty-backends/common/target_uffd.c"
#include "../../../plugins/dirty-backends/common/zeros.c"
#include "../../../plugins/dirty-backends/soft-dirty/outside.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define WRITES 200

static char *memory;
static int order[2], done[2];

/* The target is this process; a child writes to it, one page for each byte that it reads. */
static void write_when_told(void)
{
	pid_t target = getppid();
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(order[1]);
	close(done[0]);
	for (size_t i = 0; read(order[0], &c, 1) == 1; i++) {
		struct iovec from = {&c, 1}, to = {memory + i % WRITES * PAGE, 1};

		if (c == 'w' && process_vm_writev(target, &from, 1, &to, 1, 0) != 1)
			_exit(1);
		if (write(done[1], &c, 1) != 1)
			_exit(1);
	}
	_exit(0);
}

static void other(char c)
{
	assert_int_equal(write(order[1], &c, 1), 1);
	assert_int_equal(read(done[0], &c, 1), 1);
}

static int64_t call(void *ctx, long nr, const uint64_t a[6])
{
	long r = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);

	(void)ctx;
	return r < 0 ? -errno : r;
}

static void open_self(struct outside *o)
{
	struct dirty_target t = {
		.pid = getpid(), .pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), .syscall = call};

	outside_open(o, &t);
	close(t.pidfd);
	if (o->uffd < 0)
		skip();
}

/* Never is such a write overlooked, whatever counts. */
static void writes_are_noticed(struct outside *o)
{
	/* As after a reset: the first write to each page is a fault. */
	assert_int_equal(madvise(memory, WRITES * PAGE, MADV_DONTNEED), 0);
	for (unsigned i = 0; i < WRITES; i++) {
		outside_begin(o);
		other('w');
		assert_false(outside_none(o));
	}
}

static void test_of_machine(void **state)
{
	struct outside o;

	(void)state;
	open_self(&o);
	writes_are_noticed(&o);
	outside_close(&o);
	assert_false(outside_none(&(struct outside){.uffd = -1}));
}

static bool put_text(const char *dir, const char *file, const char *text)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static void test_of_cgroup(void **state)
{
	char old[256], was[400], own[500], stat_file[600];
	struct outside o;
	bool quiet = false;

	(void)state;
	if (!cgroup_of("self", old, sizeof(old)))
		skip();
	snprintf(was, sizeof(was), "%s%s", cgroups(), strcmp(old, "/") ? old : "");
	snprintf(own, sizeof(own), "%s/ferry-outside-%d", was, getpid());
	if (mkdir(own, 0755) < 0)
		skip();
	snprintf(stat_file, sizeof(stat_file), "%s/memory.stat", own);
	if (access(stat_file, R_OK) < 0 || !put_text(own, "cgroup.procs", "0")) {
		rmdir(own);
		skip();
	}
	open_self(&o);
	bool counts = cgroups_count();

	for (unsigned i = 0; i < WRITES && counts && !quiet; i++) {
		outside_begin(&o);
		other('n');
		quiet = outside_none(&o);
	}
	if (counts)
		writes_are_noticed(&o);
	outside_close(&o);
	assert_true(put_text(was, "cgroup.procs", "0"));
	assert_int_equal(rmdir(own), 0);
	if (!counts)
		skip();
	assert_true(quiet);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_of_cgroup),
		cmocka_unit_test(test_of_machine),
	};

	memory = mmap(NULL, WRITES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || pipe(order) < 0 || pipe(done) < 0)
		return 1;
	madvise(memory, WRITES * PAGE, MADV_NOHUGEPAGE);
	pid_t child = fork();

	if (child == 0)
		write_when_told();
	close(order[0]);
	close(done[1]);
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	close(order[1]);
	waitpid(child, NULL, 0);
	return r;
}
