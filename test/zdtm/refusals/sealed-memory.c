/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that mseal(2) has sealed. */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "zdtm.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

int main(int argc, char **argv)
{
	char *p;

	test_init(argc, argv);
	p = test_map(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	*p = 's';
	if (syscall(SYS_mseal, p, 4096, 0))
		test_skip("no mseal: %s", strerror(errno));
	test_ready();
	test_wait();
	CHECK_EQ(*p, 's');
	test_pass();
}
