/* SPDX-License-Identifier: Apache-2.0 */
/* A POSIX message queue that a process outside of the tree has open, too. */
#include <fcntl.h>
#include <mqueue.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 100};
	char name[64], text[100];
	pid_t middle;

	test_init(argc, argv);
	snprintf(name, sizeof(name), "/ferry-test-%d", getpid());
	mqd_t q = MUST(mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr));
	MUST(mq_unlink(name));
	middle = test_fork();
	if (!middle) {
		if (!test_fork()) {
			MUST(mq_send(q, "ready", 5, 0));
			while (mq_receive(q, text, sizeof(text), NULL) != 2)
				MUST(mq_send(q, "ready", 5, 0));
			_exit(0);
		}
		_exit(0);
	}
	test_reap(middle, 0);
	test_ready();
	test_wait();
	MUST(mq_send(q, "go", 2, 9));
	test_pass();
}
