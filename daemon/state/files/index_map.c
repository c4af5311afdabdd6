/* SPDX-License-Identifier: Apache-2.0 */
#include "base/util.h"
#include "state/files/files.h"

static uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t h = (a ^ (b * 0x9e3779b97f4a7c15u)) * 0xbf58476d1ce4e5b9u;

	h ^= h >> 29;
	h *= 0x94d049bb133111ebu;
	return h ^ (h >> 32);
}

static struct index_slot *slot_of(const struct index_map *m, uint64_t a, uint64_t b)
{
	for (size_t i = mix(a, b) & (m->size - 1);; i = (i + 1) & (m->size - 1)) {
		struct index_slot *s = &m->slots[i];

		if (!s->value || (s->a == a && s->b == b))
			return s;
	}
}

static void grow(struct index_map *m)
{
	struct index_map next = {.size = m->size ? m->size * 2 : 64, .n = m->n};

	next.slots = xcalloc(next.size, sizeof(*next.slots));
	for (size_t i = 0; i < m->size; i++)
		if (m->slots[i].value)
			*slot_of(&next, m->slots[i].a, m->slots[i].b) = m->slots[i];
	free(m->slots);
	*m = next;
}

uint32_t *index_map_at(struct index_map *m, uint64_t a, uint64_t b)
{
	if (m->n * 2 >= m->size)
		grow(m);
	struct index_slot *s = slot_of(m, a, b);

	if (!s->value) {
		s->a = a;
		s->b = b;
		m->n++; /* the caller is about to fill it */
	}
	return &s->value;
}

uint32_t index_map_find(const struct index_map *m, uint64_t a, uint64_t b)
{
	return m->size ? slot_of(m, a, b)->value : 0;
}

void index_map_deinit(struct index_map *m)
{
	free(m->slots);
	*m = (struct index_map){0};
}
