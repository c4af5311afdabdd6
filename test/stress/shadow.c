/* SPDX-License-Identifier: Apache-2.0 */
#include "shadow.h"

#include <string.h>

#include "base/util.h"

struct slot {
	uint64_t addr;
	char *data;
};

struct part { /* one process or object */
	uint32_t space;
	uint64_t id;
	struct slot
		*slot; /* by address; open addressing, nothing is ever taken out: `there` says what counts */
	size_t size, used;
	struct page_set there;
};

struct shadow {
	struct part *part;
	size_t n;
	struct shadow_counts counts;
};

struct shadow *shadow_new(void)
{
	return xcalloc(1, sizeof(struct shadow));
}

void shadow_free(struct shadow *s)
{
	for (size_t i = 0; s && i < s->n; i++) {
		for (size_t k = 0; k < s->part[i].size; k++)
			free(s->part[i].slot[k].data);
		free(s->part[i].slot);
		page_set_deinit(&s->part[i].there);
	}
	if (s)
		free(s->part);
	free(s);
}

static struct part *find(const struct shadow *s, uint32_t space, uint64_t id)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->part[i].space == space && s->part[i].id == id)
			return &s->part[i];
	return NULL;
}

static struct part *part_of(struct shadow *s, uint32_t space, uint64_t id)
{
	struct part *p = find(s, space, id);

	if (p)
		return p;
	s->part = xrealloc(s->part, (s->n + 1) * sizeof(*s->part));
	p = &s->part[s->n++];
	*p = (struct part){.space = space, .id = id, .size = 1024};
	p->slot = xcalloc(p->size, sizeof(*p->slot));
	return p;
}

static struct slot *slot_of(const struct part *p, uint64_t addr)
{
	size_t h = addr / PAGE_SIZE_BYTES * 0x9e3779b97f4a7c15ull >> 20;

	while (p->slot[h % p->size].data && p->slot[h % p->size].addr != addr)
		h++;
	return &p->slot[h % p->size];
}

static void grow(struct part *p)
{
	struct part old = *p;

	p->size *= 2;
	p->slot = xcalloc(p->size, sizeof(*p->slot));
	for (size_t i = 0; i < old.size; i++)
		if (old.slot[i].data)
			*slot_of(p, old.slot[i].addr) = old.slot[i];
	free(old.slot);
}

static void put(struct shadow *s, struct part *p, uint64_t addr, const void *page)
{
	if (p->used * 2 >= p->size)
		grow(p);
	struct slot *slot = slot_of(p, addr);

	s->counts.pages++;
	if (!slot->data) {
		slot->addr = addr;
		slot->data = xmalloc(PAGE_SIZE_BYTES);
		p->used++;
	} else if (page_set_has(&p->there, addr) && !memcmp(slot->data, page, PAGE_SIZE_BYTES)) {
		s->counts.same++;
	}
	memcpy(slot->data, page, PAGE_SIZE_BYTES);
	page_set_add(&p->there, addr, addr + PAGE_SIZE_BYTES);
}

static void drop(struct shadow *s, struct part *p, uint64_t start, uint64_t end)
{
	struct page_set range = PAGE_SET_INIT, gone = PAGE_SET_INIT;

	page_set_add(&range, start, end);
	page_set_and(&p->there, &range, &gone);
	s->counts.dropped += page_set_bytes(&gone) / PAGE_SIZE_BYTES;
	page_set_remove(&p->there, &gone);
	page_set_deinit(&range);
	page_set_deinit(&gone);
}

void shadow_apply(struct shadow *s, const struct page_run *run, const void *data)
{
	static const char zero[PAGE_SIZE_BYTES];
	struct part *p = part_of(s, run->space, run->id);

	if (run->flags & PAGE_RUN_DROP) {
		drop(s, p, run->addr, run->addr + run->length);
		return;
	}
	for (uint64_t i = 0; i < run->length; i += PAGE_SIZE_BYTES) {
		uint64_t a = run->addr + i;
		const void *page = run->flags & PAGE_RUN_ZERO   ? zero
				   : run->flags & PAGE_RUN_SAME ? shadow_page(s, run->space, run->from, a)
								: (const char *)data + i;

		if (page)
			put(s, p, a, page);
		else
			drop(s, p, a, a + PAGE_SIZE_BYTES);
	}
}

const void *shadow_page(const struct shadow *s, uint32_t space, uint64_t id, uint64_t addr)
{
	const struct part *p = find(s, space, id);

	return p && page_set_has(&p->there, addr) ? slot_of(p, addr)->data : NULL;
}

const struct page_set *shadow_set(const struct shadow *s, uint32_t space, uint64_t id)
{
	static const struct page_set none;
	const struct part *p = find(s, space, id);

	return p ? &p->there : &none;
}

struct shadow_counts shadow_counts(const struct shadow *s)
{
	return s->counts;
}
