/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instead of libFuzzer, for builds with other compilers: every file of the corpus as it is, then changed in
 * ways that depend on nothing but a number that counts up, so that the same build does the same again.
 *	NAME [-runs=N] FILE|DIRECTORY...
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"

#define MAX_SIZE  8192
#define MAX_FILES 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct file {
	uint8_t *data;
	size_t size;
};

static struct file files[MAX_FILES];
static size_t n_files;
static uint64_t state;

static uint32_t any(uint32_t below)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return below ? (uint32_t)(state >> 33) % below : 0;
}

static void read_one(const char *path)
{
	char *text = NULL;
	ssize_t n = read_file(path, &text);

	if (n < 0 || n_files == MAX_FILES) {
		fprintf(stderr, "%s: cannot be used\n", path);
		exit(1);
	}
	files[n_files++] = (struct file){(uint8_t *)text, (size_t)n};
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_all(const char *path)
{
	struct dirent **list;
	struct stat st;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
		read_one(path);
		return;
	}
	int n = scandir(path, &list, NULL, by_name);

	for (int i = 0; i < n; i++) {
		cleanup_free char *file = xasprintf("%s/%s", path, list[i]->d_name);

		if (*list[i]->d_name != '.')
			read_one(file);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

/* One change; the result has at most MAX_SIZE bytes. */
static size_t change(uint8_t *p, size_t n)
{
	static const uint64_t odd[] = {0,          1,           0x7f,       0xff,  0x7fff, 0xffff,
				       0x7fffffff, 0xffffffffu, ~0ull >> 1, ~0ull, 4096,   1ull << 47};
	uint32_t at = any((uint32_t)n + 1), length = any(16) + 1, most = any(256) + 1;
	const struct file *other = &files[any((uint32_t)n_files)];

	switch (any(7)) {
	case 0:
		if (at < n)
			p[at] ^= (uint8_t)(1u << any(8));
		return n;
	case 1:
		if (at < n)
			p[at] = (uint8_t)any(256);
		return n;
	case 2: { /* a number of 1, 2, 4 or 8 bytes */
		size_t size = 1u << any(4);
		uint64_t v = odd[any(ARRAY_SIZE(odd))] + any(3) - 1;

		if (at + size <= n)
			memcpy(p + at, &v, size);
		return n;
	}
	case 3: /* out */
		length = MIN(length, (uint32_t)n - at);
		memmove(p + at, p + at + length, n - at - length);
		return n - length;
	case 4: /* twice */
		length = MIN(most, MIN((uint32_t)n - at, (uint32_t)(MAX_SIZE - n)));
		memmove(p + at + length, p + at, n - at);
		return n + length;
	case 5: /* of another one */
		if (!other->size)
			return n;
		length = MIN(most, (uint32_t)MIN(other->size, MAX_SIZE - (size_t)at));
		memcpy(p + at, other->data + any((uint32_t)(other->size - length) + 1), length);
		return MAX(n, at + length);
	default: /* cut */
		return any(4) ? n : at;
	}
}

int main(int argc, char **argv)
{
	static uint8_t p[MAX_SIZE];
	unsigned long runs = 0;

	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], "-runs=", 6))
			runs = strtoul(argv[i] + 6, NULL, 10);
		else
			read_all(argv[i]);
	if (!n_files) {
		fprintf(stderr, "no file to begin with\n");
		return 1;
	}
	for (size_t i = 0; i < n_files; i++)
		LLVMFuzzerTestOneInput(files[i].data, files[i].size);
	for (unsigned long run = 0; run < runs; run++) {
		state = run;
		any(1); /* small numbers are alike at first */
		const struct file *f = &files[any((uint32_t)n_files)];
		size_t n = MIN(f->size, (size_t)MAX_SIZE);

		memcpy(p, f->data, n);
		for (uint32_t k = any(8) + 1; k; k--)
			n = change(p, n);
		uint8_t *copy = xmemdup(p, n); /* exactly as long as it is: one byte too far is seen */

		LLVMFuzzerTestOneInput(copy, n);
		free(copy);
	}
	printf("%zu files, %lu changed ones\n", n_files, runs);
	for (size_t i = 0; i < n_files; i++)
		free(files[i].data);
	return 0;
}
