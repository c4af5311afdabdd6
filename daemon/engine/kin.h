/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Who is cloned from whom, and what of its memory can come with it (docs/cow-sharing.md).  The same at the
 * source, which sends pages accordingly, and in a restore from disk.
 */
#include "proto/image.pb-c.h"
#include "proto/memory.pb-c.h"
#include "stream/stream.h"

/* Put the processes of @tree into the order in which they are made: parents and holders before the others,
 * children who stay in a session that their parent left before its other children, older before younger.
 * @mm: their layouts, NULL for those without; put into the same order. Returns an array parallel to that:
 * holder and inheritable memory of each. */
struct stream_kin *kin_plan(Ferry__Tree *tree, const Ferry__Mm **mm);
void kin_free(struct stream_kin *k, size_t n);
