/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "procfs/procfs.h"

static void test_lines(void **state)
{
	(void)state;
	static const char text[] =
		"00400000-00452000 r-xp 00001000 08:02 173521      /usr/bin/a b\\012c (deleted) (deleted)\n"
		"00e03000-00e24000 rw-p 00000000 00:00 0           [heap]\n"
		"7f0000000000-7f0000001000 ---s 00000000 fe:1a 7 /dev/zero\r \\ (deleted)\n"
		"7f0000002000-7f0000003000 rwxp 00000000 00:00 0 \n"
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0   [vsyscall]";
	struct proc_maps m;
	struct error e = ERROR_INIT;

	assert_int_equal(proc_maps_parse(text, &m, &e), 0);
	assert_int_equal(m.n, 5);
	assert_string_equal(m.v[0].path, "/usr/bin/a b\nc (deleted) (deleted)");
	assert_int_equal(m.v[0].offset, 0x1000);
	assert_int_equal(m.v[0].dev_major, 8);
	assert_int_equal(m.v[0].ino, 173521);
	assert_int_equal(m.v[0].prot, PROT_READ | PROT_EXEC);
	assert_false(m.v[0].shared);
	assert_string_equal(m.v[1].path, "[heap]");
	assert_true(m.v[2].shared);
	assert_int_equal(m.v[2].prot, 0);
	assert_int_equal(m.v[2].dev_minor, 0x1a);
	assert_string_equal(m.v[2].path, "/dev/zero\r \\ (deleted)");
	assert_string_equal(m.v[3].path, "");
	assert_false(m.v[3].has_flags);
	assert_int_equal(m.v[4].start, 0xffffffffff600000);
	proc_maps_deinit(&m);
	assert_int_equal(proc_maps_parse("", &m, &e), 0);
	assert_int_equal(m.n, 0);
	proc_maps_deinit(&m);
}

static void test_smaps_flags(void **state)
{
	(void)state;
	static const char text[] = "1000-2000 r--p 00000000 00:00 0 \nSize: 4 kB\nAnonHugePages:   4096 "
				   "kB\nVmFlags: rd wr zz uw ht \n"
				   "2000-3000 r--p 00000000 00:00 0 \nProtectionKey:         3\nVmFlags:\n"
				   "3000-4000 r--p 00000000 00:00 0 \nVmFlags: u\n"
				   "4000-5000 rw-p 00000000 00:00 0 \nVmFlags: rd wr lo ?? \n"
				   "5000-6000 rw-p 00000000 00:00 0 \nVmFlags: rd wr ?? \n";
	struct proc_maps m;
	struct error e = ERROR_INIT;

	assert_int_equal(proc_maps_parse(text, &m, &e), 0);
	assert_int_equal(m.n, 5);
	assert_int_equal(m.v[3].vmflags, PROC_VM_LOCKED | PROC_VM_LOCKFAULT);
	assert_int_equal(m.v[4].vmflags, 0);
	assert_true(m.v[0].has_flags);
	assert_int_equal(m.v[0].vmflags, PROC_VM_UFFD_WP | PROC_VM_HUGETLB);
	assert_true(m.v[1].has_flags);
	assert_int_equal(m.v[1].vmflags, 0);
	assert_int_equal(m.v[2].vmflags, 0);
	assert_int_equal(m.v[0].anon_huge_kb, 4096);
	assert_int_equal(m.v[0].pkey, 0);
	assert_int_equal(m.v[1].pkey, 3);
	assert_int_equal(m.v[1].anon_huge_kb, 0);
	proc_maps_deinit(&m);
}

static void test_overlaps_of_a_changing_map(void **state)
{
	(void)state;
	static const char text[] =
		"1000-3000 r--p 00001000 00:01 5 /a\n2000-3000 r--p 00002000 00:01 5 /a\nVmFlags: uw\n"
		"1000-5000 r--p 00001000 00:01 5 /a\nVmFlags: mg\n";
	struct proc_maps m;
	struct error e = ERROR_INIT;

	assert_int_equal(proc_maps_parse(text, &m, &e), 0);
	assert_int_equal(m.n, 2);
	assert_false(m.v[0].has_flags);
	assert_int_equal(m.v[1].start, 0x3000);
	assert_int_equal(m.v[1].end, 0x5000);
	assert_int_equal(m.v[1].offset, 0x3000);
	assert_int_equal(m.v[1].vmflags, PROC_VM_MERGEABLE);
	proc_maps_deinit(&m);
}

