/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory that is written through mappings which come and go: a file mapped for a moment, a segment
 * attached for a moment, a process that writes and ends. The programs know what must be there.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "zdtm.h"

#define PAGES 8
#define SIZE  (PAGES * 4096)

enum { FILE_MAPPED, SEGMENT, BY_CHILD, KINDS };

static int fd[KINDS], id;
/* What was written last, and what is being written now. */
static volatile unsigned done[KINDS][PAGES], now[KINDS][PAGES];

static void write_one(char *p, int kind, int page, unsigned value)
{
	now[kind][page] = value;
	*(volatile unsigned *)(p + page * 4096) = value;
	done[kind][page] = value;
}

static char *visit(int kind)
{
	char *p = kind == SEGMENT ? shmat(id, NULL, 0)
				  : mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd[kind], 0);

	CHECK(p != (char *)-1, "mapping %d", kind);
	return p;
}

static void leave(int kind, char *p)
{
	if (kind == SEGMENT)
		MUST(shmdt(p));
	else
		MUST(munmap(p, SIZE));
}

int main(int argc, char **argv)
{
	unsigned n = 0;
	char *keep;

	test_init(argc, argv);
	fd[FILE_MAPPED] = MUST(memfd_create("mapped", 0));
	fd[BY_CHILD] = MUST(memfd_create("child", 0));
	MUST(ftruncate(fd[FILE_MAPPED], SIZE));
	MUST(ftruncate(fd[BY_CHILD], SIZE));
	id = MUST(shmget(IPC_PRIVATE, SIZE, IPC_CREAT | 0600));
	keep = shmat(id, NULL, SHM_RDONLY);
	MUST(shmctl(id, IPC_RMID, NULL));
	for (int kind = 0; kind < KINDS; kind++) {
		char *p = visit(kind);

		for (int i = 0; i < PAGES; i++)
			write_one(p, kind, i, 0);
		leave(kind, p);
	}
	test_ready();
	while (test_waiting()) {
		int page = ++n % PAGES;

		for (int kind = FILE_MAPPED; kind <= SEGMENT; kind++) {
			char *p = visit(kind);

			write_one(p, kind, page, n);
			leave(kind, p);
		}
		now[BY_CHILD][page] = n;
		pid_t child = test_fork();

		if (child == 0) {
			char *p = visit(BY_CHILD);

			write_one(p, BY_CHILD, page, n);
			test_sleep_ms(n % 4 ? 0 : 20);
			_exit(0);
		}
		test_reap(child, 0);
		done[BY_CHILD][page] = n;
		test_sleep_ms(n % 3);
	}
	for (int kind = 0; kind < KINDS; kind++) {
		char *p = kind == SEGMENT ? keep : visit(kind);

		for (int i = 0; i < PAGES; i++) {
			unsigned is = *(unsigned *)(p + i * 4096);

			CHECK(is == done[kind][i] || is == now[kind][i],
			      "kind %d page %d has %u, not %u or %u", kind, i, is, done[kind][i],
			      now[kind][i]);
		}
	}
	test_pass();
}
