/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/bpf.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	union bpf_attr a = {.map_type = BPF_MAP_TYPE_RINGBUF, .max_entries = 4096, .map_name = "ring"};

	test_init(argc, argv);
	if (syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a)) < 0)
		test_skip("no BPF ring buffers: %s", strerror(errno));
	test_ready();
	test_wait();
	test_pass();
}
