/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/show.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/util.h"
#include "proto/image.pb-c.h"
#include "stream/in.h"
#include "stream/show_message.h"

/* Runs of one process, object or file. */
struct total {
	uint32_t space;
	uint64_t id;
	uint64_t runs, bytes, zero_bytes, drop_bytes, same_bytes;
};

struct show {
	const struct show_options *options;
	FILE *out;
	struct total *totals;
	size_t n_totals;
	size_t records, runs; /* printed so far */
};

static const char *const spaces[] = {"process", "object", "file"};

static const ProtobufCMessageDescriptor *find_descriptor(const struct show_options *o, uint32_t type)
{
	switch (type) {
	case FERRY__RECORD_TYPE__RECORD_INVENTORY:
		return &ferry__inventory__descriptor;
	case FERRY__RECORD_TYPE__RECORD_TREE:
		return &ferry__tree__descriptor;
	case FERRY__RECORD_TYPE__RECORD_LEFT:
		return &ferry__left__descriptor;
	default:
		return o->descriptor ? o->descriptor(type) : NULL;
	}
}

static void hex_id(const uint8_t id[16], char ret[33])
{
	for (int i = 0; i < 16; i++)
		snprintf(ret + 2 * i, 3, "%02x", id[i]);
}

static json_t *image_json(const struct stream_in *s)
{
	char id[33], parent_id[33];

	hex_id(s->header.id, id);
	hex_id(s->header.parent_id, parent_id);
	json_t *j = json_pack("{s:i,s:s,s:b,s:b,s:b}", "version", STREAM_VERSION, "id", id, "state",
			      s->state_fd >= 0, "memory", s->has_memory, "pages_elsewhere",
			      !!(s->header.flags & WIRE_PAGES_ELSEWHERE));

	if (*s->header.parent) {
		json_object_set_new(j, "parent", show_string(s->header.parent));
		json_object_set_new(j, "parent_id", json_string(parent_id));
	}
	return j;
}

