/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/if_packet.h>
#include <sys/socket.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct tpacket_req q = {
		.tp_block_size = 4096, .tp_block_nr = 4, .tp_frame_size = 2048, .tp_frame_nr = 8};

	test_init(argc, argv);
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0)
		test_skip("no packet sockets: %s", strerror(errno));
	MUST(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)));
	test_ready();
	test_wait();
	test_pass();
}
