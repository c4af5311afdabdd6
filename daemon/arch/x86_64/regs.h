/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <sys/user.h>

struct arch_regs {
	struct user_regs_struct r;
};

#define ARCH_SYSCALL_LEAD 7 /* mov $imm32, %eax; syscall */
