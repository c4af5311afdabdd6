/* SPDX-License-Identifier: Apache-2.0 */
/* Some thousand small mappings with different protections and holes. */
#include <sys/mman.h>

#include "zdtm.h"

#define COUNT 3000

int main(int argc, char **argv)
{
	char *p;

	test_init(argc, argv);
	p = test_map(COUNT * 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	for (int i = 0; i < COUNT; i++) {
		char *q = p + i * 2 * 4096;

		if (i % 3)
			test_fill(q, 4096, i);
		if (i % 5 == 0)
			MUST(munmap(q + 4096, 4096));
		else
			MUST(mprotect(q, 4096, i % 2 ? PROT_READ : PROT_READ | PROT_EXEC));
	}
	test_ready();
	test_wait();
	for (int i = 0; i < COUNT; i++) {
		char *q = p + i * 2 * 4096;

		if (i % 3)
			test_check_fill(q, 4096, i, "a small mapping");
		else
			CHECK_EQ(q[0], 0);
	}
	test_pass();
}
