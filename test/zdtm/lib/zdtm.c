/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "zdtm.h"

static char test_dir[PATH_MAX];

void test_set_dir(const char *dir)
{
	snprintf(test_dir, sizeof(test_dir), "%s", dir);
}

const char *test_path(const char *name)
{
	static __thread char ring[16][PATH_MAX + 64];
	static __thread unsigned next;
	char *s = ring[next++ % 16];

	snprintf(s, sizeof(ring[0]), "%s/%s", test_dir, name);
	return s;
}

size_t test_read_file(const char *path, char *buf, size_t size)
{
	int fd = MUST(open(path, O_RDONLY | O_CLOEXEC));
	size_t len = 0;
	ssize_t n;

	while (len < size - 1 && (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += n;
	buf[len] = 0;
	close(fd);
	return len;
}

void test_write_file(const char *path, const char *text)
{
	int fd = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));

	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		test_fail("write %s", path);
	close(fd);
}

/* A link instead of a rename: as atomic, and a second result cannot hide the first. */
static void put_result(const char *text)
{
	const char *result = test_path("result");
	char tmp[PATH_MAX + 128];
	int fd;

	snprintf(tmp, sizeof(tmp), "%s.%d", result, (int)gettid());
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) == (ssize_t)strlen(text) && link(tmp, result))
		dprintf(2, "another result came first; this one: %s", text);
	close(fd);
	unlink(tmp);
}

void test_pass(void)
{
	put_result("pass\n");
	_exit(0);
}

void test_fail_at(const char *where, const char *fmt, ...)
{
	int err = errno;
	char reason[1024], text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text), "fail: %s: process %d: %s%s%s\n", where, (int)getpid(), reason,
		 err ? ": " : "", err ? strerror(err) : "");
	dprintf(2, "%s", text);
	put_result(text);
	_exit(1);
}

void test_skip(const char *fmt, ...)
{
	char reason[1024], text[1100];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text), "skip: %s\n", reason);
	put_result(text);
	_exit(0);
}

static void open_as(int want, const char *path, int flags)
{
	int fd = MUST(open(path, flags, 0644));

	if (fd != want) {
		MUST(dup2(fd, want));
		close(fd);
	}
}

void test_init(int argc, char **argv)
{
	const char *pidfile = NULL;
	char number[32];
	sigset_t none;
	pid_t pid;

	for (int i = 1; i + 1 < argc; i++) {
		if (!strcmp(argv[i], "--dir"))
			test_set_dir(argv[i + 1]);
		else if (!strcmp(argv[i], "--pidfile"))
			pidfile = argv[i + 1];
	}
	if (test_dir[0] != '/' || (pidfile && pidfile[0] != '/')) {
		fprintf(stderr, "usage: %s --dir /DIR [--pidfile /FILE]\n", argv[0]);
		exit(2);
	}
	if (!pidfile)
		pidfile = test_path("pid");
	pid_t starter = getpid();

	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid)
		_exit(0);
	while (getppid() == starter) /* its death must not be taken for one that comes later */
		usleep(1000);
	umask(022);
	open_as(0, "/dev/null", O_RDONLY);
	open_as(1, test_path("log"), O_WRONLY | O_CREAT | O_APPEND);
	MUST(dup2(1, 2));
	MUST(close_range(3, ~0U, 0));
	MUST(setsid());
	MUST(chdir("/"));
	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && (sig < 32 || sig >= SIGRTMIN))
			signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	snprintf(number, sizeof(number), "%d\n", (int)getpid());
	test_write_file(pidfile, number);
}

void test_ready(void)
{
	test_write_file(test_path("ready.tmp"), "");
	MUST(rename(test_path("ready.tmp"), test_path("ready")));
}

bool test_waiting(void)
{
	return access(test_path("go"), F_OK) != 0;
}

void test_sleep_ms(unsigned ms)
{
	struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

bool test_wait_ms(unsigned ms)
{
	if (!test_waiting())
		return false;
	test_sleep_ms(ms);
	return test_waiting();
}

void test_wait(void)
{
	while (test_wait_ms(5))
		;
	errno = 0;
}

pid_t test_fork(void)
{
	fflush(NULL);
	return MUST(fork());
}

void test_reap(pid_t pid, int code)
{
	int status;
	pid_t got;

	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	CHECK(got == pid, "waitpid(%d)", (int)pid);
	errno = 0;
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code,
	      "child %d ended with status 0x%x instead of exit(%d)", (int)pid, status, code);
}

void test_wait_state(pid_t tid, const char *states)
{
	char path[64], buf[512], *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
	for (int i = 0; i < 2000; i++) {
		test_read_file(path, buf, sizeof(buf));
		p = strrchr(buf, ')');
		if (p && p[1] == ' ' && strchr(states, p[2]))
			return;
		test_sleep_ms(5);
	}
	errno = 0;
	test_fail("task %d never reached state %s", (int)tid, states);
}

void *test_map(size_t size, int prot, int flags)
{
	return MUST(mmap(NULL, size, prot, flags, -1, 0));
}

volatile int *test_shared_flags(size_t n)
{
	return test_map(n * sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
}

/* xorshift64* */
uint64_t test_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545F4914F6CDD1DULL;
}

static uint64_t word_at(size_t i, uint64_t seed)
{
	uint64_t x = (i + 1) * 0x9E3779B97F4A7C15ULL ^ seed * 0xD1B54A32D192ED03ULL;

	return x ^ x >> 29;
}

void test_fill(void *p, size_t size, uint64_t seed)
{
	uint64_t *w = p;

	for (size_t i = 0; i < size / 8; i++)
		w[i] = word_at(i, seed);
}

void test_check_fill(const void *p, size_t size, uint64_t seed, const char *what)
{
	const uint64_t *w = p;

	errno = 0;
	for (size_t i = 0; i < size / 8; i++)
		if (w[i] != word_at(i, seed))
			test_fail("%s: word at %p (offset 0x%zx) is %016llx, not %016llx", what,
				  (void *)&w[i], i * 8, (unsigned long long)w[i],
				  (unsigned long long)word_at(i, seed));
}
