/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/show_message.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"

#define BRIEF_BYTES 32

/* Fields of these names hold addresses or bits, better read in hex. */
static bool is_hex(const ProtobufCFieldDescriptor *f)
{
	static const char *const names[] = {"start",  "end",     "addr", "address", "brk", "flags",    "mask",
					    "guards", "sigmask", "mode", "offset",  "sp",  "task_size"};
	static const char *const prefixes[] = {"start_", "end_", "arg_", "env_"};
	static const char *const suffixes[] = {"_addr", "_address", "_flags", "_mask"};
	size_t n = strlen(f->name);

	if (f->type == PROTOBUF_C_TYPE_FIXED64 || f->type == PROTOBUF_C_TYPE_FIXED32)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(f->name, names[i]) == 0)
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (strncmp(f->name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
		if (n > strlen(suffixes[i]) && strcmp(f->name + n - strlen(suffixes[i]), suffixes[i]) == 0)
			return true;
	return false;
}

json_t *show_bytes(const void *p, size_t n, bool brief)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = p;
	size_t shown = brief ? MIN(n, BRIEF_BYTES) : n, k = 0;
	cleanup_free char *s = xmalloc(shown * 3 + 64);

	if (brief)
		k = sprintf(s, "%zu bytes", n);
	for (size_t i = 0; i < shown; i++) {
		if (brief && i % 8 == 0)
			s[k++] = ' ';
		s[k++] = digits[b[i] >> 4];
		s[k++] = digits[b[i] & 15];
	}
	s[k] = 0;
	if (shown < n)
		strcpy(s + k, " ...");
	return json_string(s);
}

/* Names of files and programs are bytes; JSON wants UTF-8. */
json_t *show_string(const char *s)
{
	json_t *j = json_string(s ? s : "");

	if (j)
		return j;
	cleanup_free char *q = xmalloc(strlen(s) * 4 + 1);
	char *p = q;

	for (; *s; s++)
		p += *s & 0x80 ? sprintf(p, "\\x%02x", (uint8_t)*s) : sprintf(p, "%c", *s);
	return json_string(q);
}

static json_t *integer(const ProtobufCFieldDescriptor *f, uint64_t v, bool negative)
{
	char s[32];

	if (!is_hex(f) && (negative || v <= INT64_MAX))
		return json_integer((json_int_t)v);
	snprintf(s, sizeof(s), "0x%" PRIx64, v);
	return json_string(s);
}

static json_t *enum_value(const ProtobufCEnumDescriptor *d, int v)
{
	const ProtobufCEnumValue *e = protobuf_c_enum_descriptor_get_value(d, v);

	return e ? json_string(e->name) : json_integer(v);
}

static size_t element_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 4;
	}
}

/* One value at @p. NULL: a message that is not there. */
static json_t *value(const ProtobufCFieldDescriptor *f, const void *p, bool brief)
{
	const ProtobufCBinaryData *bytes = p;
	const ProtobufCMessage *m;

	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return integer(f, (uint64_t)(int64_t) * (const int32_t *)p, *(const int32_t *)p < 0);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return integer(f, (uint64_t) * (const int64_t *)p, *(const int64_t *)p < 0);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return integer(f, *(const uint32_t *)p, false);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return integer(f, *(const uint64_t *)p, false);
	case PROTOBUF_C_TYPE_FLOAT:
		return json_real(*(const float *)p);
	case PROTOBUF_C_TYPE_DOUBLE:
		return json_real(*(const double *)p);
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)p);
	case PROTOBUF_C_TYPE_ENUM:
		return enum_value(f->descriptor, *(const int *)p);
	case PROTOBUF_C_TYPE_STRING:
		return show_string(*(const char *const *)p);
	case PROTOBUF_C_TYPE_BYTES:
		return show_bytes(bytes->data, bytes->len, brief);
	case PROTOBUF_C_TYPE_MESSAGE:
		memcpy(&m, p, sizeof(m));
		return m ? show_message(m, brief) : NULL;
	}
	return NULL;
}

