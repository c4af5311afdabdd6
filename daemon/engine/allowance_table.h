/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Of allowance.c. */
#include <stdbool.h>
#include <stdint.h>

#include "engine/allowance.h"
#include "engine/restore.h"

enum allowance_what {
	ALLOWANCE_MEMORY,
	ALLOWANCE_TASKS,
};

/* Is there room for @least beside what the others of the same peer have? Then as much of @wanted as there is
 * room for is this one's. *ret_others: what the others have. */
bool allowance_share(const struct restore_limits *l, enum allowance_what what, uint64_t least,
		     uint64_t wanted, uint64_t *ret_others);
