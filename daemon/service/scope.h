/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stddef.h>
#include <sys/types.h>

#include "base/events.h"

/*
 * Where systemd is the service manager: a scope of its own, ferry-UUID.scope in system.slice, for processes
 * that have arrived, so that they are no part of the service that ferryd is.  What they fork is in it, too.
 * Nothing depends on it: without a systemd that hears us a log line says so, and they stay where they are.
 * systemd removes the scope when it is empty.
 */
void scope_make(const char *uuid, const pid_t *pids, size_t n, const struct events *ev);
