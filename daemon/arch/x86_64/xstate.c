/* SPDX-License-Identifier: Apache-2.0 */
#include "arch/arch.h"

#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define XSTATE_MAX (64 * 1024) /* AMX needs about 11 KiB */

int arch_xstate_get(pid_t tid, void **ret, size_t *ret_size)
{
	struct iovec iov = {malloc(XSTATE_MAX), XSTATE_MAX};

	if (!iov.iov_base)
		return -ENOMEM;
	if (ptrace(PTRACE_GETREGSET, tid, (void *)NT_X86_XSTATE, &iov) < 0) {
		int err = errno;

		free(iov.iov_base);
		return -err;
	}
	void *fit = realloc(iov.iov_base, iov.iov_len ? iov.iov_len : 1);

	*ret = fit ? fit : iov.iov_base;
	*ret_size = iov.iov_len;
	return 0;
}

int arch_xstate_set(pid_t tid, const void *xstate, size_t size)
{
	struct iovec iov = {(void *)xstate, size};

	return ptrace(PTRACE_SETREGSET, tid, (void *)NT_X86_XSTATE, &iov) < 0 ? -errno : 0;
}

void arch_xstate_features(uint64_t *ret_mask, size_t *ret_size)
{
	unsigned eax, ebx, ecx, edx, low, high;

	*ret_mask = 0;
	*ret_size = 512; /* FXSAVE */
	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	*ret_mask = (uint64_t)high << 32 | low;
	if (__get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx))
		*ret_size = ebx;
}
