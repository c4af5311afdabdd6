/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Host descriptors into skeletons (see rebuild_fetch_fd in state/kind.h): the skeleton opens the host's pidfd
 * and takes them with pidfd_getfd(2).
 */
#include "parasite/batch.h"

/* Entry whose result is the host's pidfd in the skeleton; appended when none is open at this point of the
 * batch. */
unsigned rebuild_fetch_begin(struct batch *b);
/* Close it. Kinds that fetch after files/fdtable, which leaves nothing open that is not the target's, must
 * end with this. */
void rebuild_fetch_end(struct batch *b);
/* It was closed by other means. */
void rebuild_fetch_forget(struct batch *b, unsigned entry);
