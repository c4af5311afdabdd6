/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program has one argument, an address: 0 asks for the task that calls, ~CPU for what the map of ours has
 * for that CPU, anything else is read from.  The last one is how per-CPU variables are found: the map knows
 * its address without the CPU, too, and the difference is the same for all of them.
 */
#include "procfs/peek.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define TYPES     "/sys/kernel/btf/vmlinux"
#define MAX_CPUS  8192
#define MAX_TYPES (64u << 20)

struct peek {
	struct btf types;
	int program, map;
	struct btf_field files, fdt, fds, private_data;      /* task_struct, files_struct, fdtable, file */
	struct btf_field thread_pid, level, numbers, nr, ns; /* task_struct, pid, upid */
	uint64_t own_level;                                  /* of our pid namespace */
	uint64_t files_at;                                   /* our struct files_struct */
	uint64_t *cpus;                                      /* what a per-CPU address is off by, there */
	size_t n_cpus;
};

struct question {
	uint64_t address, answer;
};

static int bpf(int cmd, union bpf_attr *a)
{
	return (int)syscall(SYS_bpf, cmd, a, sizeof(*a));
}

#define INSN(c, d, s, o, i)                                                         \
	{                                                                           \
		.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) \
	}
#define CALL(f) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, f)

static int load(struct peek *p)
{
	const struct bpf_insn program[] = {
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0),
		INSN(BPF_LDX | BPF_DW | BPF_MEM, 3, 6, offsetof(struct question, address), 0),
		/* 0: the task */
		INSN(BPF_JMP | BPF_JNE | BPF_K, 3, 0, 4, 0),
		CALL(BPF_FUNC_get_current_task),
		INSN(BPF_STX | BPF_DW | BPF_MEM, 6, 0, offsetof(struct question, answer), 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		/* ~CPU */
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 4, 3, 0, 0),
		INSN(BPF_ALU64 | BPF_XOR | BPF_K, 4, 0, 0, -1),
		INSN(BPF_JMP | BPF_JGE | BPF_K, 4, 0, 12, MAX_CPUS),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 3, 4, 0, 0),
		INSN(BPF_ST | BPF_W | BPF_MEM, 10, 0, -4, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4),
		INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, p->map),
		INSN(0, 0, 0, 0, 0),
		CALL(BPF_FUNC_map_lookup_percpu_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2, 0),
		INSN(BPF_STX | BPF_DW | BPF_MEM, 6, 0, offsetof(struct question, answer), 0),
		INSN(BPF_JMP | BPF_JA, 0, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		/* an address */
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, 1, 10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 0, -16),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, 8),
		CALL(BPF_FUNC_probe_read_kernel),
		INSN(BPF_LDX | BPF_DW | BPF_MEM, 1, 10, -16, 0),
		INSN(BPF_STX | BPF_DW | BPF_MEM, 6, 1, offsetof(struct question, answer), 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr a;

	memset(&a, 0, sizeof(a));
	a.prog_type = BPF_PROG_TYPE_SYSCALL;
	a.insns = (uintptr_t)program;
	a.insn_cnt = ARRAY_SIZE(program);
	a.license = (uintptr_t) "GPL"; /* of the program, which the kernel asks for reading its memory */
	a.prog_flags = BPF_F_SLEEPABLE;
	p->program = bpf(BPF_PROG_LOAD, &a);
	return p->program < 0 ? -errno : 0;
}

static int ask(const struct peek *p, uint64_t address, uint64_t *ret)
{
	struct question q = {address, 0};
	union bpf_attr a;

	memset(&a, 0, sizeof(a));
	a.test.prog_fd = (uint32_t)p->program;
	a.test.ctx_in = (uintptr_t)&q;
	a.test.ctx_size_in = sizeof(q);
	if (bpf(BPF_PROG_TEST_RUN, &a) < 0)
		return -errno;
	*ret = q.answer;
	return a.test.retval ? (int)a.test.retval : 0;
}

int peek_read(const struct peek *p, uint64_t addr, unsigned size, uint64_t *ret, struct error *e)
{
	int r = ask(p, addr, ret);

	if (r < 0)
		return error_set(e, -r, "reading the kernel's memory");
	if (size < 8)
		*ret &= (1ull << 8 * size) - 1;
	return 0;
}

int peek_field(const struct peek *p, uint64_t addr, const struct btf_field *f, uint64_t *ret, struct error *e)
{
	int r = peek_read(p, addr + f->offset, f->size ? f->size : 8, ret, e);

	if (r >= 0 && f->bits)
		*ret = *ret >> f->shift & ((1ull << f->bits) - 1);
	return r;
}

int peek_file(const struct peek *p, int fd, uint64_t *ret, struct error *e)
{
	uint64_t fdt = 0, array = 0;
	int r = peek_field(p, p->files_at, &p->fdt, &fdt, e);

	if (r >= 0)
		r = peek_field(p, fdt, &p->fds, &array, e);
	return r < 0 ? r : peek_read(p, array + 8 * (uint64_t)fd, 8, ret, e);
}

int peek_private(const struct peek *p, int fd, uint64_t *ret, struct error *e)
{
	uint64_t file = 0;
	int r = peek_file(p, fd, &file, e);

	return r < 0 ? r : peek_field(p, file, &p->private_data, ret, e);
}

