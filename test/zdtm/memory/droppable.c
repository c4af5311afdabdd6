/* SPDX-License-Identifier: Apache-2.0 */
/* MAP_DROPPABLE: comes back as such; its content may go at any time, by a move too. */
#include <sys/mman.h>

#include "zdtm.h"

#define DROPPABLE 8

int main(int argc, char **argv)
{
	char smaps[65536], head[32], *p, *q;

	test_init(argc, argv);
	p = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		test_skip("no MAP_DROPPABLE: %s", strerror(errno));
	memset(p, 'd', 4 * 4096);
	test_ready();
	test_wait();
	for (int i = 0; i < 4; i++)
		CHECK(p[i * 4096] == 'd' || p[i * 4096] == 0, "page %d has other content", i);
	p[0] = 'e';
	test_read_file("/proc/self/smaps", smaps, sizeof(smaps));
	snprintf(head, sizeof(head), "%lx-", (unsigned long)p);
	q = strstr(smaps, head);
	CHECK(q && (q = strstr(q, "VmFlags:")), "no flags of the mapping");
	*strchr(q, '\n') = 0;
	CHECK(strstr(q, " dp") && strstr(q, " wf") && strstr(q, " dd"), "not droppable any more: %s", q);
	test_pass();
}
