/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/bpf.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr a = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
			    .insn_cnt = 2,
			    .insns = (uintptr_t)code,
			    .license = (uintptr_t) "GPL"};

	test_init(argc, argv);
	if (syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof(a)) < 0)
		test_skip("no BPF programs: %s", strerror(errno));
	test_ready();
	test_wait();
	test_pass();
}
