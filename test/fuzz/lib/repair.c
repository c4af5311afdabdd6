/* SPDX-License-Identifier: Apache-2.0 */
#include "repair.h"

#include <endian.h>
#include <string.h>

#include "base/util.h"
#include "proto/image.pb-c.h"
#include "stream/wire.h"

static void repair_trailer(uint8_t *p, uint64_t records, uint64_t running, uint64_t data_size, bool image)
{
	struct wire_trailer t;

	memcpy(&t, p, sizeof(t));
	t.records = htole64(records);
	t.running = htole64(running);
	if (image)
		t.data_size = htole64(data_size);
	memcpy(p, &t, sizeof(t));
}

static void repair_runs(uint8_t *p, size_t n, const uint8_t *pages, size_t n_pages)
{
	struct wire_run r;

	for (p += sizeof(struct wire_pages); n >= sizeof(struct wire_pages) + sizeof(r);
	     p += sizeof(r), n -= sizeof(r)) {
		memcpy(&r, p, sizeof(r));
		uint64_t offset = le64toh(r.offset), length = le64toh(r.length);

		if (!run_has_data(le32toh(r.flags)) || length > n_pages ||
		    offset > n_pages - run_padded(length) || run_padded(length) > n_pages)
			continue;
		r.checksum = htole64(wire_data_checksum(pages + offset, run_padded(length)));
		memcpy(p, &r, sizeof(r));
	}
}

void repair(uint8_t *p, size_t n, const uint8_t *pages, size_t n_pages)
{
	uint64_t running = 0, records = 0;
	struct wire_record h;

	for (uint32_t sequence = 0; n >= sizeof(h); sequence++) {
		memcpy(&h, p, sizeof(h));
		h.magic = htole32(WIRE_MAGIC);
		h.version = htole16(STREAM_VERSION);
		h.reserved = 0;
		h.sequence = htole32(sequence);
		size_t length = le32toh(h.length);

		if (length > n - sizeof(h))
			return;
		if (le32toh(h.type) == FERRY__RECORD_TYPE__RECORD_TRAILER &&
		    length == sizeof(struct wire_trailer))
			repair_trailer(p + sizeof(h), records, running, n_pages, pages);
		if (le32toh(h.type) == FERRY__RECORD_TYPE__RECORD_PAGES && pages)
			repair_runs(p + sizeof(h), length, pages, n_pages);
		uint64_t checksum = wire_checksum(&h, p + sizeof(h), length);

		h.checksum = htole64(checksum);
		memcpy(p, &h, sizeof(h));
		running = wire_running(running, checksum);
		records++;
		p += sizeof(h) + length;
		n -= sizeof(h) + length;
	}
}
