/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can an xstate of another machine be loaded here?  The buffer is uncompacted: each component lies at an
 * offset that the CPU model chooses, except x87, SSE and AVX, whose places are fixed by the architecture. The
 * kernel does not tell the offsets of another machine, but machines whose offsets differ also differ in total
 * size or in their features; so equal size means equal layout, and with a different size only the fixed
 * components may be in use.
 */
#include "arch/arch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define XSTATE_BV_OFFSET 512 /* of the xsave header: components in use */
#define XSTATE_MIN       576 /* legacy area and header */
#define XSTATE_AVX_END   832
#define XFEATURES_FIXED  0x7ull /* x87, SSE, AVX */

static const char *const features[] = {
	"x87", "SSE", "AVX", "MPX", "MPX", "AVX-512", "AVX-512", "AVX-512", "PT", "protection keys",
};

static const char *feature_name(uint64_t bit)
{
	unsigned i = __builtin_ctzll(bit);

	if (i == 17 || i == 18)
		return "AMX";
	return i < sizeof(features) / sizeof(features[0]) ? features[i] : "an unnamed extension";
}

int arch_xstate_check(const void *xstate, size_t size, char *why, size_t why_size)
{
	uint64_t here, used;
	size_t size_here;

	if (size < XSTATE_MIN) {
		snprintf(why, why_size, "its extended state is cut short (%zu bytes)", size);
		return -EOPNOTSUPP;
	}
	arch_xstate_features(&here, &size_here);
	memcpy(&used, (const char *)xstate + XSTATE_BV_OFFSET, sizeof(used));
	if (used & ~here) {
		snprintf(why, why_size, "it uses %s registers, which this CPU does not have",
			 feature_name((used & ~here) & -(used & ~here)));
		return -EOPNOTSUPP;
	}
	if (size == size_here)
		return 0;
	if (!(used & ~XFEATURES_FIXED) && size_here >= XSTATE_MIN &&
	    (!(used & 4) || (size >= XSTATE_AVX_END && size_here >= XSTATE_AVX_END)))
		return 0;
	snprintf(why, why_size, "its extended state has another layout (%zu bytes, here %zu)", size,
		 size_here);
	return -EOPNOTSUPP;
}
