/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Plugins are code of others: what is not known to work is done by a child first, which may crash or hang. */
#include <stddef.h>

/* Milliseconds; what is tried takes some, on a machine that is busy with other work more. */
#define TRIAL_LIMIT_MS 10000

/* Call @fn(@object) in a child, and take over its @size bytes as they are then. 0; -ENOEXEC: it did not come
 * back, and how it ended is in @how ("crashed in probe() (signal 11, Segmentation fault)", "did not come back
 * from probe() within 10 s" when @limit_ms are over); another -errno: no child. */
int trial_run(void (*fn)(void *object), void *object, size_t size, unsigned limit_ms, char *how,
	      size_t how_size);
/* Of the child: what it calls next, a string that stays, for @how. */
void trial_calls(const char *what);
