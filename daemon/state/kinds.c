/* SPDX-License-Identifier: Apache-2.0 */
#include "state/kind.h"

#include <stddef.h>

#include "state/cgroups/cgroups.h"
#include "state/files/files.h"
#include "state/ipc/ipc.h"
#include "state/memory/memory.h"
#include "state/namespaces/namespaces.h"
#include "state/task/task.h"

/* In order of rebuild; the reasons for the order are in state/task/task.h. */
const struct state_kind *const state_kinds[] = {
	&kind_namespaces, &kind_cgroups,    &kind_objects, &kind_mm,      &kind_aio,
	&kind_ipc,        &kind_undo,       &kind_files,   &kind_fs,      &kind_fdtable,
	&kind_locks,      &kind_terminal,   &kind_sched,   &kind_process, &kind_thread,
	&kind_sigactions, &kind_sigpending, &kind_timers,  &kind_limits,  &kind_seccomp,
	&kind_creds,      &kind_regs,       NULL,
};

const struct state_kind *state_kind_find(uint32_t type)
{
	for (size_t i = 0; state_kinds[i]; i++)
		if (state_kinds[i]->type == type && state_kinds[i]->descriptor)
			return state_kinds[i];
	return NULL;
}
