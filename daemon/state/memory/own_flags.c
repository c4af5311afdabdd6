/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose is the write protection that VmFlags show (uw): ours, or the program's own?
 *
 * What was armed is ours, but a registration also gets to addresses that were not: with shared memory that is
 * moved (mremap), as the tracker of shared memory is told of that and keeps it; with a mapping that grew in
 * place and lost its first part since.  Recorded as the program's own, it would make the image speak of a
 * userfaultfd that is not there.  And what was armed may be another mapping by now, which the program has
 * registered itself.  So where there is doubt the backend asks the kernel.
 */
#include "procfs/procfs.h"
#include "state/memory/memory.h"
#include "track/calls.h"

static uint32_t kind_of(const struct proc_vma *v)
{
	if (v->vmflags & PROC_VM_HUGETLB)
		return v->shared ? DIRTY_VMA_SHARED_HUGETLB : DIRTY_VMA_HUGETLB;
	if (v->shared)
		return DIRTY_VMA_SHARED;
	return v->ino ? DIRTY_VMA_PRIVATE_FILE : DIRTY_VMA_ANON;
}

static bool is_ours(const struct memory *m, const struct memory_process *mp, const struct proc_vma *v)
{
	const struct dirty_vma dv = {.start = v->start, .end = v->end, .kind = kind_of(v)};
	bool armed = page_set_overlaps(&mp->armed, v->start, v->end);

	if (!m->backend.ops->owns || (armed && !m->userfaults))
		return armed;
	return backend_owns(&m->backend, mp->session, &dv);
}

void memory_clear_own_flags(const struct memory *m, const struct memory_process *mp, struct proc_maps *maps)
{
	for (size_t i = 0; mp->session && mp->shows_uw && i < maps->n; i++)
		if (maps->v[i].vmflags & PROC_VM_UFFD_WP && is_ours(m, mp, &maps->v[i]))
			maps->v[i].vmflags &= ~PROC_VM_UFFD_WP;
}
