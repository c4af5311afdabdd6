/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <sys/types.h>

#include "base/error.h"

/* -EPERM unless everything the process can do @owner could do, too: all user ids of all threads are his, none
 * has a capability, and the kernel lets him look into it (it is dumpable). */
int proc_owner_check(pid_t pid, uid_t owner, struct error *e);
