/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a backend keep its one rule, never a false negative?  A process changes its memory in every way there
 *is, and is followed in rounds into a copy; after the last, stopped, collect the copy must equal the memory
 *byte for byte.
 *
 *	unit-track-conformance                               all that come with Ferry and work here
 *	unit-track-conformance NAME [DIRECTORY [ROUNDS [PAUSE]]]   this one
 *	unit-track-conformance /PATH/NAME.so "" ROUNDS PAUSE
 *
 * PAUSE: microseconds between two steps of each writer (200). Where a step takes long, the writers would
 *leave nothing of the machine to who follows them.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "follow.h"
#include "freeze/task.h"
#include "writers.h"

static const char *name;
static int rounds = 6;
static struct backend backend;

static struct writer writers[] = {
	{"anon", w_anon, 0},
	{"huge", w_huge, 1},
	{"read(2)", w_kernel, 2},
	{"maps", w_maps, 3},
	{"fork", w_fork, 4},
	{"private memfd", w_private_file, 5},
	{"private file", w_disk_file, 6},
	{"shared", w_shared, 7},
	{"brk", w_brk, 8},
	{"once", w_once, 9},
};
#define N_WRITERS (int)ARRAY_SIZE(writers)

/* A target must not die by the handlers of the test program. */
static void default_signals(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		signal(signals[i], SIG_DFL);
}

static void all_writers(void *arg)
{
	bool unprivileged = *(bool *)arg;
	unsigned seed = 11;

	default_signals();
	if (unprivileged && (setgid(65534) < 0 || setuid(65534) < 0))
		_exit(70);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* last: another uid takes it back */
	for (int i = 0; i < N_WRITERS; i++) {
		pthread_t t;

		if (pthread_create(&t, NULL, writers[i].run, &writers[i]) != 0)
			_exit(70);
	}
	for (;; usleep(300 + pause_us))
		w_stack((int)(rnd(&seed) % 400), &seed);
}

static int64_t inject(void *ctx, long nr, const uint64_t args[6])
{
	struct error e = ERROR_INIT;
	int64_t ret;
	int r = task_syscall(ctx, nr, args, &ret, NULL, NULL, &e);

	return r < 0 ? r : ret;
}

static int attach(struct follow *f)
{
	struct task t = {0};
	struct error e = ERROR_INIT;
	cleanup_close int pidfd = sys_pidfd_open(f->pid, 0);
	const struct dirty_target d = {.pid = f->pid, .pidfd = pidfd, .ctx = &t, .syscall = inject};

	assert_true(pidfd >= 0);
	assert_int_equal(task_seize(&t, f->pid, f->pid, false, &e), 0);
	assert_int_equal(task_interrupt(&t, &e), 0);
	assert_int_equal(task_wait_stopped(&t, 2000, &e), 0);
	assert_int_equal(task_save(&t, &e), 0);
	int r = f->ops->attach(&d, &f->session, f->text, sizeof(f->text));

	assert_int_equal(task_release(&t, &e), 0);
	return r;
}

static void stop(pid_t pid)
{
	pid_t *tids;
	size_t n;
	struct error e = ERROR_INIT;

	kill(pid, SIGSTOP);
	assert_int_equal(proc_threads(pid, &tids, &n, &e), 0);
	for (size_t i = 0; i < n; i++) {
		struct proc_stat s;

		for (int tries = 0; tries < 5000; tries++) {
			assert_int_equal(proc_stat_read(pid, tids[i], &s, &e), 0);
			if (s.state == 'T')
				break;
			usleep(1000);
		}
		assert_int_equal(s.state, 'T');
	}
	free(tids);
}

