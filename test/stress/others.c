/* SPDX-License-Identifier: Apache-2.0 */
/* Other processes that write into this one. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ways.h"

#define BIG 256 /* pages */

static char from[BIG * PAGE];

static void setup_areas(void)
{
	for (unsigned i = 0; i < 2; i++)
		memset(area(i, i ? MAP_SHARED : MAP_PRIVATE, -1, AREA_SIZE), 1, AREA_SIZE);
}

static void step_idle(unsigned w)
{
	*(volatile uint32_t *)(next_page(area_at(w), AREA_SIZE) + PAGE - 4) += 1;
	pause_us(500);
}

/* Few pages or many: the more, the longer all of them are pinned. */
static void vm_write(pid_t target)
{
	size_t pages = rnd() % 4 ? 1 + rnd() % 4 : BIG;
	struct iovec l = {from, pages * PAGE},
		     r = {next_page(area_at(rnd() % 2), AREA_SIZE - BIG * PAGE), pages * PAGE};

	for (size_t i = 0; i < pages; i++)
		scribble(from + i * PAGE + rnd() % 100 * 8, 8);
	if (process_vm_writev(target, &l, 1, &r, 1, 0) < 0 && errno != ESRCH)
		MUST(-1);
	pause_us(rnd() % 300);
}

static void setup_child(void)
{
	setup_areas();
	if (MUST(fork()) == 0)
		for (;;)
			vm_write(getppid());
}

static void poke_traced(pid_t target)
{
	int status;

	if (ptrace(PTRACE_SEIZE, target, 0, 0) < 0)
		return; /* ferry has it just now */
	if (ptrace(PTRACE_INTERRUPT, target, 0, 0) == 0 && waitpid(target, &status, __WALL) == target)
		for (int i = 0; i < 4; i++)
			ptrace(PTRACE_POKEDATA, target, next_page(area_at(0), AREA_SIZE) + rnd() % 500 * 8,
			       rnd());
	ptrace(PTRACE_DETACH, target, 0, 0);
}

static void poke(pid_t target)
{
	char path[64];
	uint64_t v[2] = {rnd(), rnd()};

	if (rnd() % 4 == 0)
		poke_traced(target);
	snprintf(path, sizeof(path), "/proc/%d/mem", target);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	for (int i = 0; fd >= 0 && i < 4; i++)
		if (pwrite(fd, v, sizeof(v),
			   (off_t)(uintptr_t)next_page(area_at(rnd() % 2), AREA_SIZE - PAGE) + rnd() % PAGE) <
		    0)
			MUST(-1);
	if (fd >= 0)
		close(fd);
	pause_us(300);
}

const struct way ways_others[] = {
	{"vm_writev", 1, setup_areas, step_idle, vm_write},
	{"vm_writev-child", 1, setup_child, step_idle, NULL},
	{"poke", 1, setup_areas, step_idle, poke},
	{0},
};
