/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stddef.h>

#include "ferry/dirty_backend.h"

/* A userfaultfd on the target's memory, in our hands only: the descriptor, or -errno. During attach. */
int target_make_uffd(const struct dirty_target *t, char *why, size_t why_size);