/* As if never tracked: no VMA is registered, no descriptor was left. */
static void assert_untracked(pid_t pid)
{
	struct proc_maps m;
	struct error e = ERROR_INIT;
	int *fds;
	size_t n;

	assert_int_equal(proc_maps_read(pid, true, &m, &e), 0);
	for (size_t i = 0; i < m.n; i++)
		assert_false(m.v[i].vmflags & PROC_VM_UFFD_WP);
	proc_maps_deinit(&m);
	assert_int_equal(proc_fds(pid, &fds, &n, &e), 0);
	for (size_t i = 0; i < n; i++) {
		char path[64], link[64] = "";

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fds[i]);
		if (readlink(path, link, sizeof(link) - 1) > 0)
			assert_null(strstr(link, "userfaultfd"));
	}
	free(fds);
}

static struct progress progress_of(struct follow *f, int i)
{
	struct progress v;

	assert_int_equal(pread(f->mem, &v, sizeof(v), (off_t)(uintptr_t)&progress[i]), sizeof(v));
	return v;
}

static unsigned long steps_of(struct follow *f, int i)
{
	struct progress v = progress_of(f, i);

	return v.steps;
}

static void begin(struct follow *f, void (*run_target)(void *arg), void *arg)
{
	char path[64];

	*f = (struct follow){.ops = backend.ops, .mem = -1, .pagemap = -1};
	fflush(NULL);
	f->pid = fork();
	if (f->pid == 0)
		run_target(arg);
	snprintf(path, sizeof(path), "/proc/%d/mem", f->pid);
	f->mem = open(path, O_RDONLY | O_CLOEXEC);
	f->pagemap = pagemap_open(f->pid);
	assert_true(f->mem >= 0 && f->pagemap >= 0);
	if (attach(f) < 0)
		fail_msg("attach: %s", f->text);
}

static void end(struct follow *f)
{
	pid_t pid = f->pid;

	follow_deinit(f);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Of a target that should not have ended. */
static int status_of(pid_t pid)
{
	int status = -1;

	usleep(200000);

	waitpid(pid, &status, WNOHANG);
	return status;
}

static void let_go(pid_t pid)
{
	kill(pid, SIGCONT);
}

/* All writers have got further than @before. A busy or emulated machine may take its time. */
static void wait_for_steps(struct follow *f, const unsigned long before[N_WRITERS])
{
	for (int i = 0, ms = 0; i < N_WRITERS;) {
		if (steps_of(f, i) > before[i])
			i++;
		else if ((ms += 10) > 60000)
			fail_msg("writer %s stands still", writers[i].name);
		else
			usleep(10000);
	}
}

static void run(bool unprivileged)
{
	struct follow f;
	unsigned long before[N_WRITERS] = {0};
	bool running = backend.ops->caps & DIRTY_CAP_RUNNING;

	begin(&f, all_writers, &unprivileged);
	wait_for_steps(&f, before);
	for (int i = 0; i < rounds; i++) {
		if (!running)
			stop(f.pid);
		int r = follow_collect(&f, DIRTY_ROUND, running ? NULL : let_go);

		if (r < 0)
			fail_msg("round %d: %s: %s (wait status %x)", i, strerror(-r), f.text,
				 status_of(f.pid));
		usleep(5000 + 5 * pause_us);
	}
	stop(f.pid);
	int r = follow_collect(&f, DIRTY_FINAL, NULL);

	if (r < 0)
		fail_msg("final collect: %s: %s", strerror(-r), f.text);
	unsigned long wrong = follow_compare(&f);

	for (int i = 0; wrong && i < N_WRITERS; i++)
		print_message("%p: %s\n", progress_of(&f, i).area, writers[i].name);
	print_message(
		"%s: %lu rounds, %lu pages copied, %lu suspected for nothing, %lu VMAs armed again, %lu "
		"untrackable, %lu wrong pages\n",
		name, f.rounds, f.copied, f.same, f.rearmed, f.untrackable, wrong);
	assert_int_equal(wrong, 0);
	assert_true(f.rounds == (unsigned long)rounds + 1 && f.copied > 10000);
	f.ops->detach(TAKE_PTR(f.session));
	assert_untracked(f.pid);
	for (int i = 0; i < N_WRITERS; i++)
		before[i] = steps_of(&f, i);
	kill(f.pid, SIGCONT);
	wait_for_steps(&f, before); /* and still does what it did */
	end(&f);
}

static void test_follow(void **state)
{
	(void)state;
	run(false);
}

static void test_follow_unprivileged(void **state)
{
	(void)state;
	run(true);
}

/* --- one thing at a time -------------------------------------------------------------------------- */

/* Areas of 16 pages at addresses both sides know, and a target that does what it is told by the number of a
 * step. */
static char *lab[4];
static int lab_go[2], lab_done[2], lab_file = -1;
#define LARGE (2ul << 20)
static char *room, *large; /* two places of 2 MiB, aligned, and room for a third */
enum { ANON, FILE_PRIVATE, SHARED, N_AREAS };

static void change_places(void)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	if (mremap(large, LARGE, LARGE, flags, large + 2 * LARGE) == MAP_FAILED ||
	    mremap(large + LARGE, LARGE, LARGE, flags, large) == MAP_FAILED ||
	    mremap(large + 2 * LARGE, LARGE, LARGE, flags, large + LARGE) == MAP_FAILED)
		_exit(1);
}

