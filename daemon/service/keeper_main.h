/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The keeper's own process, from the fork on. Returns its exit code. */
#include <sys/types.h>

#include "service/chain.h"

int keeper_main(int listener, const char *path, pid_t target, const struct chain_ops *ops);
