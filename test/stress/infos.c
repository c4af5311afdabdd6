/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ways.h"

const struct way_info way_infos[] = {
	{"store", "stores of 1 to 8 bytes", 0, NULL},
	{"huge", "stores into huge pages", 0, NULL},
	{"atomic", "locked read-modify-write instructions", 0, NULL},
	{"nontemporal", "AVX and SSE stores past the cache, string instructions", 0, NULL},
	{"read", "read(2), pread(2)", 0, NULL},
	{"readv", "readv(2), preadv2(2)", 0, NULL},
	{"recv", "recv(2), recvmsg(2), recvmmsg(2) from sockets", 0, NULL},
	{"direct", "O_DIRECT reads, always in flight", WAY_BLIND, NULL},
	{"direct-reopen", "O_DIRECT reads, a new descriptor for each", WAY_BLIND, NULL},
	{"io_uring", "io_uring READ, READV", 0, NULL},
	{"io_uring-fixed", "io_uring READ_FIXED into registered buffers", WAY_BLIND, NULL},
	{"io_uring-hidden", "the same with a ring that no descriptor shows", WAY_REFUSED | WAY_BLIND,
	 "pinned"},
	{"vm_writev", "process_vm_writev(2) from outside of the tree", WAY_HELPER | WAY_BLIND | WAY_SURE,
	 NULL},
	{"vm_writev-slow", "process_vm_writev(2) that waits with its pages in hand",
	 WAY_HELPER | WAY_BLIND | WAY_SURE | WAY_SLOW, NULL},
	{"vm_writev-child", "process_vm_writev(2) from a child", WAY_BLIND, NULL},
	{"poke", "PTRACE_POKEDATA and /proc/PID/mem from outside of the tree", WAY_HELPER, NULL},
	{"two-mappings", "shared memory, by two mappings and a child's", WAY_BLIND, NULL},
	{"brief-mappings", "shared memory, by mappings and children that are soon gone", WAY_BLIND, NULL},
	{"outsider", "shared memory, by a mapping of a process outside of the tree", WAY_HELPER | WAY_BLIND,
	 NULL},
	{"file", "shared memory, by write, fallocate and truncate of its file", WAY_BLIND, NULL},
	{"file-only", "a memfd that is open and not mapped", WAY_BLIND | WAY_STATE | WAY_ENGINE, NULL},
	{"shared-anon", "anonymous shared memory, by a process and its child", WAY_BLIND | WAY_SURE, NULL},
	{"shared-brief", "the same; now and then by second mappings and children that are soon gone",
	 WAY_BLIND | WAY_SURE, NULL},
	{"shared-remove", "the same; now and then a page is taken away and read again", WAY_BLIND, NULL},
	{"segment", "a System V segment; now and then a second attachment or a child", WAY_BLIND | WAY_SURE,
	 NULL},
	{"shared-memfd", "a memfd that is mapped and not open; now and then it is opened for a moment",
	 WAY_BLIND | WAY_SURE, NULL},
	{"shared-file", "the same with a file on tmpfs, that has a name", WAY_BLIND | WAY_SURE, NULL},
	{"shared-open", "a memfd that stays open; now and then it is written by its descriptor", WAY_BLIND,
	 NULL},
	{"sparse", "a sparse file, mapped shared and private, whose holes stay holes", 0, NULL},
	{"private-memfd", "a private mapping of a memfd: stores, drops, truncation", 0, NULL},
	{"private-file", "a private mapping of a file on disk: stores, drops, truncation", 0, NULL},
	{"map", "mmap, munmap, mremap: move, grow, shrink, DONTUNMAP", 0, NULL},
	{"map-large", "mremap of 2 MiB, over what is there, small and huge pages", 0, NULL},
	{"map-fixed", "MAP_FIXED over what is there, of all kinds", WAY_BLIND, NULL},
	{"mprotect", "mprotect of parts, stores", 0, NULL},
	{"dontneed", "MADV_DONTNEED", 0, NULL},
	{"dontneed-huge", "MADV_DONTNEED in huge pages", 0, NULL},
	{"dontneed-read", "MADV_DONTNEED, small and huge pages; what was dropped is read and not written", 0,
	 NULL},
	{"free", "MADV_FREE", 0, NULL},
	{"remove", "MADV_REMOVE of shared memory", WAY_BLIND, NULL},
	{"collapse", "MADV_COLLAPSE", 0, NULL},
	{"guard", "MADV_GUARD_INSTALL and REMOVE in anonymous memory", 0, NULL},
	{"guard-file", "the same in private and shared maps of files", 0, NULL},
	{"hugetlb", "huge pages of the pool: stores, read, drops, holes, two mappings", WAY_ENGINE, NULL},
	{"fork", "fork, stores on both sides", 0, NULL},
	{"family", "children that live for some rounds and write", WAY_ENGINE, NULL},
	{"spawn", "vfork with stores in the child, posix_spawn", WAY_ENGINE, NULL},
	{"exec", "exec", WAY_ENGINE, NULL},
	{"clone-vm", "a second process in the same memory", WAY_REFUSED, "share"},
	{"brk", "brk, up and down", 0, NULL},
	{"stack", "growth of the stack and of MAP_GROWSDOWN", 0, NULL},
	{"ksm", "pages merged by the kernel, and written again", 0, NULL},
	{"swap", "memory swapped out and in", WAY_PRESSURE, NULL},
	{0},
};

const struct way_info *way_info(const char *name)
{
	for (const struct way_info *w = way_infos; w->name; w++)
		if (!strcmp(w->name, name))
			return w;
	return NULL;
}