static void lab_step(int n)
{
	switch (n) {
	case 0:
		memset(large, 1, LARGE);
		memset(large + LARGE, 2, LARGE);
		for (int i = 0; i < N_AREAS; i++)
			memset(lab[i], 1, 8 * P);
		break;
	case 1:
		for (int i = 0; i < N_AREAS; i++) {
			lab[i][1 * P] = 2;                         /* stored to */
			madvise(lab[i] + 4 * P, P, MADV_DONTNEED); /* dropped */
			madvise(lab[i] + 5 * P, P, MADV_DONTNEED); /* dropped and filled again */
			lab[i][5 * P] = 3;
			madvise(lab[i] + 6 * P, P, MADV_DONTNEED); /* dropped and read again */
			if (i != SHARED) /* there reading maps the neighbours, too */
				(void)*(volatile char *)(lab[i] + 6 * P);
			lab[i][12 * P] = 4; /* new */

			struct iovec from = {(void *)"kernel", 6}, to = {lab[i] + 2 * P, 6},
				     to2 = {lab[i] + 3 * P, 6};

			process_vm_writev(getpid(), &from, 1, &to, 1, 0);
			preadv(lab_file, &to2, 1, 0);
		}
		break;
	case 2:
		munmap(lab[ANON], 16 * P);
		mmap(lab[ANON], 16 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0);
		lab[ANON][0] = 9;
		break;
	case 3:
		execl("/bin/sleep", "sleep", "1000", (char *)NULL);
		_exit(1);
	case 4:
		change_places();
		break;
	default:
		_exit(0);
	}
}

static void lab_target(void *arg)
{
	char c;

	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(lab_go[0], &c, 1) == 1) {
		lab_step(c);
		if (write(lab_done[1], &c, 1) < 0)
			_exit(1);
	}
	_exit(1);
}

static void tell(int n)
{
	char c = (char)n;

	assert_int_equal(write(lab_go[1], &c, 1), 1);
	if (n != 3 && n < 9)
		assert_int_equal(read(lab_done[0], &c, 1), 1);
}