static void print_json(struct show *w, json_t *j)
{
	json_dumpf(j, w->out, JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(j);
}

static int message_json(struct show *w, const struct record *r, json_t **ret, struct error *e)
{
	const ProtobufCMessageDescriptor *d = find_descriptor(w->options, r->type);
	bool brief = !w->options->json;
	ProtobufCMessage *m;

	if (!d) {
		*ret = json_pack("{s:o}", "unknown", show_bytes(r->payload, r->size, brief));
		return 0;
	}
	int rc = record_unpack(r, d, &m, e);

	if (rc < 0)
		return rc;
	*ret = show_message(m, brief);
	protobuf_c_message_free_unpacked(m, NULL);
	return 0;
}

static int show_record(struct show *w, const struct record *r, struct error *e)
{
	const char *name = wire_type_name(r->type);
	json_t *message;
	int rc = message_json(w, r, &message, e);

	if (rc < 0)
		return rc;
	if (w->options->json) {
		fputs(w->records++ ? ",\n" : "\n", w->out);
		print_json(w, json_pack("{s:s,s:i,s:i,s:b,s:o}", "type", name, "pid", r->pid, "tid", r->tid,
					"warm", !!(r->flags & RECORD_WARM), "message", message));
		return 0;
	}
	fprintf(w->out, "\n%s", name);
	if (r->pid)
		fprintf(w->out, " of process %d", r->pid);
	if (r->tid)
		fprintf(w->out, ", thread %d", r->tid);
	fputs(r->flags & RECORD_WARM ? " (warm)\n" : "\n", w->out);
	show_text(message, 1, w->out);
	json_decref(message);
	return 0;
}

static struct total *find_total(struct show *w, const struct page_run *r)
{
	for (size_t i = w->n_totals; i--;)
		if (w->totals[i].space == r->space && w->totals[i].id == r->id)
			return &w->totals[i];
	w->totals = xrealloc(w->totals, (w->n_totals + 1) * sizeof(*w->totals));
	w->totals[w->n_totals] = (struct total){.space = r->space, .id = r->id};
	return &w->totals[w->n_totals++];
}

static void show_run(struct show *w, const struct page_run *r)
{
	struct total *t = find_total(w, r);
	const char *kind = r->flags & PAGE_RUN_ZERO   ? "zero"
			   : r->flags & PAGE_RUN_DROP ? "drop"
			   : r->flags & PAGE_RUN_SAME ? "same"
						      : "data";
	char addr[24];

	t->runs++;
	if (r->flags & PAGE_RUN_ZERO)
		t->zero_bytes += r->length;
	else if (r->flags & PAGE_RUN_DROP)
		t->drop_bytes += r->length;
	else if (r->flags & PAGE_RUN_SAME)
		t->same_bytes += r->length;
	else
		t->bytes += r->length;
	if (!w->options->verbose)
		return;
	snprintf(addr, sizeof(addr), "0x%" PRIx64, r->addr);
	if (w->options->json) {
		fputs(w->runs++ ? ",\n" : "],\n\"runs\":[\n", w->out);
		json_t *j =
			json_pack("{s:s,s:I,s:s,s:I,s:s}", "space", spaces[r->space], "id", (json_int_t)r->id,
				  "addr", addr, "length", (json_int_t)r->length, "kind", kind);

		if (r->from)
			json_object_set_new(j, "from", json_integer((json_int_t)r->from));
		print_json(w, j);
		return;
	}
	if (!w->runs++)
		fputs("\nPage runs\n", w->out);
	fprintf(w->out, "  %s %" PRIu64 " %s %" PRIu64 " %s", spaces[r->space], r->id, addr, r->length, kind);
	if (r->from)
		fprintf(w->out, " as process %" PRIu64, r->from);
	fputc('\n', w->out);
}

static void show_totals(struct show *w)
{
	bool json = w->options->json;

	fputs(json ? "],\n\"pages\":[" : w->n_totals ? "\nPages\n" : "", w->out);
	for (size_t i = 0; i < w->n_totals; i++) {
		const struct total *t = &w->totals[i];

		if (json) {
			fputs(i ? ",\n" : "\n", w->out);
			print_json(w, json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I}", "space", spaces[t->space],
						"id", (json_int_t)t->id, "runs", (json_int_t)t->runs, "bytes",
						(json_int_t)t->bytes, "zero_bytes", (json_int_t)t->zero_bytes,
						"drop_bytes", (json_int_t)t->drop_bytes, "same_bytes",
						(json_int_t)t->same_bytes));
			continue;
		}
		fprintf(w->out, "  %s %" PRIu64 ": %" PRIu64 " runs, %" PRIu64 " KiB", spaces[t->space],
			t->id, t->runs, t->bytes / 1024);
		if (t->zero_bytes)
			fprintf(w->out, ", %" PRIu64 " KiB of zeros", t->zero_bytes / 1024);
		if (t->drop_bytes)
			fprintf(w->out, ", %" PRIu64 " KiB dropped", t->drop_bytes / 1024);
		if (t->same_bytes)
			fprintf(w->out, ", %" PRIu64 " KiB shared", t->same_bytes / 1024);
		fputc('\n', w->out);
	}
	fputs(json ? "]}\n" : "", w->out);
}

static int show_all(struct show *w, struct stream_in *s, struct error *e)
{
	json_t *image = image_json(s);
	struct record r;
	int rc;

	if (w->options->json) {
		fputs("{\"image\":", w->out);
		print_json(w, image);
		fputs(",\n\"records\":[", w->out);
	} else {
		fputs("Image\n", w->out);
		show_text(image, 1, w->out);
		json_decref(image);
	}
	while ((rc = stream_get(s, &r, e)) > 0) {
		if (r.is_pages) {
			show_run(w, &r.run);
			continue;
		}
		rc = show_record(w, &r, e);
		if (rc < 0)
			return rc;
	}
	if (rc == 0)
		show_totals(w);
	return rc;
}

int show_image(int dirfd, const struct show_options *o, FILE *out, struct error *e)
{
	struct show w = {.options = o, .out = out};
	struct stream_in *s;
	int rc = image_in_open(&s, dirfd, IMAGE_PARTIAL | IMAGE_NO_DATA, e);

	if (rc < 0)
		return rc;
	rc = show_all(&w, s, e);
	stream_in_free(s);
	free(w.totals);
	if (rc == 0 && (fflush(out) != 0 || ferror(out)))
		rc = error_set(e, errno ? errno : EIO, "output");
	return rc;
}
