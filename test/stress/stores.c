/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that write. */
#include <immintrin.h>
#include <string.h>
#include <sys/mman.h>

#include "ways.h"

static void setup_small(void)
{
	for (unsigned i = 0; i < 2; i++)
		memset(area(i, MAP_PRIVATE, -1, AREA_SIZE), 1, AREA_SIZE);
}

static void setup_huge(void)
{
	for (unsigned i = 0; i < 2; i++) {
		char *p = area(i, MAP_PRIVATE, -1, 2 * AREA_SIZE);

		madvise(p, 2 * AREA_SIZE, MADV_HUGEPAGE);
		memset(p, 1, 2 * AREA_SIZE);
	}
}

static void store(char *p)
{
	uint32_t v = rnd();

	switch (v % 4) {
	case 0:
		*(volatile uint8_t *)p += 1;
		break;
	case 1:
		*(volatile uint16_t *)p += 1;
		break;
	case 2:
		*(volatile uint32_t *)p += 1;
		break;
	default:
		*(volatile uint64_t *)p += 1;
		break;
	}
}

static void step_store(unsigned w)
{
	for (int i = 0; i < 4; i++)
		store(next_page(area_at(w), AREA_SIZE) + rnd() % (PAGE - 8));
	/* across a border of pages */
	*(volatile uint64_t *)(next_page(area_at(w), AREA_SIZE - PAGE) + PAGE - 4) += 0x100000001ull;
	pause_us(100);
}

static void step_huge(unsigned w)
{
	store(next_page(area_at(w), 2 * AREA_SIZE) + rnd() % (PAGE - 8));
	pause_us(100);
}

static void step_atomic(unsigned w)
{
	uint64_t *a = (uint64_t *)(next_page(area_at(w), AREA_SIZE) + rnd() % (PAGE / 8) * 8), old = *a;
	uint64_t *b = (uint64_t *)next_page(area_at(w), AREA_SIZE),
		 *c = (uint64_t *)next_page(area_at(w), AREA_SIZE);
	uint64_t *d = (uint64_t *)next_page(area_at(w), AREA_SIZE);

	__atomic_compare_exchange_n(a, &old, old + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(b, 1, __ATOMIC_SEQ_CST);
	__atomic_exchange_n(c, (uint64_t)rnd(), __ATOMIC_SEQ_CST);
	__atomic_fetch_xor(d, 1ull << rnd() % 64, __ATOMIC_SEQ_CST);
	__asm__ volatile("lock btcq %1, %0" : "+m"(*a) : "r"((uint64_t)rnd() % 64) : "cc", "memory");
	pause_us(100);
}

__attribute__((target("avx"))) static void stream_avx(char *p)
{
	_mm256_stream_si256((__m256i *)p, _mm256_set1_epi32((int)rnd()));
	_mm256_zeroupper();
}

static void step_nontemporal(unsigned w)
{
	if (__builtin_cpu_supports("avx"))
		stream_avx(next_page(area_at(w), AREA_SIZE) + rnd() % (PAGE / 32) * 32);
	_mm_stream_si128((__m128i *)(next_page(area_at(w), AREA_SIZE) + rnd() % (PAGE / 16) * 16),
			 _mm_set1_epi32((int)rnd()));
	_mm_stream_si64((long long *)next_page(area_at(w), AREA_SIZE), rnd());

	void *to = next_page(area_at(w), AREA_SIZE - PAGE) + rnd() % PAGE;
	uint64_t n = 1 + rnd() % PAGE;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(rnd()) : "memory");
	_mm_sfence();
	pause_us(100);
}

const struct way ways_stores[] = {
	{"store", 2, setup_small, step_store, NULL},
	{"huge", 2, setup_huge, step_huge, NULL},
	{"atomic", 2, setup_small, step_atomic, NULL},
	{"nontemporal", 2, setup_small, step_nontemporal, NULL},
	{0},
};
