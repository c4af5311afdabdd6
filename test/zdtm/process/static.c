/* SPDX-License-Identifier: Apache-2.0 */
#include "zdtm.h"

static char data[10000];

int main(int argc, char **argv)
{
	test_init(argc, argv);
	test_fill(data, sizeof(data), 1);
	test_ready();
	test_wait();
	test_check_fill(data, sizeof(data), 1, "bss");
	test_pass();
}
