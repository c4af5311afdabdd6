/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One address is anonymous memory, a private mapping of a file, and one of a memfd by turns, and both are
 * half as long as what is mapped: what a round reads there need not be what its layout says.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (2UL << 20)
#define STEP 8192

static uint8_t initial(size_t i)
{
	return (uint8_t)(i * 7 + i / 4096);
}

static int filled(int fd)
{
	static uint8_t content[SIZE / 2];

	for (size_t i = 0; i < SIZE / 2; i++)
		content[i] = initial(i);
	CHECK_EQ(pwrite(fd, content, sizeof(content), 0), (ssize_t)sizeof(content));
	return fd;
}

int main(int argc, char **argv)
{
	uint8_t *p;
	int turn = 0, fd[3] = {-1};

	test_init(argc, argv);
	fd[1] = filled(MUST(open(test_path("file"), O_RDWR | O_CREAT, 0600)));
	fd[2] = filled(MUST(memfd_create("turns", 0)));
	p = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_ready();
	for (uint8_t lap = 1; test_waiting(); lap++, turn = (turn + 1) % 3) {
		size_t there = turn ? SIZE / 2 : SIZE;

		MUST(mmap(p, SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_FIXED | (turn ? 0 : MAP_ANONYMOUS), fd[turn], 0));
		for (size_t i = 0; i < there; i += STEP)
			p[i] = lap;
		for (int k = 0; k < 3; k++)
			for (size_t i = 0; i < there; i += STEP) {
				CHECK_EQ(p[i], lap);
				CHECK_EQ(p[i + STEP / 2], turn ? initial(i + STEP / 2) : 0);
			}
	}
	test_pass();
}
