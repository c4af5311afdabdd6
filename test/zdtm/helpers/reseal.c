/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reseal FILE FROM TO: replaces a text in an image file by another of the same length and makes all checksums
 * right again (docs/image-format.md), as a foreign but sound writer would have done.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define TRAILER 3

static uint32_t get32(const uint8_t *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t checksum(uint8_t *record, uint32_t length)
{
	XXH3_state_t *s = XXH3_createState();
	uint64_t v;

	XXH3_64bits_reset(s);
	XXH3_64bits_update(s, record, 32);
	XXH3_64bits_update(s, record + 40, length);
	v = XXH3_64bits_digest(s);
	XXH3_freeState(s);
	return v;
}

int main(int argc, char **argv)
{
	static uint8_t buf[64 << 20];
	uint64_t running = 0, both[2];
	size_t size, len, found = 0;
	FILE *f;

	if (argc != 4 || strlen(argv[2]) != strlen(argv[3]) || !(f = fopen(argv[1], "r+b")))
		return 2;
	size = fread(buf, 1, sizeof(buf), f);
	len = strlen(argv[2]);
	for (size_t at = 0; at + len <= size; at++)
		if (!memcmp(buf + at, argv[2], len)) {
			memcpy(buf + at, argv[3], len);
			found++;
		}
	for (size_t at = 0; at + 40 <= size;) {
		uint32_t length = get32(buf + at + 24);

		if (memcmp(buf + at, "FRRY", 4) || length > size - at - 40)
			return 3;
		if (get32(buf + at + 8) == TRAILER)
			put64(buf + at + 40 + 8, running);
		put64(buf + at + 32, checksum(buf + at, length));
		both[0] = running;
		memcpy(&both[1], buf + at + 32, 8);
		running = XXH3_64bits(both, sizeof(both));
		at += 40 + length;
	}
	rewind(f);
	if (fwrite(buf, 1, size, f) != size || fclose(f))
		return 4;
	return found ? 0 : 5;
}
