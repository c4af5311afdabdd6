/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "pages.h"

/*
 * Does this kernel mark written pages (0, or -errno with a reason)?  *ret_scan: PAGEMAP_SCAN knows the mark;
 * else the words of pagemap must be read.
 */
int soft_dirty_probe(bool *ret_scan, char *why, size_t why_size);
