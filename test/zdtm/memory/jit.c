/* SPDX-License-Identifier: Apache-2.0 */
/* Code that the program wrote itself, in memory that is executable. */
#include <sys/mman.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	static const unsigned char code[] = {0xb8, 0x39, 0x05, 0x00, 0x00, 0xc3}; /* mov eax, 1337; ret */
	int (*function)(void);
	void *p;

	test_init(argc, argv);
	p = test_map(4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS);
	memcpy(p, code, sizeof(code));
	MUST(mprotect(p, 4096, PROT_READ | PROT_EXEC));
	function = (int (*)(void))p;
	CHECK_EQ(function(), 1337);
	test_ready();
	test_wait();
	CHECK_EQ(function(), 1337);
	test_pass();
}