static bool is_default(const ProtobufCFieldDescriptor *f, const void *p)
{
	const ProtobufCBinaryData *bytes = p;
	const char *s;

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		memcpy(&s, p, sizeof(s));
		return !s || !*s;
	case PROTOBUF_C_TYPE_BYTES:
		return !bytes->len;
	case PROTOBUF_C_TYPE_MESSAGE:
	case PROTOBUF_C_TYPE_ENUM: /* its zero has a name that says something */
		return false;
	default: {
		static const uint8_t zero[8];

		return memcmp(p, zero, element_size(f)) == 0;
	}
	}
}

static json_t *repeated(const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m, bool brief)
{
	const uint8_t *base = (const uint8_t *)m;
	size_t n = *(const size_t *)(base + f->quantifier_offset);
	const uint8_t *items = *(const uint8_t *const *)(base + f->offset);
	json_t *array = NULL;

	if (!n && brief)
		return NULL;
	array = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, value(f, items + i * element_size(f), brief));
	return array;
}

static bool is_present(const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m)
{
	const uint8_t *base = (const uint8_t *)m;

	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)(base + f->quantifier_offset) == f->id;
	if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->quantifier_offset &&
	    f->type != PROTOBUF_C_TYPE_MESSAGE && f->type != PROTOBUF_C_TYPE_STRING)
		return *(const protobuf_c_boolean *)(base + f->quantifier_offset);
	return true;
}

json_t *show_message(const ProtobufCMessage *m, bool brief)
{
	json_t *object = json_object();

	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const void *p = (const uint8_t *)m + f->offset;
		json_t *v = NULL;

		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			v = repeated(f, m, brief);
		else if (is_present(f, m) && !(brief && is_default(f, p)))
			v = value(f, p, brief);
		if (v)
			json_object_set_new(object, f->name, v);
	}
	return object;
}

/* --- text ------------------------------------------------------------------------------------------------
 */

static void print_string(const char *s, FILE *out)
{
	for (; *s; s++) {
		if ((uint8_t)*s < ' ' || *s == 127)
			fprintf(out, "\\x%02x", (uint8_t)*s);
		else
			fputc(*s, out);
	}
}

static bool is_scalar(const json_t *j)
{
	return !json_is_object(j) && !json_is_array(j);
}

static void print_scalar(const json_t *j, FILE *out)
{
	if (json_is_string(j))
		print_string(json_string_value(j), out);
	else if (json_is_integer(j))
		fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
	else if (json_is_real(j))
		fprintf(out, "%g", json_real_value(j));
	else
		fputs(json_is_true(j) ? "yes" : "no", out);
}

/* An object whose members are all scalars fits on a line: most elements of lists are like that. */
static bool is_flat(const json_t *j)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)j, key, v) if (!is_scalar(v)) return false;
	return true;
}

static void print_flat(const json_t *object, FILE *out)
{
	const char *key, *between = "";
	json_t *v;

	json_object_foreach((json_t *)object, key, v)
	{
		fprintf(out, "%s%s ", between, key);
		print_scalar(v, out);
		between = ", ";
	}
}

static void print_indent(int indent, FILE *out)
{
	for (int i = 0; i < indent; i++)
		fputs("  ", out);
}

static void print_array(const json_t *array, int indent, FILE *out)
{
	size_t i;
	json_t *v;

	if (!json_array_size(array) || is_scalar(json_array_get(array, 0))) {
		json_array_foreach((json_t *)array, i, v)
		{
			fputc(' ', out);
			print_scalar(v, out);
		}
		fputc('\n', out);
		return;
	}
	fputc('\n', out);
	json_array_foreach((json_t *)array, i, v)
	{
		print_indent(indent, out);
		fputs("- ", out);
		if (is_flat(v)) {
			print_flat(v, out);
			fputc('\n', out);
		} else {
			fputc('\n', out);
			show_text(v, indent + 1, out);
		}
	}
}

void show_text(const json_t *object, int indent, FILE *out)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)object, key, v)
	{
		print_indent(indent, out);
		fprintf(out, "%s:", key);
		if (json_is_array(v)) {
			print_array(v, indent + 1, out);
		} else if (json_is_object(v)) {
			fputc('\n', out);
			show_text(v, indent + 1, out);
		} else {
			fputc(' ', out);
			print_scalar(v, out);
			fputc('\n', out);
		}
	}
}