static void lab_begin(struct follow *f)
{
	for (int i = 0; i < N_AREAS; i++) {
		int fd = i == ANON ? -1 : memfd_create("lab", MFD_CLOEXEC);

		if (fd >= 0)
			assert_int_equal(ftruncate(fd, 16 * P), 0);
		lab[i] = mmap(NULL, 16 * P, PROT_READ | PROT_WRITE,
			      (i == SHARED ? MAP_SHARED : MAP_PRIVATE) | (i == ANON ? MAP_ANONYMOUS : 0), fd,
			      0);
		assert_true(lab[i] != MAP_FAILED);
		madvise(lab[i], 16 * P, MADV_NOHUGEPAGE);
		madvise(lab[i], 16 * P, MADV_DONTDUMP); /* a VMA of its own */
		if (fd >= 0)
			close(fd);
	}
	room = mmap(NULL, 4 * LARGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(room != MAP_FAILED);
	large = (char *)(((uintptr_t)room + LARGE - 1) & ~(LARGE - 1));
	assert_int_equal(mprotect(large, 2 * LARGE, PROT_READ | PROT_WRITE), 0);
	madvise(large, 2 * LARGE, MADV_NOHUGEPAGE);
	lab_file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_int_equal(pipe(lab_go), 0);
	assert_int_equal(pipe(lab_done), 0);
	begin(f, lab_target, NULL);
	tell(0);
}

static void lab_end(struct follow *f)
{
	end(f);
	for (int i = 0; i < N_AREAS; i++)
		munmap(lab[i], 16 * P);
	munmap(room, 4 * LARGE);
	close(lab_file);
	for (int i = 0; i < 2; i++) {
		close(lab_go[i]);
		close(lab_done[i]);
	}
}

static const uint32_t lab_kind[N_AREAS] = {DIRTY_VMA_ANON, DIRTY_VMA_PRIVATE_FILE, DIRTY_VMA_SHARED};

static struct dirty_vma lab_vma(int i)
{
	return (struct dirty_vma){(uintptr_t)lab[i], (uintptr_t)lab[i] + 16 * P, lab_kind[i], 0};
}

static bool runs(void)
{
	return backend.ops->caps & DIRTY_CAP_RUNNING;
}

static void pass_begin(struct follow *f, enum dirty_collect_mode mode)
{
	if (mode == DIRTY_FINAL || !runs())
		stop(f->pid);
	if (f->ops->begin(f->session, mode, f->text, sizeof(f->text)) < 0)
		fail_msg("begin: %s", f->text);
}

static void pass_end(struct follow *f, enum dirty_collect_mode mode)
{
	if (f->ops->end(f->session, mode, f->text, sizeof(f->text)) < 0)
		fail_msg("end: %s", f->text);
	if (mode == DIRTY_ROUND && !runs())
		kill(f->pid, SIGCONT);
}

/* Anonymous memory must be tracked; what is not, on this kernel, always counts as dirty. */
static bool lab_arm(struct follow *f, int i)
{
	const struct dirty_vma v = lab_vma(i);

	assert_true(f->ops->kinds & DIRTY_KIND(v.kind));
	int r = f->ops->arm(f->session, &v, f->text, sizeof(f->text));

	if (r == 1 && i != ANON) {
		print_message("%s does not track kind %u here\n", name, v.kind);
		return false;
	}
	assert_int_equal(r, 0);
	return true;
}

/* Flags of each page of an area. */
static ssize_t lab_collect(struct follow *f, int i, enum dirty_collect_mode mode, uint32_t flags[16])
{
	const struct dirty_vma v = lab_vma(i);
	const struct dirty_range *r;
	ssize_t n = f->ops->collect(f->session, &v, mode, &r, f->text, sizeof(f->text));

	memset(flags, 0, 16 * sizeof(*flags));
	for (ssize_t k = 0; k < n; k++) {
		if (r[k].flags & DIRTY_UNSURE)
			assert_true(backend.ops->caps & DIRTY_CAP_UNSURE && r[k].flags & DIRTY_WRITTEN);
		for (uint64_t a = r[k].start; a < r[k].end; a += P)
			flags[(a - v.start) / P] = r[k].flags;
	}
	return n;
}

static bool sure(uint32_t flags)
{
	return (flags & DIRTY_WRITTEN) && !(flags & DIRTY_UNSURE);
}

static void check_final(struct follow *f, int i)
{
	static const int written[] = {1, 2, 3, 5, 12};
	bool exact = backend.ops->caps & DIRTY_CAP_PAGE_EXACT;
	uint32_t flags[16];

	assert_true(lab_collect(f, i, DIRTY_FINAL, flags) > 0);
	for (size_t k = 0; k < ARRAY_SIZE(written); k++)
		assert_int_equal(flags[written[k]] & ~DIRTY_UNSURE, DIRTY_WRITTEN | DIRTY_PRESENT);
	assert_false(flags[4] & DIRTY_PRESENT);
	if (i == ANON)
		assert_int_equal(flags[4] & ~DIRTY_UNSURE, DIRTY_WRITTEN);
	if (i == ANON) /* zeros, whoever says that they are a page */
		assert_true(flags[6] & DIRTY_WRITTEN);
	if (i == FILE_PRIVATE)
		assert_false(flags[6] & DIRTY_PRESENT);
	if (i == FILE_PRIVATE) /* the complete set */
		assert_true(flags[0] & DIRTY_PRESENT && flags[7] & DIRTY_PRESENT);
	if (exact)
		assert_false(flags[0] & DIRTY_WRITTEN || flags[7] & DIRTY_WRITTEN);
	if (i != SHARED) /* no false accusation: "unsure" is for what is not known */
		assert_false(sure(flags[0]) || sure(flags[7]));
	assert_false(flags[14] & DIRTY_PRESENT);
}

static void test_final_answer(void **state)
{
	(void)state;
	struct follow f;
	bool tracked[N_AREAS];

	lab_begin(&f);
	pass_begin(&f, DIRTY_ROUND);
	for (int i = 0; i < N_AREAS; i++)
		tracked[i] = lab_arm(&f, i);
	pass_end(&f, DIRTY_ROUND);
	tell(1);
	pass_begin(&f, DIRTY_FINAL);
	for (int i = 0; i < N_AREAS; i++)
		if (tracked[i])
			check_final(&f, i);
	pass_end(&f, DIRTY_FINAL);
	f.ops->detach(TAKE_PTR(f.session));
	assert_untracked(f.pid);
	lab_end(&f);
}

static ssize_t lab_round(struct follow *f, int i, uint32_t flags[16])
{
	pass_begin(f, DIRTY_ROUND);
	ssize_t n = lab_collect(f, i, DIRTY_ROUND, flags);

	pass_end(f, DIRTY_ROUND);
	return n;
}

static void test_rounds(void **state)
{
	(void)state;
	struct follow f;
	uint32_t flags[16];

	lab_begin(&f);
	pass_begin(&f, DIRTY_ROUND);
	lab_arm(&f, ANON);
	pass_end(&f, DIRTY_ROUND);
	lab_round(&f, ANON, flags);
	for (int again = 0; again < 2; again++) {
		assert_true(lab_round(&f, ANON, flags) >= 0);
		for (int i = 0; i < 16; i++)
			assert_false(sure(flags[i])); /* nothing new */
		if (again)
			break;
		tell(1);
		assert_true(lab_round(&f, ANON, flags) > 0);
		assert_true(flags[1] & flags[5] & flags[12] & DIRTY_WRITTEN);
	}
	tell(2); /* another mapping at the same place: never "nothing" */
	ssize_t n = lab_round(&f, ANON, flags);

	assert_true(n == -EPERM || (n > 0 && (flags[0] & DIRTY_WRITTEN)));
	lab_end(&f);
}

static void collect(struct follow *f, enum dirty_collect_mode mode)
{
	if (mode == DIRTY_FINAL || !runs())
		stop(f->pid);
	int r = follow_collect(f, mode, mode == DIRTY_FINAL || runs() ? NULL : let_go);

	if (r < 0)
		fail_msg("collect: %s: %s", strerror(-r), f->text);
}

/* Page tables may be moved as they are, with all that says that nothing was written. */
static void test_moved(void **state)
{
	(void)state;
	for (int rounds_after = 0; rounds_after < 2; rounds_after++) {
		struct follow f;

		lab_begin(&f);
		collect(&f, DIRTY_ROUND);
		collect(&f, DIRTY_ROUND);
		tell(4);
		for (int i = 0; i < rounds_after; i++)
			collect(&f, DIRTY_ROUND);
		collect(&f, DIRTY_FINAL);
		assert_int_equal(follow_compare(&f), 0);
		lab_end(&f);
	}
}

static void test_exec_and_exit(void **state)
{
	(void)state;
	for (int how = 3; how < 10; how += 6) {
		struct follow f;
		uint32_t flags[16];

		lab_begin(&f);
		const struct dirty_vma v = lab_vma(ANON);

		pass_begin(&f, DIRTY_ROUND);
		lab_arm(&f, ANON);
		pass_end(&f, DIRTY_ROUND);
		tell(how);
		usleep(100000);
		for (int mode = DIRTY_ROUND; mode <= DIRTY_FINAL; mode++) {
			assert_int_equal(f.ops->begin(f.session, mode, f.text, sizeof(f.text)), -ESRCH);
			if (lab_collect(&f, ANON, mode, flags) != -ESRCH)
				fail_msg("step %d: not seen that it is gone (mode %d)", how, mode);
			assert_true(f.text[0]);
		}
		assert_int_equal(f.ops->arm(f.session, &v, f.text, sizeof(f.text)), -ESRCH);
		lab_end(&f);
	}
}

static int try(const char *which, const char *where, bool must)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_final_answer), cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_moved),        cmocka_unit_test(test_exec_and_exit),
		cmocka_unit_test(test_follow),       cmocka_unit_test(test_follow_unprivileged),
	};
	struct error e = ERROR_INIT;

	name = which;
	if (backend_open(which, where, &backend, NULL, &e) < 0) {
		fprintf(stderr, "%s: %s\n", must ? "failed" : "skipped", e.text);
		return must;
	}
	printf("%s: %s\n", which, backend.ops->summary);
	int r = cmocka_run_group_tests_name(which, tests, NULL, NULL);

	backend_close(&backend);
	return r;
}

