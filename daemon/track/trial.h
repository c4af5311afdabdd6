/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Plugins are code of others: what is not known to work is done by a child first, which may crash. */
#include <stddef.h>

/* Call @fn(@object) in a child, and take over its @size bytes as they are then. 0; -ENOEXEC: it did not come
 * back, and how it ended is in @how ("crashed (signal 11, Segmentation fault)"); another -errno: no child. */
int trial_run(void (*fn)(void *object), void *object, size_t size, char *how, size_t how_size);
