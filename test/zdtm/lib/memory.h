/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What /proc/self says of a part of the test's own memory, in KiB. */
#include "zdtm.h"

struct mem_use {
	long rss, anon, anon_huge, swap, locked;
};
/* Sums of smaps over the mappings that lie in [p, p + size). */
struct mem_use mem_use(const void *p, size_t size);
/* A line "NAME: n kB" of /proc/self/status. */
long mem_status(const char *name);
/* @after is at least @before - percent and at most @before + percent, and @slack KiB. */
void mem_check_near(long before, long after, int percent, long slack, const char *what);
/* A private anonymous mapping that starts at a huge page's border and has no neighbours. */
char *mem_alone(size_t size);
/* Writes @pages pages, lap after lap, as fast as it can until the test is told to go on: each must hold what
 * the lap before wrote, also at the end. All must hold 0 at MEM_LAP_WORD (of 8 bytes) at first. */
#define MEM_LAP_WORD 9
void mem_rewrite(volatile uint64_t *mem, size_t pages);
