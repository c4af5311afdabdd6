/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Is @fd, whose counter is @count and which nobody else reads meanwhile, a semaphore? By reading it;
 * afterwards it is as it was. 0 or -errno. */
int eventfd_find_semaphore(int fd, uint64_t count, bool *ret);
