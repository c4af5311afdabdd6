/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* arch_prctl(ARCH_MAP_VDSO_64, addr): map a fresh vvar, vvar_vclock and vdso, the first of them at addr
 * (arch_prctl(2) does not tell of it; linux/arch_prctl.h does). Legal only while none of the three is mapped;
 * needs no privilege. */
#define ARCH_VDSO_MAP_SYSCALL 158 /* __NR_arch_prctl */
#define ARCH_VDSO_MAP_CODE    0x2003
