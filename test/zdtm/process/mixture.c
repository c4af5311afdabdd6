/* SPDX-License-Identifier: Apache-2.0 */
/* Some of everything in one tree, with memory that is written all the time but looks the same in /proc. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>

#include "zdtm.h"

#define PAGES (32 << 8) /* 32 MiB */

static uint64_t version[PAGES];
static char *mem;
static bool over;
static pthread_barrier_t up;

static void *writer(void *arg)
{
	uint64_t state = 12345;

	pthread_barrier_wait(&up);
	while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
		for (int n = 0; n < 40; n++) {
			size_t i = test_random(&state) % PAGES;
			uint64_t *page = (uint64_t *)(mem + i * 4096);

			CHECK(page[7] == version[i], "page %zu holds version %llu instead of %llu", i,
			      (unsigned long long)page[7], (unsigned long long)version[i]);
			page[7] = ++version[i];
		}
		test_sleep_ms(1);
	}
	return arg;
}

static void *sleeper(void *arg)
{
	char c;

	pthread_barrier_wait(&up);
	CHECK_EQ(read(*(int *)arg, &c, 1), 1);
	return arg;
}

static void make_files(int *pipes)
{
	struct itimerspec later = {{5, 0}, {5000, 0}};
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = 5};
	int pair[2], ep;

	MUST(pipe(pipes));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	CHECK_EQ(write(pair[0], "data", 4), 4);
	ep = MUST(epoll_create1(EPOLL_CLOEXEC));
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &ev));
	MUST(eventfd(3, EFD_NONBLOCK));
	MUST(timerfd_settime(MUST(timerfd_create(CLOCK_MONOTONIC, 0)), 0, &later, NULL));
	MUST(lseek(MUST(open(test_path("log"), O_RDWR)), 3, SEEK_SET));
}

static void make_signals(void)
{
	static char stack[64 << 10];
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 4};
	struct itimerspec later = {{7, 0}, {7000, 0}};
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
	timer_t timer;
	sigset_t set;

	MUST(sigaltstack(&alt, NULL));
	signal(SIGUSR1, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 4);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	MUST(sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 9}));
	MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
	MUST(timer_settime(timer, 0, &later, NULL));
}

int main(int argc, char **argv)
{
	pthread_t t[3];
	pid_t child[2];
	int pipes[2];
	char *shared;

	test_init(argc, argv);
	mem = test_map(PAGES * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	memset(mem, 0x5a, PAGES * 4096L);
	for (int i = 0; i < PAGES; i++)
		version[i] = 0x5a5a5a5a5a5a5a5aULL;
	shared = test_map(1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
	test_fill(shared, 1 << 20, 3);
	MUST(mlock(shared, 8192));
	make_files(pipes);
	make_signals();
	for (int i = 0; i < 2; i++) {
		child[i] = test_fork();
		if (!child[i]) {
			if (i)
				MUST(setsid());
			test_wait();
			test_check_fill(shared, 1 << 20, 3, "shared memory");
			_exit(40 + i);
		}
	}
	MUST0(pthread_barrier_init(&up, NULL, 4));
	MUST0(pthread_create(&t[0], NULL, writer, NULL));
	for (int i = 1; i < 3; i++)
		MUST0(pthread_create(&t[i], NULL, sleeper, &pipes[0]));
	pthread_barrier_wait(&up); /* new threads begin with all signals blocked: /proc must not show that */
	test_sleep_ms(20);
	test_ready();
	test_wait();
	__atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
	CHECK_EQ(write(pipes[1], "12", 2), 2);
	for (int i = 0; i < 3; i++)
		MUST0(pthread_join(t[i], NULL));
	for (int i = 0; i < 2; i++)
		test_reap(child[i], 40 + i);
	test_check_fill(shared, 1 << 20, 3, "shared memory");
	test_pass();
}
