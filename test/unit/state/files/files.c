/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips of descriptors: regular and deleted files, devices, tables, owners; and what is refused. */
#include "fixture.h"

#include <sys/fanotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

static char dir[64];

static char *in_dir(const char *name)
{
	static char path[4][128];
	static int i;

	i = (i + 1) % 4;
	snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

static int same_ofd(int a, int b)
{
	return syscall(SYS_kcmp, getpid(), getpid(), 0, a, b) == 0;
}

static void regular_setup(int k)
{
	(void)k;
	MUST(open("/dev/null", O_RDWR) == 0);
	MUST(open(in_dir("a"), O_RDWR | O_APPEND | O_CLOEXEC) == 1);
	MUST(lseek(1, 3, SEEK_SET) == 3);
	MUST(open(in_dir("a"), O_RDONLY) == 2);
	MUST(dup3(1, 7, 0) == 7);
	MUST(dup3(2, 200, O_CLOEXEC) == 200);
	MUST(open(dir, O_RDONLY | O_DIRECTORY) == 3);
	MUST(open(in_dir("a"), O_PATH | O_CLOEXEC) == 4);
	MUST(open(in_dir("odd (deleted)"), O_RDONLY | O_NONBLOCK) == 5);
	MUST(fcntl(5, F_SETOWN, getpid()) == 0 && fcntl(5, F_SETSIG, SIGUSR2) == 0);
	shared->values[0] = getpid();
}

static void regular_verify(int k)
{
	char text[8] = "";

	(void)k;
	MUST(fcntl(0, F_GETFL) == (O_RDWR | 0100000) && !(fcntl(0, F_GETFD) & FD_CLOEXEC));
	MUST(fcntl(1, F_GETFL) == (O_RDWR | O_APPEND | 0100000) && fcntl(1, F_GETFD) & FD_CLOEXEC);
	MUST(lseek(1, 0, SEEK_CUR) == 3);
	MUST(read(1, text, 2) == 2 && !memcmp(text, "de", 2));
	MUST(!same_ofd(1, 2) && same_ofd(1, 7) && same_ofd(2, 200));
	MUST(lseek(7, 0, SEEK_CUR) == 5 && lseek(2, 0, SEEK_CUR) == 0);
	MUST(!(fcntl(7, F_GETFD) & FD_CLOEXEC) && fcntl(200, F_GETFD) & FD_CLOEXEC);
	MUST(fcntl(3, F_GETFL) & O_DIRECTORY);
	MUST(fcntl(4, F_GETFL) & O_PATH);
	MUST(read(5, text, 3) == 3 && !memcmp(text, "odd", 3));
	MUST(fcntl(5, F_GETFL) & O_NONBLOCK && fcntl(5, F_GETSIG) == SIGUSR2 &&
	     fcntl(5, F_GETOWN) == getppid());
	for (int i = 8; i < 200; i++)
		MUST(fcntl(i, F_GETFD) < 0);
	for (int i = 201; i < 300; i++)
		MUST(fcntl(i, F_GETFD) < 0);
	struct rlimit l;

	MUST(getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur >= 256);
}

static void test_regular(void **state)
{
	(void)state;
	round_trip(&(struct scenario){regular_setup, regular_verify, 1, {0}});
}

/* Three processes with descriptors of their own and common ones. */
static void shared_setup(int k)
{
	if (k == 0) {
		MUST(open(in_dir("a"), O_RDONLY) == 0);
		MUST(open(in_dir("a"), O_RDONLY) == 1);
	} else {
		MUST(dup3(0, 10 + k, 0) >= 0);
		MUST(open(in_dir("a"), O_RDONLY) == 2);
		MUST(lseek(2, k, SEEK_SET) == k);
		if (k == 2)
			close(1);
	}
}

static void shared_verify(int k)
{
	char c;

	if (k == 0) { /* the others see the offset move */
		MUST(lseek(0, 4, SEEK_SET) == 4);
		shared->values[1] = 1;
		return;
	}
	while (!shared->values[1])
		usleep(100);
	MUST(lseek(0, 0, SEEK_CUR) == 4 && lseek(10 + k, 0, SEEK_CUR) == 4);
	MUST(read(2, &c, 1) == 1 && c == 'a' + k);
	MUST((fcntl(1, F_GETFD) < 0) == (k == 2));
}

static void test_shared(void **state)
{
	(void)state;
	round_trip(&(struct scenario){shared_setup, shared_verify, 3, {0}});
}

static void ghost_setup(int k)
{
	(void)k;
	MUST(open(in_dir("ghost"), O_RDWR | O_CREAT, 0640) == 0);
	MUST(pwrite(0, "begin", 5, 0) == 5 && pwrite(0, "end", 3, 3 << 20) == 3);
	MUST(open(in_dir("ghost"), O_RDONLY) == 1);
	MUST(lseek(1, 2, SEEK_SET) == 2);
	MUST(unlink(in_dir("ghost")) == 0);
	MUST(open(in_dir("ghost"), O_RDWR | O_CREAT, 0600) == 2); /* another file has the name now */
	MUST(write(2, "new", 3) == 3);
	MUST(open(in_dir("empty"), O_RDWR | O_CREAT, 0600) == 3 && unlink(in_dir("empty")) == 0);
	MUST(open(dir, O_TMPFILE | O_RDWR, 0600) == 4 && write(4, "tmp", 3) == 3);
}

static void ghost_verify(int k)
{
	char text[8] = "";
	struct stat a, b;

	(void)k;
	MUST(fstat(0, &a) == 0 && fstat(1, &b) == 0 && a.st_ino == b.st_ino && a.st_nlink == 0);
	MUST(a.st_size == (3 << 20) + 3 && (a.st_mode & 0777) == 0640 && a.st_blocks * 512 < 1 << 20);
	MUST(pread(0, text, 5, 0) == 5 && !memcmp(text, "begin", 5));
	MUST(pread(0, text, 3, 3 << 20) == 3 && !memcmp(text, "end", 3));
	MUST(read(1, text, 3) == 3 && !memcmp(text, "gin", 3));
	MUST(write(1, "x", 1) < 0);
	MUST(pread(2, text, 8, 0) == 3 && !memcmp(text, "new", 3));
	MUST(fstat(3, &a) == 0 && a.st_size == 0 && a.st_nlink == 0);
	MUST(lseek(4, 0, SEEK_CUR) == 3 && pread(4, text, 8, 0) == 3 && !memcmp(text, "tmp", 3));
}

static void test_ghost(void **state)
{
	(void)state;
	round_trip(&(struct scenario){ghost_setup, ghost_verify, 1, {0}});
	assert_int_equal(unlink(in_dir("ghost")), 0);
	assert_true(access(in_dir("empty"), F_OK) < 0);
	refused(&(struct scenario){ghost_setup, ghost_verify, 1, {.ghost_limit = 100}}, 0, "--ghost-limit");
	unlink(in_dir("ghost"));
}

static void lost_name_setup(int k)
{
	(void)k;
	mkdir(in_dir("sub"), 0700);
	link(in_dir("a"), in_dir("sub/second"));
	MUST(open(in_dir("sub/second"), O_RDONLY) == 0);
	MUST(unlink(in_dir("sub/second")) == 0 && rmdir(in_dir("sub")) == 0);
}

static void fanotify_setup(int k)
{
	(void)k;
	MUST(fanotify_init(FAN_CLASS_CONTENT, O_RDONLY) == 0);
}

static int outside_master = -1;

/* Its master stays with the test. */
static char outside[64]; /* its master stays with the test */

static void terminal_setup(int k)
{
	(void)k;
	MUST(open(outside, O_RDWR | O_NOCTTY) == 0);
}

static void netlink_setup(int k)
{
	(void)k;
	MUST(socket(AF_NETLINK, SOCK_RAW, 12) == 0); /* netfilter */
}

static void pidfd_setup(int k)
{
	(void)k;
	MUST(sys_pidfd_open(getppid(), 0) == 0);
}

static void test_refused(void **state)
{
	(void)state;
	refused(&(struct scenario){lost_name_setup, NULL, 1, {0}}, 0, "has lost this name");
	refused(&(struct scenario){fanotify_setup, NULL, 1, {0}}, 0, "fanotify");
	outside_master = fcntl(posix_openpt(O_RDWR | O_NOCTTY), F_DUPFD, 100);
	assert_true(outside_master >= 100 && unlockpt(outside_master) == 0);
	int master = posix_openpt(O_RDWR | O_NOCTTY);

	assert_true(master >= 0 && unlockpt(master) == 0);
	snprintf(outside, sizeof(outside), "%s", ptsname(master));
	refused(&(struct scenario){terminal_setup, NULL, 1, {0}}, 0, "the other side of its terminal");
	close(master);
	refused(&(struct scenario){netlink_setup, NULL, 1, {0}}, 0, "netlink socket");
	refused(&(struct scenario){pidfd_setup, NULL, 1, {0}}, 0, "pidfd");
}

static void reader_setup(int k)
{
	(void)k;
	MUST(open(in_dir("a"), O_RDONLY) == 0);
}

/* What the destination says when a file is not what it was. */
static void test_check(void **state)
{
	(void)state;
	struct fixture x;

	start(&x, &(struct scenario){reader_setup, NULL, 1, {0}});
	assert_int_equal(capture(&x), 0);
	stop(&x);
	ProtobufCMessage *m = snapshot_find(&x.snapshot, FERRY__RECORD_TYPE__RECORD_FILES, 0, 0);

	assert_int_equal(kind_files.check(&x.r, 0, 0, m, &x.e), 0);
	files_rebuild_free(&x.r, false);
	struct timespec other[2] = {{1, 0}, {1, 0}}, was[2];
	struct stat st;

	stat(in_dir("a"), &st);
	was[0] = st.st_atim;
	was[1] = st.st_mtim;
	utimensat(AT_FDCWD, in_dir("a"), other, 0);
	assert_true(kind_files.check(&x.r, 0, 0, m, &x.e) < 0);
	assert_non_null(strstr(x.e.text, "modified"));
	error_clear(&x.e);
	utimensat(AT_FDCWD, in_dir("a"), was, 0);
	rename(in_dir("a"), in_dir("b"));
	assert_true(kind_files.check(&x.r, 0, 0, m, &x.e) < 0);
	assert_non_null(strstr(x.e.text, "missing"));
	rename(in_dir("b"), in_dir("a"));
	files_rebuild_free(&x.r, false);
	finish(&x);
}

static void many_setup(int k)
{
	struct rlimit l = {20000, 20000};

	(void)k;
	MUST(setrlimit(RLIMIT_NOFILE, &l) == 0);
	for (int i = 0; i < 6000; i++)
		MUST((i % 3 == 1 ? (int)syscall(SYS_eventfd2, i, 0)
				 : open(i % 3 ? in_dir("a") : "/dev/null", O_RDONLY)) == i);
}

static void many_verify(int k)
{
	uint64_t value;

	(void)k;
	for (int i = 0; i < 6000; i++) {
		MUST(fcntl(i, F_GETFD) == 0);
		if (i % 3 == 1)
			MUST(read(i, &value, 8) == 8 && (int)value == i);
	}
}

/* Of this thread: the machine may be busy with other things. */
static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Thousands of descriptors of few inodes: neither capture nor rebuild may be quadratic. */
static void test_many(void **state)
{
	(void)state;
	struct fixture x;
	struct scenario s = {many_setup, many_verify, 1, {0}};
	uint64_t t[4];

	start(&x, &s);
	t[0] = cpu_ns();
	assert_int_equal(preflight(&x), 0);
	t[1] = cpu_ns();
	assert_int_equal(capture(&x), 0);
	t[2] = cpu_ns();
	stop(&x);
	uint64_t stopped = cpu_ns();

	rebuild(&x, &s);
	t[3] = cpu_ns();
	print_message("6000 descriptors: warm %.1f ms, capture %.1f ms, rebuild %.1f ms of processor time\n",
		      (t[1] - t[0]) / 1e6, (t[2] - t[1]) / 1e6, (t[3] - stopped) / 1e6);
	assert_true(t[2] - t[1] < 3000000000u);
	finish(&x);
}

static int make_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/ferry-unit-files-%d", getpid());
	mkdir(dir, 0700);
	cleanup_close int a = open(in_dir("a"), O_WRONLY | O_CREAT, 0600);
	cleanup_close int odd = open(in_dir("odd (deleted)"), O_WRONLY | O_CREAT, 0600);

	return write(a, "abcdefgh", 8) != 8 || write(odd, "odd", 3) != 3 || make_shared(state);
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(in_dir("a"));
	unlink(in_dir("odd (deleted)"));
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_regular), cmocka_unit_test(test_shared), cmocka_unit_test(test_ghost),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_check),  cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
