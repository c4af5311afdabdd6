/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of TCP connections as a source hands them over. First byte, bit 0: it belongs to a connection that
 * was rebuilt. Nothing is sent: the sockets are none.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "state/sockets/packets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void connection_of(const uint8_t *p, size_t n, struct hold_tuple *ret)
{
	size_t head = n && p[0] >> 4 == 4 ? (p[0] & 15) * 4u : 40;

	*ret = (struct hold_tuple){.six = n && p[0] >> 4 == 6};
	if (n < head + 4 || head < 20)
		return;
	memcpy(&ret->local, p + (ret->six ? 24 : 16), ret->six ? 16 : 4);
	memcpy(&ret->peer, p + (ret->six ? 8 : 12), ret->six ? 16 : 4);
	memcpy(&ret->peer_port, p + head, 2);
	memcpy(&ret->local_port, p + head + 2, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int none = -1;
	struct hold_tuple tuple;

	if (none < 0)
		none = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (!size)
		return 0;
	struct packets_raw raw = {none, none};
	cleanup_free uint8_t *p = xmemdup(data + 1, size - 1);
	const ProtobufCBinaryData one = {size - 1, p};

	connection_of(p, size - 1, &tuple);
	packets_put(&raw, &one, 1, &tuple, data[0] & 1);
	return 0;
}
