/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

/* TCP connections of a process that somebody who has died left in repair mode (tcp(7), TCP_REPAIR) go on. How
 * many there were. SO_REUSEADDR of those is on afterwards: repair mode forgets it. @rebuilt: one that is
 * marked (IP_TRANSPARENT) lacks data that was to be sent after its repair, and is broken off instead. */
unsigned tcp_repair_end(pid_t pid, bool rebuilt);
