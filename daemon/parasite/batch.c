/* SPDX-License-Identifier: Apache-2.0 */
#include "parasite/batch.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"

void batch_deinit(struct batch *b)
{
	free(b->entries);
	free(b->labels);
	free(b->data);
	memset(b, 0, sizeof(*b));
}

/* --- data ---------------------------------------------------------------------------------------- */

/* Large pieces are page aligned: they are what bulk transfers use. */
size_t batch_reserve(struct batch *b, size_t size)
{
	size_t align = size >= PAGE_SIZE_BYTES ? PAGE_SIZE_BYTES : 16;
	size_t off = (b->data_size + align - 1) & ~(align - 1);
	size_t end = off + size;

	if (end > b->data_cap) {
		b->data_cap = MAX(end, b->data_cap * 2);
		b->data_cap = MAX(b->data_cap, (size_t)1024);
		b->data = xrealloc(b->data, b->data_cap);
	}
	if (end > b->data_size) /* else there may be no data at all yet */
		memset(b->data + b->data_size, 0, end - b->data_size);
	b->data_size = end;
	return off;
}

size_t batch_put(struct batch *b, const void *p, size_t size)
{
	size_t off = batch_reserve(b, size);

	if (size)
		memcpy(b->data + off, p, size);
	return off;
}

size_t batch_put_str(struct batch *b, const char *s)
{
	return batch_put(b, s, strlen(s) + 1);
}

void *batch_data(struct batch *b, size_t off)
{
	assert(off <= b->data_size);
	return b->data + off;
}

/* --- entries ------------------------------------------------------------------------------------- */

unsigned batch_add(struct batch *b, const char *label, enum pb_op op, long nr, unsigned n_args,
		   const struct batch_arg *args)
{
	if (b->n == b->cap) {
		b->cap = b->cap ? b->cap * 2 : 16;
		b->entries = xrealloc(b->entries, b->cap * sizeof(*b->entries));
		b->labels = xrealloc(b->labels, b->cap * sizeof(*b->labels));
	}
	struct pb_entry *e = &b->entries[b->n];

	assert(n_args <= 6);
	*e = (struct pb_entry){.op = (uint16_t)op, .nr = (int32_t)nr};
	for (unsigned i = 0; i < n_args; i++) {
		e->kinds[i] = args[i].kind;
		e->args[i] = args[i].value;
	}
	b->labels[b->n] = label;
	return (unsigned)b->n++;
}

static void set_accept(struct batch *b, unsigned i, enum pb_accept accept, int64_t value)
{
	assert(i < b->n);
	b->entries[i].accept = (uint16_t)accept;
	b->entries[i].accept_value = value;
}

void batch_accept_any(struct batch *b, unsigned i)
{
	set_accept(b, i, PB_ACCEPT_ANY, 0);
}

void batch_accept_equal(struct batch *b, unsigned i, int64_t value)
{
	set_accept(b, i, PB_ACCEPT_EQUAL, value);
}

void batch_accept_errno(struct batch *b, unsigned i, int err)
{
	set_accept(b, i, PB_ACCEPT_OR, err);
}

void batch_opens_fd(struct batch *b, unsigned i)
{
	assert(i < b->n);
	b->entries[i].flags |= PB_FLAG_OPENS_FD;
	b->opens_fds = true;
}

void batch_store_result(struct batch *b, size_t off, unsigned i, unsigned width)
{
	batch_op(b, "store a result", PB_OP_STORE, ARG_DATA(off), ARG_RESULT(i), ARG(width));
}

/* --- afterwards ---------------------------------------------------------------------------------- */

int64_t batch_result(const struct batch *b, unsigned i)
{
	assert(i < b->n);
	return b->entries[i].result;
}

int batch_error(const struct batch *b, struct error *e)
{
	if (!b->failed || b->n_done >= b->n)
		return 0;
	size_t i = b->n_done;
	int64_t result = b->entries[i].result;

	if (result < 0 && result >= -4095)
		return error_set(e, (int)-result, "%s (step %zu of %zu)", b->labels[i], i + 1, b->n);
	return error_say(e, EPROTO, "%s (step %zu of %zu): result %lld where %lld was expected", b->labels[i],
			 i + 1, b->n, (long long)result, (long long)b->entries[i].accept_value);
}
