/* SPDX-License-Identifier: Apache-2.0 */
/* Other processes that write into this one. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ways.h"

#define BIG 256 /* pages */

static char from[BIG * PAGE] __attribute__((aligned(PAGE)));

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

/* Writes nothing itself. */
static void step_nothing(unsigned w)
{
	(void)w;
	pause_us(1000);
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

/* --- a call that holds its pages for up to 0.1 s ------------------------------------------------------
 *
 * process_vm_writev(2) looks up the pages it is to write, and then copies.  Here the first page that it
 * copies from is missing, and comes when a thread brings it.  Rounds of the driver that protect and read the
 * pages in between see neither the look nor the copy (state/memory/young.c).
 */
#define HOLDS 64 /* pages */

static int missing; /* a userfaultfd */

static void *bring(void *page)
{
	struct uffd_msg m;

	for (;;) {
		struct uffdio_copy c = {.dst = (uintptr_t)from, .src = (uintptr_t)page, .len = PAGE};

		if (read(missing, &m, sizeof(m)) != sizeof(m))
			continue;
		pause_us(rnd() % 16 ? 500 + rnd() % 5000 : 100000);
		scribble(page, PAGE);
		ioctl(missing, UFFDIO_COPY, &c);
	}
	return NULL;
}

static void set_up_missing(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.range = {(uintptr_t)from, PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	pthread_t t;
	char *page =
		(char *)MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	missing = (int)MUST(syscall(SYS_userfaultfd, O_CLOEXEC));
	MUST(ioctl(missing, UFFDIO_API, &api));
	MUST(ioctl(missing, UFFDIO_REGISTER, &reg));
	errno = pthread_create(&t, NULL, bring, page);
	MUST(errno ? -1 : 0);
}

/* Each page once in a long while: what is lost stays lost. */
static char *next_pages(void)
{
	static unsigned i;

	return area_at(rnd() % 2) + i++ % (AREA_PAGES / HOLDS) * HOLDS * PAGE;
}

static void vm_hold(pid_t target)
{
	struct iovec l = {from, HOLDS * PAGE}, r = {next_pages(), HOLDS * PAGE};

	if (!missing)
		set_up_missing();
	for (size_t i = 1; i < HOLDS; i++)
		scribble(from + i * PAGE + rnd() % 100 * 8, 8);
	MUST(madvise(from, PAGE, MADV_DONTNEED));
	if (process_vm_writev(target, &l, 1, &r, 1, 0) < 0 && errno != ESRCH)
		MUST(-1);
	pause_us(rnd() % 500);
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
	{"vm_writev-slow", 1, setup_areas, step_nothing, vm_hold},
	{"vm_writev-child", 1, setup_child, step_idle, NULL},
	{"poke", 1, setup_areas, step_idle, poke},
	{0},
};
