/* SPDX-License-Identifier: Apache-2.0 */
/* Processes whose parents end while the tree is copied, so that another one adopts them, keep their memory.
 */
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "zdtm.h"

#define MOST 60
#define SIZE (1L << 20)

static void grandchild(char *p, const volatile int *go, int who)
{
	char *q = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);

	test_fill(q, SIZE, 100 + who);
	while (!*go)
		test_sleep_ms(2);
	test_check_fill(p, SIZE, who, "memory of a dead parent");
	test_check_fill(q, SIZE, 100 + who, "memory of an orphan");
	_exit(7);
}

static void parent(char *p, const volatile int *go, int who)
{
	test_fill(p, SIZE, who);
	if (!test_fork())
		grandchild(p, go, who);
	/* Met by a round or two, if there are rounds. */
	test_wait_ms(30);
	_exit(0);
}

int main(int argc, char **argv)
{
	volatile int *go;
	int n = 0, status;
	char *p;

	test_init(argc, argv);
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	go = test_shared_flags(1);
	p = test_map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	test_fill(p, SIZE, 12345);
	test_ready();
	do {
		if (n == MOST)
			continue;
		if (!test_fork())
			parent(p, go, n);
		n++;
	} while (test_wait_ms(5));
	*go = 1;
	for (int i = 0; i < 2 * n; i++) {
		MUST(wait(&status));
		CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 7 || WEXITSTATUS(status) == 0),
		      "a process ended with status %x", status);
	}
	test_check_fill(p, SIZE, 12345, "the root's memory");
	test_pass();
}
