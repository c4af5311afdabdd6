/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Memory protection keys; see pkeys.c. */
#include <sys/types.h>

#include "base/error.h"
#include "parasite/batch.h"
#include "proto/memory.pb-c.h"

/* Source: append the questions, returns what pkeys_take wants to know; the answer, a bit per key. */
int pkeys_ask(struct batch *b);
uint32_t pkeys_take(const struct batch *b, int first);
/* Destination */
int pkeys_check(const Ferry__Mm *mm, pid_t pid, struct error *e);
void pkeys_build(const Ferry__Mm *mm, struct batch *b);
