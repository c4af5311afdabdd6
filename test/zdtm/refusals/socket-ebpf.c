/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	/* r0 = -1; exit: everything is let through */
	struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1},
				  {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr a = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
			    .insn_cnt = 2,
			    .insns = (uintptr_t)code,
			    .license = (uintptr_t) "GPL"};

	test_init(argc, argv);
	int fd = MUST(socket(AF_INET, SOCK_DGRAM, 0)),
	    program = syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof(a));

	if (program < 0)
		test_skip("no BPF programs: %s", strerror(errno));
	MUST(setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)));
	close(program);
	test_ready();
	test_wait();
	test_pass();
}
