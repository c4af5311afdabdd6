/* SPDX-License-Identifier: Apache-2.0 */
/* The program that skeleton roots execute: the parasite's code with an ELF header in front, in a memfd. */
#include "parasite/internal.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#define CODE_OFFSET 256

struct stub_header {
	Elf64_Ehdr elf;
	Elf64_Phdr load, stack;
};

static int create(void)
{
	int fd = memfd_create("ferry-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	/* Kernels before 6.3 do not know MFD_EXEC; there it is the default. */
	return fd < 0 && errno == EINVAL ? memfd_create("ferry-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING) : fd;
}

int stub_memfd(struct error *e)
{
	const uint8_t *code;
	size_t size;
	int r = blob_code(&code, &size, e);

	if (r < 0)
		return r;
	struct stub_header h = {
		.elf =
			{
				.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
					    EV_CURRENT},
				.e_type = ET_EXEC,
				.e_machine = (Elf64_Half)arch_elf_machine(),
				.e_version = EV_CURRENT,
				.e_entry = STUB_ADDR + CODE_OFFSET + PB_OFF_STUB,
				.e_phoff = offsetof(struct stub_header, load),
				.e_ehsize = sizeof(Elf64_Ehdr),
				.e_phentsize = sizeof(Elf64_Phdr),
				.e_phnum = 2,
			},
		.load =
			{
				.p_type = PT_LOAD,
				.p_flags = PF_R | PF_X,
				.p_vaddr = STUB_ADDR,
				.p_paddr = STUB_ADDR,
				.p_filesz = CODE_OFFSET + size,
				.p_memsz = CODE_OFFSET + size,
				.p_align = PAGE_SIZE_BYTES,
			},
		.stack = {.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W},
	};
	cleanup_close int fd = create();

	if (fd < 0)
		return error_set(e, errno, "no memfd for the stub program");
	r = pwrite_full(fd, &h, sizeof(h), 0);
	if (r == 0)
		r = pwrite_full(fd, code, size, CODE_OFFSET);
	if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		r = -errno;
	if (r < 0)
		return error_set(e, -r, "the stub program cannot be written");
	return TAKE_FD(fd);
}
