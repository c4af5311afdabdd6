/* SPDX-License-Identifier: Apache-2.0 */
/* A child calls exec again and again while the tree is copied: another address space under the same pid. */
#include <sys/mman.h>

#include "zdtm.h"

#define SIZE (1 << 20)

/* Runs as the child, after each exec: some turns of work on fresh memory. */
static int again(const char *dir, char *self, unsigned n)
{
	char number[16];
	char *p;

	test_set_dir(dir);
	p = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_fill(p, SIZE, n);
	for (int i = 0; i < 5 && test_wait_ms(2); i++) {
		test_check_fill(p, SIZE, n + i, "memory after exec");
		test_fill(p, SIZE, n + i + 1);
	}
	if (!test_waiting())
		return 31;
	snprintf(number, sizeof(number), "%u", n + 1);
	execl(self, self, "--again", dir, self, number, NULL);
	test_fail("exec %s", self);
}

int main(int argc, char **argv)
{
	static char self[4096], dir[4096];
	pid_t child;

	if (argc == 5 && !strcmp(argv[1], "--again"))
		return again(argv[2], argv[3], (unsigned)atoi(argv[4]));
	test_init(argc, argv);
	MUST(readlink("/proc/self/exe", self, sizeof(self) - 1));
	snprintf(dir, sizeof(dir), "%s", test_path("."));
	child = test_fork();
	if (!child) {
		execl(self, self, "--again", dir, self, "0", NULL);
		test_fail("exec %s", self);
	}
	test_sleep_ms(20);
	test_ready();
	test_wait();
	test_reap(child, 31);
	test_pass();
}
