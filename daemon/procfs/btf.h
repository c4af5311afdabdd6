/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Where the members of the running kernel's structs are: its own description of its types (BTF, as in
 * /sys/kernel/btf/vmlinux; Documentation/bpf/btf.rst of the kernel).
 */
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct btf {
	uint8_t *data; /* owned */
	size_t size;
	const uint8_t *types, *types_end;
	const char *strings;
	size_t strings_size;
	const uint8_t **by_id; /* owned; [0] is void */
	size_t n;
};

struct btf_field {
	uint32_t offset; /* bytes */
	uint32_t size;   /* bytes, of a number or pointer (1 to 8); else 0 */
	uint32_t shift;  /* of a bit field: its first bit, from the one at offset on */
	uint32_t bits;   /* of a bit field, else 0 */
};

/* Takes ownership of @data (malloc'ed), also when it fails. */
int btf_parse(struct btf *b, uint8_t *data, size_t size, struct error *e);
void btf_deinit(struct btf *b);
/* Member @path ("a.b.c", those of nameless structs count as their parent's) of struct @type. -ENOENT: there
 * is none. */
int btf_find(const struct btf *b, const char *type, const char *path, struct btf_field *ret);
