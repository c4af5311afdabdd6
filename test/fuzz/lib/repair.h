/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Put magic, sequence and checksums of a sequence of records right, so that what lies behind them is reached.
 * A length that cannot be ends it.
 */
#include <stddef.h>
#include <stdint.h>

/* @pages: what pages.img holds (of pagemap.img); NULL: nothing. */
void repair(uint8_t *p, size_t n, const uint8_t *pages, size_t n_pages);
