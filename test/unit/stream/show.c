/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include <jansson.h>

#include "proto/memory.pb-c.h"
#include "stream/show.h"

static const ProtobufCMessageDescriptor *descriptor(uint32_t type)
{
	return type == FERRY__RECORD_TYPE__RECORD_MM ? &ferry__mm__descriptor : NULL;
}

static void make_image(int fd)
{
	struct error e = ERROR_INIT;
	struct stream_out *out;
	Ferry__Mm mm = FERRY__MM__INIT;
	Ferry__Vma vma[2] = {FERRY__VMA__INIT, FERRY__VMA__INIT}, *vmas[] = {&vma[0], &vma[1]};
	uint8_t auxv[48] = {0xde, 0xad};
	uint64_t guards[] = {0x1000, 0x2000};

	vma[0].start = 0x400000;
	vma[0].end = 0x401000;
	vma[0].kind = FERRY__VMA_KIND__VMA_FILE;
	vma[0].path = "/usr/bin/caf\xe9";
	vma[1].start = 0xffffffffff600000;
	mm.n_vmas = 2;
	mm.vmas = vmas;
	mm.brk = 0x12345000;
	mm.exe_mtime_ns = -5;
	mm.auxv = (ProtobufCBinaryData){sizeof(auxv), auxv};
	mm.n_guards = 2;
	mm.guards = guards;
	assert_ok(stream_out_dir(&out, fd, NULL, &e), &e);
	assert_ok(put_inventory(out, "line\nbreak", &e), &e);
	assert_ok(stream_put(out, FERRY__RECORD_TYPE__RECORD_MM, 42, 0, RECORD_WARM, &mm.base, &e), &e);
	assert_ok(stream_put(out, FERRY__RECORD_TYPE__RECORD_FS, 42, 43, 0, &mm.base, &e), &e);
	assert_ok(put_filled(out, 42, 0x400000, 2 * P, 1, &e), &e);
	assert_ok(put_run(out, 0, PAGE_RUN_ZERO, 42, 0x500000, P, NULL, &e), &e);
	assert_ok(put_run(out, 0, PAGE_RUN_DROP, 42, 0x600000, 3 * P, NULL, &e), &e);
	assert_ok(stream_finish(out, &e), &e);
	stream_out_free(out);
}

static char *show(int fd, bool json, bool verbose)
{
	struct show_options o = {.json = json, .verbose = verbose, .descriptor = descriptor};
	struct error e = ERROR_INIT;
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	assert_ok(show_image(fd, &o, f, &e), &e);
	fclose(f);
	return text;
}

static void contains(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" is not in\n%s", part, text);
}

static void test_text(void **state)
{
	cleanup_close int fd = scratch_dir("text");

	(void)state;
	make_image(fd);
	cleanup_free char *brief = show(fd, false, false), *verbose = show(fd, false, true);

	contains(brief, "\nINVENTORY\n  version: 1\n  host: line\\x0abreak\n");
	contains(brief, "\nMM of process 42 (warm)\n");
	contains(brief, "- start 0x400000, end 0x401000, kind VMA_FILE, path /usr/bin/caf\\xe9\n");
	contains(brief, "- start 0xffffffffff600000, kind VMA_ANON\n");
	contains(brief, "brk: 0x12345000\n");
	contains(brief, "exe_mtime_ns: -5\n");
	contains(brief, "guards: 0x1000 0x2000\n");
	contains(brief,
		 "auxv: 48 bytes dead000000000000 0000000000000000 0000000000000000 0000000000000000 ...\n");
	contains(brief, "\nFS of process 42, thread 43\n  unknown: ");
	contains(brief, "process 42: 3 runs, 8 KiB, 4 KiB of zeros, 12 KiB dropped\n");
	assert_null(strstr(brief, "Page runs"));
	contains(verbose, "  process 42 0x600000 12288 drop\n");
}

static void test_json(void **state)
{
	cleanup_close int fd = scratch_dir("json");
	json_error_t je;
	const char *type, *host, *start, *path, *auxv, *addr, *kind;
	int version, bytes, length, warm;

	(void)state;
	make_image(fd);
	cleanup_free char *text = show(fd, true, true);
	json_t *j = json_loads(text, 0, &je);

	if (!j)
		fail_msg("%s\n%s", je.text, text);
	assert_int_equal(
		json_unpack_ex(
			j, &je, 0,
			"{s:{s:i},s:[{s:s,s:{s:s}},{s:b,s:{s:[{s:s,s:s}],s:s}}],s:[{s:i}],s:[{s:s,s:i,s:s}]}",
			"image", "version", &version, "records", "type", &type, "message", "host", &host,
			"warm", &warm, "message", "vmas", "start", &start, "path", &path, "auxv", &auxv,
			"pages", "bytes", &bytes, "runs", "addr", &addr, "length", &length, "kind", &kind),
		0);
	assert_int_equal(version, 1);
	assert_string_equal(type, "INVENTORY");
	assert_string_equal(host, "line\nbreak");
	assert_true(warm);
	assert_string_equal(start, "0x400000");
	assert_string_equal(path, "/usr/bin/caf\\xe9");
	assert_int_equal(strlen(auxv), 96);
	assert_int_equal(bytes, 2 * P);
	assert_string_equal(addr, "0x400000");
	assert_int_equal(length, 2 * P);
	assert_string_equal(kind, "data");
	json_decref(j);
}

/* Half images are shown as far as they go; none is an error. */
static void test_partial(void **state)
{
	cleanup_close int fd = scratch_dir("partial"), none = scratch_dir("none");
	struct show_options o = {0};
	struct error e = ERROR_INIT;

	(void)state;
	make_image(fd);
	unlinkat(fd, PAGES_IMG, 0);
	unlinkat(fd, STATE_IMG, 0);
	cleanup_free char *pages = show(fd, false, false);

	contains(pages, "state: no\n  memory: yes\n");
	contains(pages, "process 42: 3 runs");
	make_image(fd);
	unlinkat(fd, PAGEMAP_IMG, 0);
	cleanup_free char *state_only = show(fd, true, true);

	contains(state_only, "\"memory\":false");
	assert_error(show_image(none, &o, stdout, &e), &e, ENOENT, "no image in this directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_partial),
	};

	return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
