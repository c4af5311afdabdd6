/* SPDX-License-Identifier: Apache-2.0 */
#include "procfs/btf.h"

#include <errno.h>
#include <linux/btf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define MAX_DEPTH 16 /* of structs in structs, and of typedefs */

#define KIND_DECL_TAG_ 17 /* linux/btf.h, by age */
#define KIND_TYPE_TAG_ 18
#define KIND_ENUM64_   19

static struct btf_type type_at(const uint8_t *p)
{
	struct btf_type t;

	memcpy(&t, p, sizeof(t));
	return t;
}

/* Bytes of a type, with what follows it; 0: not known. */
static size_t size_of_type(const struct btf_type *t)
{
	size_t n = BTF_INFO_VLEN(t->info);

	switch (BTF_INFO_KIND(t->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case KIND_DECL_TAG_:
		return sizeof(*t) + 4;
	case BTF_KIND_ARRAY:
		return sizeof(*t) + sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return sizeof(*t) + n * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return sizeof(*t) + n * sizeof(struct btf_enum);
	case BTF_KIND_FUNC_PROTO:
		return sizeof(*t) + n * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
	case KIND_ENUM64_:
		return sizeof(*t) + n * 12;
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case KIND_TYPE_TAG_:
		return sizeof(*t);
	default:
		return 0;
	}
}

static const char *string_at(const struct btf *b, uint32_t off)
{
	return off < b->strings_size ? b->strings + off : "";
}

static int index_types(struct btf *b)
{
	size_t cap = 1024;

	b->by_id = xcalloc(cap, sizeof(*b->by_id));
	b->n = 1;
	for (const uint8_t *p = b->types; p < b->types_end;) {
		if ((size_t)(b->types_end - p) < sizeof(struct btf_type))
			return -EPROTO;
		struct btf_type t = type_at(p);
		size_t size = size_of_type(&t);

		if (!size || size > (size_t)(b->types_end - p))
			return -EPROTO;
		if (b->n == cap) {
			cap *= 2;
			b->by_id = xrealloc(b->by_id, cap * sizeof(*b->by_id));
		}
		b->by_id[b->n++] = p;
		p += size;
	}
	return 0;
}

int btf_parse(struct btf *b, uint8_t *data, size_t size, struct error *e)
{
	struct btf_header h;

	*b = (struct btf){.data = data, .size = size};
	if (size >= sizeof(h))
		memcpy(&h, data, sizeof(h));
	if (size < sizeof(h) || h.magic != BTF_MAGIC || h.version != BTF_VERSION || h.hdr_len > size ||
	    h.type_off > size - h.hdr_len || h.type_len > size - h.hdr_len - h.type_off ||
	    h.str_off > size - h.hdr_len || h.str_len > size - h.hdr_len - h.str_off || !h.str_len ||
	    data[h.hdr_len + h.str_off + h.str_len - 1])
		return error_say(e, EPROTO, "the kernel's description of its types (BTF) is not understood");
	b->types = data + h.hdr_len + h.type_off;
	b->types_end = b->types + h.type_len;
	b->strings = (const char *)data + h.hdr_len + h.str_off;
	b->strings_size = h.str_len;
	return index_types(b) < 0 ? error_say(e, EPROTO,
					      "the kernel's description of its types (BTF) has a type that "
					      "is not understood (number %zu)",
					      b->n)
				  : 0;
}

void btf_deinit(struct btf *b)
{
	free(b->data);
	free(b->by_id);
	*b = (struct btf){0};
}

/* @id without typedefs and qualifiers; false: it is no type. */
static bool resolve(const struct btf *b, uint32_t id, struct btf_type *ret, const uint8_t **ret_at)
{
	for (int i = 0; i < MAX_DEPTH && id && id < b->n; i++) {
		*ret = type_at(b->by_id[id]);
		*ret_at = b->by_id[id];
		switch (BTF_INFO_KIND(ret->info)) {
		case BTF_KIND_TYPEDEF:
		case BTF_KIND_VOLATILE:
		case BTF_KIND_CONST:
		case BTF_KIND_RESTRICT:
		case KIND_TYPE_TAG_:
			id = ret->type;
			break;
		default:
			return true;
		}
	}
	return false;
}

static bool is_struct(const struct btf_type *t)
{
	return BTF_INFO_KIND(t->info) == BTF_KIND_STRUCT || BTF_INFO_KIND(t->info) == BTF_KIND_UNION;
}

static int find_member(const struct btf *b, const uint8_t *at, const char *path, int depth,
		       struct btf_field *ret);

/* What a path ends at, or goes on in. */
static int enter_member(const struct btf *b, const struct btf_member *m, bool kind_flag, const char *rest,
			int depth, struct btf_field *ret)
{
	uint32_t bit = kind_flag ? BTF_MEMBER_BIT_OFFSET(m->offset) : m->offset;
	struct btf_field inner = {0};
	const uint8_t *at;
	struct btf_type t;

	if (!resolve(b, m->type, &t, &at))
		return -ENOENT;
	if (rest) {
		int r = is_struct(&t) ? find_member(b, at, rest, depth + 1, &inner) : -ENOENT;

		if (r < 0)
			return r;
	} else if (BTF_INFO_KIND(t.info) == BTF_KIND_PTR) {
		inner.size = 8;
	} else if (!is_struct(&t) && BTF_INFO_KIND(t.info) != BTF_KIND_ARRAY && t.size <= 8) {
		inner.size = t.size;
	}
	if (!rest && kind_flag && BTF_MEMBER_BITFIELD_SIZE(m->offset)) {
		inner.bits = BTF_MEMBER_BITFIELD_SIZE(m->offset);
		inner.shift = bit % 8;
		inner.size = 8;
	}
	*ret = inner;
	ret->offset += bit / 8;
	return 0;
}

static int find_member(const struct btf *b, const uint8_t *at, const char *path, int depth,
		       struct btf_field *ret)
{
	struct btf_type t = type_at(at);
	size_t n = BTF_INFO_VLEN(t.info), length = strcspn(path, ".");
	const char *rest = path[length] ? path + length + 1 : NULL;

	if (depth > MAX_DEPTH)
		return -ENOENT;
	for (size_t i = 0; i < n; i++) {
		struct btf_member m;

		memcpy(&m, at + sizeof(t) + i * sizeof(m), sizeof(m));
		const char *name = string_at(b, m.name_off);

		if (*name ? strlen(name) != length || strncmp(name, path, length) != 0 : depth == MAX_DEPTH)
			continue;
		int r = enter_member(b, &m, BTF_INFO_KFLAG(t.info), *name ? rest : path, depth, ret);

		if (*name || r >= 0)
			return r;
	}
	return -ENOENT;
}

int btf_find(const struct btf *b, const char *type, const char *path, struct btf_field *ret)
{
	for (size_t i = 1; i < b->n; i++) {
		struct btf_type t = type_at(b->by_id[i]);

		if (BTF_INFO_KIND(t.info) == BTF_KIND_STRUCT && BTF_INFO_VLEN(t.info) &&
		    !strcmp(string_at(b, t.name_off), type))
			return find_member(b, b->by_id[i], path, 0, ret);
	}
	return -ENOENT;
}
