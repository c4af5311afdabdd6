/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first thread has ended, the process lives on in the others: with what they have in memory, open,
 * pending and locked, as another user, beside a child that is the same way.  They still see it as a zombie,
 * by its name.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "zdtm.h"

#define SIZE (1 << 20)

static pid_t pid;
static pthread_t first;
static char *memory;
static int counter, file, is_child;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static volatile long ticks;

static void *tick(void *arg)
{
	(void)arg;
	for (;;) {
		ticks++;
		pthread_mutex_lock(&mutex);
		pthread_mutex_unlock(&mutex);
		test_sleep_ms(1);
	}
	return NULL;
}

static void check_leader(void)
{
	char path[64], text[512] = "", *p;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", pid);
	fd = MUST(open(path, O_RDONLY));
	MUST(read(fd, text, sizeof(text) - 1));
	close(fd);
	p = strrchr(text, ')');
	CHECK(p && p[2] == 'Z' && strstr(text, is_child ? "(first of child)" : "(first of root)"),
	      "the first thread is: %s", text);
}

/* By the number of the process, which its first thread had. */
static void check_signals(void)
{
	sigset_t set;
	siginfo_t si;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR2);
	CHECK_EQ(si.si_value.sival_int, 17);
	MUST(sigqueue(pid, SIGUSR2, (union sigval){.sival_int = 18}));
	CHECK_EQ(sigwaitinfo(&set, &si), SIGUSR2);
	CHECK_EQ(si.si_value.sival_int, 18);
}

static void check(void)
{
	uint64_t v;
	char c[4];
	long before;

	CHECK_EQ(getpid(), pid);
	check_leader();
	for (int i = 0; i < SIZE; i++)
		CHECK(memory[i] == (char)(i * 7 + is_child), "byte %d of the memory is wrong", i);
	CHECK_EQ(read(counter, &v, 8), 8);
	CHECK_EQ(v, 5 + is_child);
	CHECK_EQ(read(file, c, 3), 3);
	CHECK(!memcmp(c, "def", 3), "the file is at another place");
	check_signals();
	before = ticks;
	while (ticks < before + 3)
		test_sleep_ms(1);
}

static void *others(void *arg)
{
	pid_t child = arg ? *(pid_t *)arg : 0;
	void *result;

	/* The kernel told those who wait when it ended. */
	MUST0(pthread_join(first, &result));
	test_wait_state(pid, "Z");
	if (is_child) {
		MUST(write(*(int *)memory, "r", 1));
		memory[0] = 0;
	}
	memory[0] = is_child;
	memory[1] = (char)(7 + is_child);
	memory[2] = (char)(14 + is_child);
	memory[3] = (char)(21 + is_child);
	if (!is_child)
		test_ready();
	test_wait();
	check();
	if (is_child)
		_exit(23);
	test_reap(child, 23);
	test_pass();
}

/* Not freed by anybody: it is the first thread's argument to another one. */
static pid_t child;

static void start(int reports)
{
	sigset_t set;
	pthread_t t;

	pid = getpid();
	first = pthread_self();
	memory = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (int i = 0; i < SIZE; i++)
		memory[i] = (char)(i * 7 + is_child);
	*(int *)memory = reports;
	counter = MUST(eventfd(5 + is_child, 0));
	file = MUST(open(test_path("file"), O_RDONLY));
	MUST(lseek(file, 3, SEEK_SET));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	MUST0(pthread_sigmask(SIG_BLOCK, &set, NULL));
	MUST(sigqueue(pid, SIGUSR2, (union sigval){.sival_int = 17}));
	MUST0(pthread_setname_np(first, is_child ? "first of child" : "first of root"));
	MUST0(pthread_create(&t, NULL, tick, NULL));
	MUST0(pthread_setname_np(t, "ticks"));
	MUST0(pthread_create(&t, NULL, others, &child));
	MUST0(pthread_setname_np(t, "waits"));
}

int main(int argc, char **argv)
{
	int p[2];
	char c;

	test_init(argc, argv);
	test_write_file(test_path("file"), "abcdefgh");
	MUST(pipe(p));
	child = test_fork();
	if (!child) {
		is_child = 1;
		start(p[1]);
		pthread_exit(NULL);
	}
	CHECK_EQ(read(p[0], &c, 1), 1);
	start(-1);
	pthread_exit(NULL);
}
