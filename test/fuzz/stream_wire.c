/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records as they come off a socket or a disk. First byte, bit 0: socket; bit 1: put the checksums, magic and
 * sequence right first, so that what lies behind them is reached.
 */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "lib/repair.h"
#include "proto/image.pb-c.h"
#include "stream/plan.h"
#include "stream/records.h"
#include "stream/show_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(struct record_in *in, struct plan *plan, struct wire_run *runs, uint8_t *data)
{
	struct error e = ERROR_INIT;
	struct record r = {.type = in->h.type, .payload = in->payload, .size = in->h.length};
	ProtobufCMessage *m;
	size_t n;

	if (in->h.type == FERRY__RECORD_TYPE__RECORD_PAGES) {
		if (record_in_pages(in, runs, &n, data, &e) < 0)
			return;
		for (size_t i = 0; i < n; i++) {
			if (in->socket && run_has_data(runs[i].flags))
				record_in_check_data(in, &runs[i], data + runs[i].offset, &e);
			if (!(runs[i].flags & PAGE_RUN_COPY)) /* in images there are none */
				plan_add(plan, &runs[i], i & 1, &e);
		}
	} else if (record_unpack(&r, in->h.pid & 1 ? &ferry__tree__descriptor : &ferry__inventory__descriptor,
				 &m, &e) == 0) {
		json_decref(show_message(m, true));
		json_t *j = show_message(m, false);

		free(json_dumps(j, JSON_COMPACT));
		json_decref(j);
		protobuf_c_message_free_unpacked(m, NULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static struct wire_run runs[WIRE_MAX_RUNS];
	static uint8_t page_data[STREAM_MAX_RUN];
	struct stream_header h;
	struct plan plan = {0};
	struct error e = ERROR_INIT;
	struct record_in in;

	if (!size)
		return 0;
	cleanup_free uint8_t *p = xmemdup(input + 1, size - 1);

	if (input[0] & 2)
		repair(p, size - 1, NULL, 0);
	record_in_init_memory(&in, p, size - 1, input[0] & 1);
	if (record_in_header(&in, 1 + (input[0] >> 2 & 3), &h, &e) >= 0 || (input[0] & 128))
		while (record_in_next(&in, &e) > 0)
			use(&in, &plan, runs, page_data);
	if (plan_newest(&plan, &e) == 0) {
		struct stream_kin kin[] = {{.pid = 1}, {.pid = 2, .from = 1}, {.pid = 3, .from = 2}};

		for (size_t i = 0; i < ARRAY_SIZE(kin); i++)
			page_set_add(&kin[i].common, 0x10000, 0x7fffffff0000);
		plan_share(&plan, kin, ARRAY_SIZE(kin), &e);
		for (size_t i = 0; i < ARRAY_SIZE(kin); i++)
			page_set_deinit(&kin[i].common);
	}
	plan_deinit(&plan);
	record_in_deinit(&in);
	return 0;
}
