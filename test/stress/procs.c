/* SPDX-License-Identifier: Apache-2.0 */
/* Processes, programs and stacks. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ways.h"

static void setup_area(void)
{
	memset(area(0, MAP_PRIVATE, -1, AREA_SIZE), 1, AREA_SIZE);
}

static void store_some(void)
{
	for (int i = 0; i < 8; i++)
		*(volatile uint32_t *)next_page(area_at(0), AREA_SIZE) += 1;
}

static void step_fork(unsigned w)
{
	(void)w;
	pid_t pid = (pid_t)MUST(syscall(SYS_fork));

	store_some();
	if (pid == 0)
		_exit(0);
	store_some();
	MUST(waitpid(pid, NULL, 0));
	pause_us(1000);
}

/* Up to four children that live for some time, write, fork once, and end. */
static void live(void)
{
	int left = 20 + (int)(rnd() % 200);
	pid_t own = 0;

	while (left-- > 0) {
		store_some();
		if (left == 10 && !own)
			own = (pid_t)MUST(fork());
		pause_us(500);
	}
	if (own)
		waitpid(own, NULL, 0);
	_exit(0);
}

static void step_family(unsigned w)
{
	static pid_t child[4];
	pid_t *c = &child[rnd() % 4];

	(void)w;
	store_some();
	if (*c && waitpid(*c, NULL, WNOHANG) == *c)
		*c = 0;
	if (!*c && (*c = (pid_t)MUST(fork())) == 0)
		live();
	pause_us(1000);
}

static void step_spawn(unsigned w)
{
	char *const argv[] = {(char *)"true", NULL};
	pid_t pid;

	(void)w;
	/* The child of vfork is in our memory. */
	volatile uint32_t *a = (volatile uint32_t *)next_page(area_at(0), AREA_SIZE);

	pid = vfork();
	if (pid == 0) {
		*a += 1;
		_exit(0);
	}
	MUST(waitpid((pid_t)MUST(pid), NULL, 0));
	store_some();
	if (rnd() % 4 == 0 && posix_spawn(&pid, "/bin/true", NULL, NULL, argv, NULL) == 0)
		MUST(waitpid(pid, NULL, 0));
	pause_us(1000);
}

static uint64_t start; /* steps before the exec */

static void setup_exec(void)
{
	const char *s = getenv("STRESS_STEPS");

	start = s ? strtoull(s, NULL, 10) : 0;
	CONTROL->steps[0] = start;
	setup_area();
}

static void step_exec(unsigned w)
{
	char steps[32];

	store_some();
	pause_us(300);
	if (CONTROL->steps[w] - start < 30)
		return;
	snprintf(steps, sizeof(steps), "%lu", (unsigned long)CONTROL->steps[w] + 1);
	setenv("STRESS_STEPS", steps, 1);
	execl(program_path(), "stress-target", "exec", (char *)NULL);
	MUST(-1);
}

static int second(void *arg)
{
	(void)arg;
	for (;;) {
		*(volatile uint32_t *)(area_at(0) + rnd() % AREA_PAGES * PAGE + 8) += 1;
		pause_us(500);
	}
	return 0;
}

static void setup_clone(void)
{
	char *stack = area(1, MAP_PRIVATE, -1, 64 * PAGE);

	setup_area();
	MUST(clone(second, stack + 64 * PAGE, CLONE_VM | SIGCHLD, NULL));
}

static void step_clone(unsigned w)
{
	(void)w;
	store_some();
	pause_us(500);
}

static void step_brk(unsigned w)
{
	static size_t have;
	long by = (long)(rnd() % 32 * PAGE);

	(void)w;
	if (have < 1 << 20 || rnd() % 2) {
		char *p = (char *)MUST(sbrk(by));

		memset(p, (int)rnd(), (size_t)by);
		have += (size_t)by;
	} else if ((size_t)by <= have) {
		MUST(sbrk(-by));
		have -= (size_t)by;
	}
	pause_us(100);
}

__attribute__((noinline)) static uint32_t deep(unsigned depth)
{
	volatile char frame[3000];

	frame[rnd() % sizeof(frame)] = (char)depth;
	return depth ? deep(depth - 1) + (unsigned char)frame[0] : 0;
}

#define GROWS (256 * PAGE)
static char *grows_top; /* of a MAP_GROWSDOWN mapping, one page at first */

static void new_growing(void)
{
	munmap(area_at(0), GROWS);
	grows_top = area_at(0) + GROWS;
	MUST(mmap(grows_top - PAGE, PAGE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0));
}

static void step_stack(unsigned w)
{
	static size_t have;

	(void)w;
	deep(rnd() % 400);
	if (have == 0 || have >= GROWS / PAGE - 8) {
		new_growing();
		have = 1;
	}
	have++;
	for (size_t i = 1; i <= have; i++) /* one page after the other, down */
		if (i == have || rnd() % 8 == 0)
			*(volatile uint32_t *)(grows_top - i * PAGE) += 1;
	pause_us(200);
}

const struct way ways_procs[] = {
	{"fork", 1, setup_area, step_fork, NULL},       {"family", 1, setup_area, step_family, NULL},
	{"spawn", 1, setup_area, step_spawn, NULL},     {"exec", 1, setup_exec, step_exec, NULL},
	{"clone-vm", 1, setup_clone, step_clone, NULL}, {"brk", 1, NULL, step_brk, NULL},
	{"stack", 1, NULL, step_stack, NULL},           {0},
};
