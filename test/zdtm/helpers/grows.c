/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grows HOW: memory that grows by 1 MiB every 20 ms, up to 512 MiB, for ever after asleep. HOW: mremap (one
 * mapping, in place), brk, maps (mappings side by side), stack.  Prints "ready" when it begins.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define STEP (1ul << 20)
#define MOST (512ul << 20)
#define AT   ((char *)0x600000000000ul)

static void pause_a_little(void)
{
	usleep(20000);
}

static int grow_stack(size_t left)
{
	volatile char frame[STEP];

	memset((void *)frame, (int)left, sizeof(frame));
	pause_a_little();
	if (left > STEP)
		return grow_stack(left - STEP) + frame[0];
	pause();
	return 0;
}

static char *more(const char *how, char *p, size_t n)
{
	if (!strcmp(how, "brk"))
		return sbrk(STEP);
	if (!strcmp(how, "mremap"))
		return mremap(p, n, n + STEP, 0) == p ? p + n : MAP_FAILED;
	return mmap(p + n, STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		    -1, 0);
}

int main(int argc, char **argv)
{
	struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	char *p = mmap(AT, STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		       -1, 0);

	if (argc != 2 || p == MAP_FAILED)
		return 2;
	if (!strcmp(argv[1], "stack") && argc == 2) {
		setrlimit(RLIMIT_STACK, &unlimited);
		puts("ready");
		fflush(stdout);
		return grow_stack(MOST / 8);
	}
	puts("ready");
	fflush(stdout);
	for (size_t n = STEP; n < MOST; n += STEP) {
		char *q = more(argv[1], p, n);

		if (q == MAP_FAILED) {
			perror("grows");
			return 1;
		}
		memset(q, (int)(n / STEP), STEP);
		pause_a_little();
	}
	for (;;)
		pause();
}
