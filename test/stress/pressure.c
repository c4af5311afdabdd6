/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel does with memory by itself. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ways.h"

/* With the shared area a quarter more than the cgroup has (run). */
#define SWAP_AREA (3 * AREA_SIZE)
#define SWAP_PART (SWAP_AREA / 12)

static void setup_ksm(void)
{
	char on = '0';
	int fd = open("/sys/kernel/mm/ksm/run", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, &on, 1) != 1 || on != '1')
		skip("KSM is off");
	close(fd);
	for (unsigned i = 0; i < 2; i++) {
		memset(area(i, MAP_PRIVATE, -1, AREA_SIZE), 7, AREA_SIZE);
		if (madvise(area_at(i), AREA_SIZE, MADV_MERGEABLE) < 0)
			skip("no KSM: %s", strerror(errno));
	}
}

/* Other, and then the same again. */
static void step_ksm(unsigned w)
{
	for (int i = 0; i < 4; i++)
		*(volatile uint32_t *)next_page(area_at(w), AREA_SIZE) += 1;
	memset(next_page(area_at(w), AREA_SIZE), 7, PAGE);
	memset(next_page(area_at(w), AREA_SIZE), 7, PAGE);
	pause_us(200);
}

static bool in_swap(void)
{
	unsigned long kb = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmSwap: %lu", &kb);
	if (f)
		fclose(f);
	return kb > 0;
}

static void setup_swap(void)
{
	memset(area(0, MAP_PRIVATE, -1, SWAP_AREA), 1, SWAP_AREA);
	memset(area(1, MAP_SHARED, -1, AREA_SIZE), 1, AREA_SIZE);
	for (size_t i = 0; i < SWAP_AREA; i += PAGE)
		*(uint64_t *)(area_at(0) + i) = i;
	madvise(area_at(0), AREA_SIZE, MADV_PAGEOUT);
	if (!in_swap())
		skip("nothing is swapped out here");
}

static void step_swap(unsigned w)
{
	(void)w;
	for (int i = 0; i < 4; i++) {
		*(volatile uint32_t *)next_page(area_at(0), SWAP_AREA) += 1;
		(void)*(volatile uint32_t *)next_page(area_at(0), SWAP_AREA);
	}
	*(volatile uint32_t *)next_page(area_at(1), AREA_SIZE) += 1;
	if (rnd() % 8 == 0)
		madvise(area_at(0) + rnd() % 12 * SWAP_PART, SWAP_PART, MADV_PAGEOUT);
	pause_us(200);
}

const struct way ways_pressure[] = {
	{"ksm", 2, setup_ksm, step_ksm, NULL},
	{"swap", 1, setup_swap, step_swap, NULL},
	{0},
};
