/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children that live for half a second: each writes a megabyte of its own, looks at it again and again, and
 * at what it has from its parent.  At any moment some have been forked a moment ago.
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "zdtm.h"

#define CHILDREN 8
#define OWN      256UL  /* pages that a child writes */
#define OLD      1024UL /* pages of the parent */
#define LOOKS    25
#define PAUSE_MS 20

static uint64_t *old;

static void check_old(void)
{
	for (size_t i = 0; i < OLD; i += 7)
		CHECK_EQ(old[i * 512 + 3], i * 31 + 1);
}

static void live(uint64_t number)
{
	uint64_t *own = test_map(OWN * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);

	for (size_t i = 0; i < OWN; i++)
		own[i * 512 + 5] = number << 32 | i;
	for (int look = 0; look < LOOKS; look++) {
		for (size_t i = 0; i < OWN; i++)
			CHECK_EQ(own[i * 512 + 5], number << 32 | i);
		check_old();
		test_sleep_ms(PAUSE_MS);
	}
	_exit(0);
}

static void end_well(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0));
	CHECK_EQ(status, 0);
}

int main(int argc, char **argv)
{
	pid_t child[CHILDREN] = {0};
	uint64_t number = 0;

	test_init(argc, argv);
	old = test_map(OLD * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	for (size_t i = 0; i < OLD; i++)
		old[i * 512 + 3] = i * 31 + 1;
	test_ready();
	while (test_waiting()) {
		pid_t *slot = &child[number % CHILDREN];

		if (*slot)
			end_well(*slot);
		*slot = MUST(fork());
		if (!*slot)
			live(number);
		number++;
		test_sleep_ms(LOOKS * PAUSE_MS / CHILDREN);
	}
	for (size_t i = 0; i < CHILDREN; i++)
		if (child[i])
			end_well(child[i]);
	check_old();
	test_pass();
}