static void test_malformed(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"1000",
		"1000-",
		"1000-2000",
		"1000-2000 rwx",
		"1000-2000 rwxq 0 0:0 0",
		"2000-1000 r--p 0 0:0 0 ",
		"1001-2000 r--p 0 0:0 0 ",
		"1000-2000 r--p 0 0:0",
		"11111111111111111-2 r--p 0 0:0 0",
		"\n",
		"1000-2000 r--p 0 100000000:0 0 ",
		"-1000-2000 r--p 0 0:0 0 ",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct proc_maps m;
		struct error e = ERROR_INIT;

		assert_int_equal(proc_maps_parse(bad[i], &m, &e), -EINVAL);
		assert_non_null(strstr(e.text, "malformed"));
	}
}

static const struct proc_vma *find(const struct proc_maps *m, const void *p)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->v[i].start == (uintptr_t)p)
			return &m->v[i];
	return NULL;
}

static void test_own_maps(void **state)
{
	(void)state;
	char name[] = "/tmp/ferry \n unit XXXXXX";
	int fd = mkstemp(name);
	struct stat st;

	assert_true(fd >= 0 && ftruncate(fd, 8192) == 0 && fstat(fd, &st) == 0);
	char *file = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 4096);
	char *anon = mmap(NULL, 1 << 22, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	madvise(anon + 4096, 8192, MADV_DONTDUMP); /* a VMA of its own */
	struct proc_maps m;
	struct error e = ERROR_INIT;

	assert_int_equal(proc_maps_read(getpid(), true, &m, &e), 0);
	const struct proc_vma *v = find(&m, file);

	assert_non_null(v);
	assert_string_equal(v->path, name);
	assert_int_equal(v->ino, st.st_ino);
	assert_int_equal(makedev(v->dev_major, v->dev_minor), st.st_dev);
	assert_int_equal(v->offset, 4096);
	assert_true(v->shared && v->has_flags);
	v = find(&m, anon + 4096);
	assert_non_null(v);
	assert_int_equal(v->end - v->start, 8192);
	assert_true(v->vmflags & PROC_VM_DONTDUMP && v->vmflags & PROC_VM_NORESERVE);
	proc_maps_deinit(&m);
	unlink(name);
	assert_int_equal(proc_maps_read(getpid(), false, &m, &e), 0);
	v = find(&m, file);
	assert_memory_equal(v->path, name, strlen(name));
	assert_string_equal(v->path + strlen(name), " (deleted)");
	proc_maps_deinit(&m);
	munmap(file, 8192);
	munmap(anon, 1 << 22);
	close(fd);
}

static void *stay(void *arg)
{
	char c;

	while (read(*(int *)arg, &c, 1) < 0)
		;
	_exit(0);
}

static void test_dead_leader_and_gone(void **state)
{
	(void)state;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();

	if (pid == 0) {
		pthread_t t;

		close(fds[1]);
		pthread_create(&t, NULL, stay, &fds[0]);
		syscall(SYS_exit, 0);
	}
	close(fds[0]);
	struct proc_maps m;
	struct proc_stat s;
	struct error e = ERROR_INIT;

	do {
		usleep(1000);
		assert_int_equal(proc_stat_read(pid, pid, &s, &e), 0);
	} while (s.state != 'Z');
	pid_t *tids;
	size_t n;

	assert_int_equal(proc_threads(pid, &tids, &n, &e), 0);
	assert_int_equal(n, 2);
	assert_int_equal(tids[0], pid);
	free(tids);
	assert_int_equal(proc_maps_read(pid, false, &m, &e), 0);
	assert_true(m.n > 5);
	proc_maps_deinit(&m);
	close(fds[1]);
	siginfo_t info;

	assert_int_equal(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(proc_maps_read(pid, false, &m, &e), -ESRCH);
	waitpid(pid, NULL, 0);
	error_clear(&e);
	assert_int_equal(proc_maps_read(pid, false, &m, &e), -ENOENT);
	assert_non_null(strstr(e.text, "gone"));
}

/* Between open and read the process gets another memory: that is not its end. */
static void test_exec_meanwhile(void **state)
{
	(void)state;
	struct proc_maps m;
	struct error e = ERROR_INIT;
	pid_t pid = fork();
	int r = 0, i;

	if (pid == 0) {
		execl("/proc/self/exe", "exec-for-ever", NULL);
		_exit(70);
	}
	for (i = 0; i < 5000 && r >= 0; i++) {
		r = proc_maps_read(pid, false, &m, &e);
		if (r >= 0)
			proc_maps_deinit(&m);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (r < 0)
		fail_msg("after %d times: %s", i, e.text);
}

int main(int argc, char **argv)
{
	if (argc && !strcmp(argv[0], "exec-for-ever"))
		execl("/proc/self/exe", argv[0], NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_smaps_flags),
		cmocka_unit_test(test_overlaps_of_a_changing_map),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_own_maps),
		cmocka_unit_test(test_dead_leader_and_gone),
		cmocka_unit_test(test_exec_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
