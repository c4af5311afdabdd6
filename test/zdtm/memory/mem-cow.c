/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that fork left shared copy-on-write: each side keeps its own view, also of pages written later. */
#include <sys/mman.h>

#include "zdtm.h"

#define PAGES 512
#define SIZE  (PAGES * 4096)

static void change(char *p, int who)
{
	for (int i = who; i < PAGES; i += 5)
		test_fill(p + i * 4096, 4096, 1000 * who + i);
}

static void check(char *p, int who)
{
	for (int i = 0; i < PAGES; i++)
		test_check_fill(p + i * 4096, 4096, i % 5 == who ? 1000 * who + i : i,
				who == 1 ? "parent" : "child");
}

int main(int argc, char **argv)
{
	volatile int *up;
	pid_t child[2];
	char *p;

	test_init(argc, argv);
	up = test_shared_flags(2);
	p = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	for (int i = 0; i < PAGES; i++)
		test_fill(p + i * 4096, 4096, i);
	for (int i = 0; i < 2; i++) {
		child[i] = test_fork();
		if (!child[i]) {
			change(p, 2 + i);
			up[i] = 1;
			test_wait();
			check(p, 2 + i);
			change(p, 2 + i);
			check(p, 2 + i);
			_exit(i);
		}
	}
	change(p, 1);
	while (!up[0] || !up[1])
		test_sleep_ms(1);
	test_ready();
	test_wait();
	check(p, 1);
	test_reap(child[0], 0);
	test_reap(child[1], 1);
	check(p, 1);
	test_pass();
}
