/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory shared over three generations, and among siblings whose parent is dead: one that forked from the
 * process that reaps them, and one that had executed the program anew, so that its address space is another.
 * Each has written some pages, and dropped some.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "pss.h"

#define PAGES  2048
#define SIZE   (PAGES * 4096L)
#define GROUPS 3
#define EACH   5 /* processes that share */

/* What is known to all of them, also after exec. */
struct board {
	pid_t pids[GROUPS * EACH];
	int up[GROUPS * EACH], go, ended[GROUPS * EACH];
};

static struct board volatile *board;

/* One of @EACH: page n is its own where n % 64 is @who. */
static void member(char *p, int group, int who)
{
	int slot = group * EACH + who;

	for (int i = who; i < PAGES; i += 64)
		test_fill(p + i * 4096L, 4096, 1000000ull * (slot + 1) + i);
	for (int i = 40; i < PAGES; i += 64)
		MUST(madvise(p + i * 4096L, (who + 1) * 4096L, MADV_DONTNEED));
	board->pids[slot] = getpid();
	board->up[slot] = 1;
	while (!board->go)
		test_sleep_ms(5);
	for (int turn = 0; turn < 2; turn++)
		for (int i = 0; i < PAGES; i++) {
			if (i % 64 >= 40 && i % 64 <= 40 + who) {
				CHECK(!p[i * 4096L] && !memcmp(p + i * 4096L, p + i * 4096L + 1, 4095),
				      "a dropped page is not empty");
				continue;
			}
			test_check_fill(p + i * 4096L, 4096,
					i % 64 == who ? 1000000ull * (slot + 1) + i : 100000ull * group + i,
					"shared memory");
			if (turn == 0 && i % 64 == who)
				test_fill(p + i * 4096L, 4096, 1000000ull * (slot + 1) + i);
		}
	board->ended[slot] = 1;
	_exit(0);
}

static char *fill(int group)
{
	char *p = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);

	for (int i = 0; i < PAGES; i++)
		test_fill(p + i * 4096L, 4096, 100000ull * group + i);
	return p;
}

/* Each is the child of the one before, and has dropped what that one dropped and more. */
static void generations(char *p, int who)
{
	while (who + 1 < EACH && !test_fork())
		who++;
	member(p, 0, who);
}

static void siblings(int group)
{
	char *p = fill(group);

	for (int i = 0; i < EACH; i++)
		if (!test_fork())
			member(p, group, i);
	_exit(0);
}

static int again(const char *dir)
{
	test_set_dir(dir);
	int fd = MUST(open(test_path("board"), O_RDWR));

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	siblings(2);
	return 0;
}

int main(int argc, char **argv)
{
	static char self[4096], dir[4096];
	uint64_t before;

	if (argc == 3 && !strcmp(argv[1], "--again"))
		return again(argv[2]);
	test_init(argc, argv);
	MUST(readlink("/proc/self/exe", self, sizeof(self) - 1));
	snprintf(dir, sizeof(dir), "%s", test_path("."));
	int fd = MUST(open(test_path("board"), O_RDWR | O_CREAT, 0600));

	MUST(ftruncate(fd, sizeof(*board)));
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(board != MAP_FAILED, "map");
	close(fd);
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	if (!test_fork())
		generations(fill(0), 0);
	pid_t dead = test_fork();

	if (!dead)
		siblings(1);
	test_reap(dead, 0);
	dead = test_fork();
	if (!dead) {
		execl(self, self, "--again", dir, NULL);
		test_fail("exec %s", self);
	}
	test_reap(dead, 0);
	for (int i = 0; i < GROUPS * EACH; i++)
		while (!board->up[i])
			test_sleep_ms(1);
	before = pss_of((const pid_t *)board->pids, GROUPS * EACH);
	CHECK(before < 5 * SIZE, "they do not share memory to begin with: %llu KiB",
	      (unsigned long long)before / 1024);
	test_ready();
	test_wait();
	check_pss(before, pss_of((const pid_t *)board->pids, GROUPS * EACH));
	board->go = 1;
	for (int i = 0; i < GROUPS * EACH; i++)
		while (!board->ended[i])
			test_sleep_ms(1);
	while (wait(NULL) > 0)
		;
	test_pass();
}
