/* SPDX-License-Identifier: Apache-2.0 */
#include "zdtm.h"

int main(int argc, char **argv)
{
	char *p;

	test_init(argc, argv);
	p = malloc(100000);
	test_fill(p, 100000, 7);
	test_ready();
	test_wait();
	test_check_fill(p, 100000, 7, "heap");
	free(p);
	p = malloc(1 << 20);
	test_fill(p, 1 << 20, 8);
	test_check_fill(p, 1 << 20, 8, "new heap");
	free(p);
	test_pass();
}