/* "/where/mine.so": its directory and its name. */
static int try_path(const char *path)
{
	cleanup_free char *a = xstrdup(path), *b = xstrdup(path);
	char *base = basename(a);
	size_t n = strlen(base);

	if (n > 3 && strcmp(base + n - 3, ".so") == 0)
		base[n - 3] = 0;
	return try(base, dirname(b), true);
}

/* In a process of its own, which has nothing of the backend before. */
static int try_alone(const char *name)
{
	cleanup_free char *arg = xasprintf("?%s", name);
	int status;

	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		execl("/proc/self/exe", "unit-track-conformance", arg, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

int main(int argc, char **argv)
{
	static const char *const builtin[] = {"uffd-wp", "soft-dirty", "rescan"};
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	int failed = 0;

	if (n < 0)
		return 1;
	exe[n] = 0;
	cleanup_free char *dir = xasprintf("%s/backends", dirname(dirname(exe)));
	rounds = argc > 3 ? atoi(argv[3]) : rounds;
	pause_us = argc > 4 ? (unsigned)atoi(argv[4]) : pause_us;
	progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (argc > 1 && strchr(argv[1], '/'))
		failed = try_path(argv[1]);
	else if (argc > 1 && *argv[1] == '?') /* only if it works here */
		failed = try(argv[1] + 1, dir, false);
	else if (argc > 1)
		failed = try(argv[1], argc > 2 && *argv[2] ? argv[2] : dir, true);
	for (size_t i = 0; argc == 1 && i < ARRAY_SIZE(builtin); i++)
		failed += try_alone(builtin[i]);
	return failed ? 1 : 0;
}
