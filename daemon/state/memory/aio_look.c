/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel knows of contexts of asynchronous I/O: which a process has, and how many requests of each
 * are under way.  Read from its structs (procfs/peek.h): a request has a reference to its context
 * (kioctx.reqs) until it has ended altogether, its eventfd told included.  The counter has a part per CPU;
 * once the program is frozen these only go down, so a sum of nothing is nothing, also when it is taken
 * meanwhile.
 */
#include <errno.h>

#include "base/util.h"
#include "procfs/peek.h"
#include "state/memory/aio.h"

#define MAX_CONTEXTS 100000
#define REF_MARKS    3u /* low bits of a percpu_ref's pointer: it does not count per CPU any more */

enum field {
	TABLE,
	TABLE_N,
	TABLE_SLOTS,
	ADDR,
	LENGTH,
	MAX_REQUESTS,
	EVENTS,
	TAIL,
	REQUESTS,
	FIELDS,
};

static const struct {
	const char *type, *path;
} names[FIELDS] = {
	[TABLE] = {"mm_struct", "ioctx_table"},
	[TABLE_N] = {"kioctx_table", "nr"},
	[TABLE_SLOTS] = {"kioctx_table", "table"},
	[ADDR] = {"kioctx", "user_id"},
	[LENGTH] = {"kioctx", "mmap_size"},
	[MAX_REQUESTS] = {"kioctx", "max_reqs"},
	[EVENTS] = {"kioctx", "nr_events"},
	[TAIL] = {"kioctx", "tail"},
	[REQUESTS] = {"kioctx", "reqs.percpu_count_ptr"},
};

static struct btf_field fields[FIELDS];

static const struct peek *prepare(struct error *e)
{
	static bool ready;
	const struct peek *p = peek_get(e);

	if (!p) {
		error_prefix(
			e, "the kernel tells of asynchronous I/O (io_setup) only to who can read its memory");
		return NULL;
	}
	for (size_t i = 0; i < FIELDS && !ready; i++)
		if (btf_find(peek_types(p), names[i].type, names[i].path, &fields[i]) < 0) {
			error_say(e, ENOTSUP,
				  "asynchronous I/O (io_setup) of this kernel is not understood: it has no "
				  "%s.%s",
				  names[i].type, names[i].path);
			return NULL;
		}
	ready = true;
	return p;
}

static int look_at(const struct peek *p, uint64_t at, struct aio_context *ret, struct error *e)
{
	static const struct btf_field one = {.size = 8};
	uint64_t requests = 0;
	struct {
		enum field field;
		uint64_t *to;
	} wanted[] = {{ADDR, &ret->addr}, {LENGTH, &ret->length}, {MAX_REQUESTS, &ret->max_requests},
		      {EVENTS, &ret->nr}, {TAIL, &ret->tail},     {REQUESTS, &requests}};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(wanted) && r >= 0; i++)
		r = peek_field(p, at, &fields[wanted[i].field], wanted[i].to, e);
	if (r >= 0 && requests & REF_MARKS)
		return error_say(e, EAGAIN, "its context of asynchronous I/O at 0x%llx is being destroyed",
				 (unsigned long long)ret->addr);
	if (r >= 0)
		r = peek_sum(p, requests, &one, &ret->in_flight, e);
	if (r >= 0 && --ret->in_flight < 0) /* one is the context's own */
		return error_say(e, EIO, "the requests of asynchronous I/O at 0x%llx cannot be counted",
				 (unsigned long long)ret->addr);
	return r;
}

int aio_look(int mem_fd, struct aio_context **ret, size_t *ret_n, struct error *e)
{
	const struct peek *p = prepare(e);
	uint64_t mm = 0, table = 0, n = 0;
	struct aio_context *v = NULL;
	size_t found = 0;

	if (!p)
		return -e->code;
	int r = peek_private(p, mem_fd, &mm, e);

	if (r >= 0)
		r = peek_field(p, mm, &fields[TABLE], &table, e);
	if (r >= 0 && table)
		r = peek_field(p, table, &fields[TABLE_N], &n, e);
	if (r >= 0 && n > MAX_CONTEXTS)
		r = error_say(e, EIO, "%llu contexts of asynchronous I/O cannot be", (unsigned long long)n);
	for (uint64_t i = 0; i < n && r >= 0; i++) {
		uint64_t at = 0;

		r = peek_read(p, table + fields[TABLE_SLOTS].offset + 8 * i, 8, &at, e);
		if (r < 0 || !at)
			continue;
		v = xrealloc(v, (found + 1) * sizeof(*v));
		v[found] = (struct aio_context){0};
		r = look_at(p, at, &v[found++], e);
	}
	if (r < 0) {
		free(v);
		return r;
	}
	*ret = v;
	*ret_n = found;
	return 0;
}
