/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/codec.h"

#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>

#include "base/util.h"

#define ZSTD_LEVEL 1 /* the next ones cost twice the time for a few percent */

struct codec_state {
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
};

const char *codec_name(enum codec c)
{
	static const char *const names[] = {"none", "lz4", "zstd"};

	return names[c];
}

void codec_state_free(struct codec_state *s)
{
	if (!s)
		return;
	ZSTD_freeCCtx(s->pack);
	ZSTD_freeDCtx(s->unpack);
	free(s);
}

static struct codec_state *get(struct codec_state **state)
{
	if (!*state)
		*state = xcalloc(1, sizeof(**state));
	return *state;
}

static size_t pack_zstd(struct codec_state *s, const void *data, size_t size, void *packed, size_t room)
{
	if (!s->pack)
		s->pack = ZSTD_createCCtx();
	size_t n = s->pack ? ZSTD_compressCCtx(s->pack, packed, room, data, size, ZSTD_LEVEL) : 0;

	return ZSTD_isError(n) ? 0 : n;
}

size_t codec_pack(struct codec_state **state, enum codec c, const void *data, size_t size, void *packed,
		  size_t room)
{
	int n;

	if (size > LZ4_MAX_INPUT_SIZE || room > INT_MAX)
		return 0;
	switch (c) {
	case CODEC_LZ4:
		n = LZ4_compress_default(data, packed, (int)size, (int)room);
		return n > 0 ? (size_t)n : 0;
	case CODEC_ZSTD:
		return pack_zstd(get(state), data, size, packed, room);
	default:
		return 0;
	}
}

static int unpack_zstd(struct codec_state *s, const void *packed, size_t packed_size, void *data, size_t size)
{
	if (!s->unpack)
		s->unpack = ZSTD_createDCtx();
	if (!s->unpack)
		return -ENOMEM;
	/* An error is a very large number. */
	return ZSTD_decompressDCtx(s->unpack, data, size, packed, packed_size) == size ? 0 : -EBADMSG;
}

int codec_unpack(struct codec_state **state, enum codec c, const void *packed, size_t packed_size, void *data,
		 size_t size)
{
	if (size > INT_MAX || packed_size > INT_MAX)
		return -EBADMSG;
	switch (c) {
	case CODEC_LZ4:
		return LZ4_decompress_safe(packed, data, (int)packed_size, (int)size) == (int)size ? 0
												   : -EBADMSG;
	case CODEC_ZSTD:
		return unpack_zstd(get(state), packed, packed_size, data, size);
	default:
		return -EBADMSG;
	}
}