int peek_task_id(const struct peek *p, uint64_t task, pid_t *ret, struct error *e)
{
	uint64_t pid = 0, level = 0, nr = 0, stride = p->ns.offset + 8; /* a pointer comes last */
	int r = peek_field(p, task, &p->thread_pid, &pid, e);

	if (r >= 0 && !pid)
		return error_say(e, ESRCH, "a task has ended");
	if (r >= 0)
		r = peek_field(p, pid, &p->level, &level, e);
	if (r >= 0 && level < p->own_level)
		return error_say(e, ESRCH, "a task of another pid namespace");
	if (r >= 0)
		r = peek_field(p, pid + p->numbers.offset + p->own_level * stride, &p->nr, &nr, e);
	*ret = (pid_t)nr;
	return r;
}

int peek_sum(const struct peek *p, uint64_t percpu, const struct btf_field *f, int64_t *ret, struct error *e)
{
	*ret = 0;
	for (size_t i = 0; i < p->n_cpus; i++) {
		uint64_t v = 0;
		int r = peek_field(p, percpu + p->cpus[i], f, &v, e);

		if (r < 0)
			return r;
		*ret += f->size == 4 ? (int32_t)v : (int64_t)v;
	}
	return 0;
}

static int find_types(struct peek *p, struct error *e)
{
	static const struct {
		const char *type, *path;
		size_t at;
	} wanted[] = {
		{"task_struct", "files", offsetof(struct peek, files)},
		{"files_struct", "fdt", offsetof(struct peek, fdt)},
		{"fdtable", "fd", offsetof(struct peek, fds)},
		{"file", "private_data", offsetof(struct peek, private_data)},
		{"task_struct", "thread_pid", offsetof(struct peek, thread_pid)},
		{"pid", "level", offsetof(struct peek, level)},
		{"pid", "numbers", offsetof(struct peek, numbers)},
		{"upid", "nr", offsetof(struct peek, nr)},
		{"upid", "ns", offsetof(struct peek, ns)},
	};

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (btf_find(&p->types, wanted[i].type, wanted[i].path,
			     (struct btf_field *)((char *)p + wanted[i].at)) < 0)
			return error_say(e, ENOTSUP, "the kernel has no %s.%s", wanted[i].type,
					 wanted[i].path);
	return 0;
}

static int find_cpus(struct peek *p, struct error *e)
{
	struct btf_field field;
	uint64_t map = 0, base = 0;
	int r = btf_find(&p->types, "bpf_array", "pptrs", &field);

	if (r < 0)
		return error_say(e, ENOTSUP, "the kernel has no bpf_array.pptrs");
	r = peek_private(p, p->map, &map, e);
	if (r >= 0)
		r = peek_read(p, map + field.offset, 8, &base, e);
	p->cpus = xcalloc(MAX_CPUS, sizeof(*p->cpus));
	for (uint64_t cpu = 0; cpu < MAX_CPUS && r >= 0; cpu++) {
		uint64_t at = 0;

		if (ask(p, ~cpu, &at) < 0 || !at) /* of a number that is none the map knows nothing */
			continue;
		p->cpus[p->n_cpus++] = at - base;
	}
	return r >= 0 && !p->n_cpus ? error_say(e, EIO, "the kernel's per-CPU variables cannot be found") : r;
}

static int make(struct peek *p, struct error *e)
{
	char *types = NULL;
	ssize_t n = read_file(TYPES, &types);
	union bpf_attr a;
	uint64_t task = 0;

	if (n < 0 || n > MAX_TYPES) {
		free(types);
		return error_set(e, n < 0 ? -(int)n : EFBIG, "reading %s", TYPES);
	}
	int r = btf_parse(&p->types, (uint8_t *)types, n, e);

	if (r < 0)
		return r;
	r = find_types(p, e);
	if (r < 0)
		return r;
	memset(&a, 0, sizeof(a));
	a.map_type = BPF_MAP_TYPE_PERCPU_ARRAY;
	a.key_size = 4;
	a.value_size = 8;
	a.max_entries = 1;
	p->map = bpf(BPF_MAP_CREATE, &a);
	r = p->map < 0 ? -errno : load(p);
	if (r >= 0)
		r = ask(p, 0, &task);
	if (r < 0)
		return error_set(e, -r, "reading the kernel's memory with BPF");
	uint64_t pid = 0;

	r = peek_field(p, task, &p->files, &p->files_at, e);
	if (r >= 0)
		r = peek_field(p, task, &p->thread_pid, &pid, e);
	if (r >= 0)
		r = peek_field(p, pid, &p->level, &p->own_level, e);
	return r < 0 ? r : find_cpus(p, e);
}

struct peek *peek_get(struct error *e)
{
	static struct peek *known;
	static pid_t owner;

	if (known && owner == getpid())
		return known;
	struct peek *p = xcalloc(1, sizeof(*p));

	p->program = p->map = -1;
	if (make(p, e) < 0) {
		if (p->program >= 0)
			close(p->program);
		if (p->map >= 0)
			close(p->map);
		btf_deinit(&p->types);
		free(p->cpus);
		free(p);
		return NULL;
	}
	known = p;
	owner = getpid();
	return p;
}

const struct btf *peek_types(const struct peek *p)
{
	return &p->types;
}
