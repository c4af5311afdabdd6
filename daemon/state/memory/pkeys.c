/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory protection keys: which are allocated, and which mapping has which.
 *
 * The key of a mapping is in smaps.  Whether a key is allocated shows nowhere, but in the error of giving it
 * to memory that is not there: EINVAL for a key that is not allocated, ENOMEM for one that is.  The rights
 * that go with the keys are a register of each thread (PKRU, part of the extended state).  The key that the
 * kernel itself uses for memory that may only be executed counts as not allocated, and is made by it again.
 */
#include "state/memory/pkeys.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"

#define N_KEYS  16
#define NOWHERE 0x1000 /* below what may be mapped */

static bool supported(void)
{
	int key = pkey_alloc(0, 0);

	if (key >= 0)
		pkey_free(key);
	return key >= 0;
}

/* -1: this machine has none. */
int pkeys_ask(struct batch *b)
{
	if (!supported())
		return -1;
	unsigned first = b->n;

	for (int key = 1; key < N_KEYS; key++)
		batch_accept_any(b, batch_call(b, "probe a protection key", SYS_pkey_mprotect, ARG(NOWHERE),
					       ARG(PAGE_SIZE_BYTES), ARG(PROT_READ), ARG(key)));
	return (int)first;
}

uint32_t pkeys_take(const struct batch *b, int first)
{
	uint32_t keys = 0;

	for (int key = 1; first >= 0 && key < N_KEYS; key++)
		if (batch_result(b, first + key - 1) == -ENOMEM)
			keys |= 1u << key;
	return keys;
}

static bool exec_only(const Ferry__Vma *v)
{
	return v->prot == PROT_EXEC;
}

static bool uses_keys(const Ferry__Mm *mm)
{
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (mm->vmas[i]->pkey && !exec_only(mm->vmas[i]))
			return true;
	return mm->pkeys != 0;
}

int pkeys_check(const Ferry__Mm *mm, pid_t pid, struct error *e)
{
	return uses_keys(mm) && !supported()
		       ? error_say(e, ENOTSUP, "pid %d uses memory protection keys, which this machine lacks",
				   pid)
		       : 0;
}

/* The kernel gives out the lowest free one: take all, give back what is not wanted. */
void pkeys_build(const Ferry__Mm *mm, struct batch *b)
{
	if (!uses_keys(mm))
		return;
	for (int key = 1; key < N_KEYS; key++)
		batch_accept_any(b,
				 batch_call(b, "allocate a protection key", SYS_pkey_alloc, ARG(0), ARG(0)));
	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Ferry__Vma *v = mm->vmas[i];

		if (v->pkey && !exec_only(v))
			batch_call(b, "give memory its protection key", SYS_pkey_mprotect, ARG(v->start),
				   ARG(v->end - v->start), ARG(v->prot), ARG(v->pkey));
	}
	for (int key = 1; key < N_KEYS; key++)
		if (!(mm->pkeys & 1u << key))
			batch_accept_any(b, batch_call(b, "free a protection key", SYS_pkey_free, ARG(key)));
}
