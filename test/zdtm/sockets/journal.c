/* SPDX-License-Identifier: Apache-2.0 */
/* A stream to the journal, as the standard output of a service, and datagrams to a log: of a process outside
 * of the tree, if there is one (journal.sh), else of its own. */
#include <sys/socket.h>
#include <sys/un.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/stdout"};
	struct sockaddr_un log = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/dev-log"};
	int ends[2] = {-1, -1}, syslog = -1;
	bool journal;
	char c[8];

	test_init(argc, argv);
	MUST(seteuid(65534));
	journal = access(a.sun_path, F_OK) == 0;
	if (journal) {
		ends[0] = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
		MUST(connect(ends[0], (struct sockaddr *)&a, sizeof(a)));
	} else {
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	}
	MUST(shutdown(ends[0], SHUT_RD));
	if (access(log.sun_path, F_OK) == 0) {
		syslog = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
		MUST(connect(syslog, (struct sockaddr *)&log, sizeof(log)));
	}
	CHECK_EQ(write(ends[0], "before\n", 7), 7);
	test_ready();
	test_wait();
	CHECK_EQ(read(ends[0], c, 1), 0);
	CHECK_EQ(write(ends[0], "after\n", 6), 6);
	if (syslog >= 0)
		CHECK_EQ(send(syslog, "logged\n", 7, 0), 7);
	if (!journal) {
		CHECK_EQ(read(ends[1], c, 7), 7);
		CHECK_EQ(read(ends[1], c, 6), 6);
	}
	test_pass();
}
