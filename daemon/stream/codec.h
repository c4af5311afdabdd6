/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Packing the page data of one record, and back: docs/image-format.md, 4. */
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* What a record is packed with. */
enum codec {
	CODEC_NONE,
	CODEC_LZ4,
	CODEC_ZSTD,
	CODECS,
};
#define CODEC_BIT(c) (1u << (c))
/* All that this ferry can read. */
#define CODECS_KNOWN (CODEC_BIT(CODEC_LZ4) | CODEC_BIT(CODEC_ZSTD))

const char *codec_name(enum codec c);

/* What packing and unpacking keep between two calls. */
struct codec_state;
void codec_state_free(struct codec_state *s); /* NULL is fine */

/* Pack @size bytes into at most @room. Returns the packed size; 0: it does not fit. *@state is made if need
 * be. */
size_t codec_pack(struct codec_state **state, enum codec c, const void *data, size_t size, void *packed,
		  size_t room);
/* Exactly @size bytes must come out: 0 or -EBADMSG (without a text). @packed is not trusted. */
int codec_unpack(struct codec_state **state, enum codec c, const void *packed, size_t packed_size, void *data,
		 size_t size);
