/* SPDX-License-Identifier: Apache-2.0 */
/* BPF maps: an array and a hash with contents, a second descriptor that may only read, one that is frozen. */
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

#include "zdtm.h"

static int bpf(int cmd, union bpf_attr *a)
{
	return (int)syscall(SYS_bpf, cmd, a, sizeof(*a));
}

static int make(uint32_t type, uint32_t key, uint32_t value, uint32_t entries, const char *name)
{
	union bpf_attr a = {.map_type = type, .key_size = key, .value_size = value, .max_entries = entries};

	strncpy(a.map_name, name, sizeof(a.map_name) - 1);
	return bpf(BPF_MAP_CREATE, &a);
}

static int put(int fd, const void *key, const void *value)
{
	union bpf_attr a = {.map_fd = (uint32_t)fd, .key = (uintptr_t)key, .value = (uintptr_t)value};

	return bpf(BPF_MAP_UPDATE_ELEM, &a);
}

static int get(int fd, const void *key, void *value)
{
	union bpf_attr a = {.map_fd = (uint32_t)fd, .key = (uintptr_t)key, .value = (uintptr_t)value};

	return bpf(BPF_MAP_LOOKUP_ELEM, &a);
}

static int again(int fd, uint32_t flags)
{
	struct bpf_map_info i = {0};
	union bpf_attr q = {.info = {.bpf_fd = (uint32_t)fd, .info_len = sizeof(i), .info = (uintptr_t)&i}};

	MUST(bpf(BPF_OBJ_GET_INFO_BY_FD, &q));
	union bpf_attr a = {.map_id = i.id, .open_flags = flags};

	return MUST(bpf(BPF_MAP_GET_FD_BY_ID, &a));
}

struct odd { /* 13 bytes: values are padded to 8 */
	char b[13];
};

int main(int argc, char **argv)
{
	test_init(argc, argv);
	int array = make(BPF_MAP_TYPE_ARRAY, 4, sizeof(struct odd), 100, "numbers");

	if (array < 0)
		test_skip("no BPF maps: %s", strerror(errno));
	int hash = MUST(make(BPF_MAP_TYPE_HASH, 12, 8, 1000, "words")),
	    cold = MUST(make(BPF_MAP_TYPE_ARRAY, 4, 4, 3, "cold"));
	int reader = again(hash, BPF_F_RDONLY);
	struct odd o;
	uint64_t v;

	for (uint32_t i = 0; i < 100; i++) {
		snprintf(o.b, sizeof(o.b), "number %u", i * 7);
		MUST(put(array, &i, &o));
	}
	for (uint32_t i = 0; i < 500; i++) {
		char key[12] = {0};

		snprintf(key, sizeof(key), "word %u", i);
		v = i * 1000003ull;
		MUST(put(hash, key, &v));
	}
	uint32_t two = 2, value = 4711;
	union bpf_attr freeze = {.map_fd = (uint32_t)cold};

	MUST(put(cold, &two, &value));
	MUST(bpf(BPF_MAP_FREEZE, &freeze));
	test_ready();
	test_wait();
	for (uint32_t i = 0; i < 100; i++) {
		char want[13];

		snprintf(want, sizeof(want), "number %u", i * 7);
		MUST(get(array, &i, &o));
		CHECK(!strcmp(o.b, want), "element %u is %s", i, o.b);
	}
	for (uint32_t i = 0; i < 501; i++) {
		char key[12] = {0};

		snprintf(key, sizeof(key), "word %u", i);
		if (i == 500) {
			CHECK(get(hash, key, &v) < 0 && errno == ENOENT, "one more than there were");
			break;
		}
		MUST(get(reader, key, &v));
		CHECK_EQ(v, i * 1000003ull);
	}
	char key[12] = "new";

	v = 8;
	CHECK(put(reader, key, &v) < 0 && errno == EPERM, "the second descriptor may write");
	MUST(put(hash, key, &v));
	v = 0;
	MUST(get(reader, key, &v));
	CHECK_EQ(v, 8);
	CHECK(put(cold, &two, &value) < 0 && errno == EPERM, "the frozen one is not frozen");
	value = 0;
	MUST(get(cold, &two, &value));
	CHECK_EQ(value, 4711);
	test_pass();
}
