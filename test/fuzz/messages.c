/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of message, of images and of peers: unpacked and shown. First byte: which. */
#include <stdlib.h>

#include "base/util.h"
#include "migrate/hello.h"
#include "proto/image.pb-c.h"
#include "proto/peer.pb-c.h"
#include "state/kind.h"
#include "stream/show_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const others[] = {
	&ferry__inventory__descriptor,    &ferry__tree__descriptor,        &ferry__left__descriptor,
	&ferry__peer_hello__descriptor,   &ferry__peer_join__descriptor,   &ferry__peer_queued__descriptor,
	&ferry__peer_round__descriptor,   &ferry__peer_commit__descriptor, &ferry__peer_packets__descriptor,
	&ferry__peer_missing__descriptor, &ferry__peer_want__descriptor,   &ferry__peer_progress__descriptor,
	&ferry__peer_error__descriptor,   &ferry__peer_answer__descriptor, &ferry__peer_pages__descriptor,
};

static const ProtobufCMessageDescriptor *descriptor(unsigned n)
{
	const ProtobufCMessageDescriptor *all[64];
	unsigned count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		all[count++] = others[i];
	for (size_t i = 0; state_kinds[i] && count < ARRAY_SIZE(all); i++)
		if (state_kinds[i]->descriptor)
			all[count++] = state_kinds[i]->descriptor;
	return all[n % count];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error e = ERROR_INIT;
	ProtobufCMessage *m;

	if (!size)
		return 0;
	cleanup_free uint8_t *p = xmemdup(data + 1, size - 1);
	const struct record r = {.type = 1, .payload = p, .size = size - 1};
	const ProtobufCMessageDescriptor *d = descriptor(data[0]);

	if (record_unpack(&r, d, &m, &e) < 0)
		return 0;
	if (d == &ferry__peer_hello__descriptor) {
		struct restore_options o;

		hello_accept((const Ferry__PeerHello *)m, &o, &e);
		hello_check((const Ferry__PeerHello *)m, "peer", &e);
	}
	for (int brief = 0; brief < 2; brief++) {
		json_t *j = show_message(m, brief);

		free(json_dumps(j, JSON_COMPACT));
		json_decref(j);
	}
	protobuf_c_message_free_unpacked(m, NULL);
	return 0;
}
