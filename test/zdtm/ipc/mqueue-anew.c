/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX message queues: two that have lost their name, and a third one that has it by now. */
#include <fcntl.h>
#include <mqueue.h>
#include <sys/stat.h>

#include "zdtm.h"

#define COUNT 3
#define SIZE  20

int main(int argc, char **argv)
{
	char name[64], text[SIZE];
	mqd_t q[COUNT];
	struct stat st;

	test_init(argc, argv);
	snprintf(name, sizeof(name), "/ferry-test-anew-%d", getpid());
	for (int i = 0; i < COUNT; i++) {
		struct mq_attr attr = {.mq_maxmsg = 2 + i, .mq_msgsize = SIZE};

		q[i] = MUST(mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr));
		MUST(mq_send(q[i], name, 1 + i, 0));
		if (i < COUNT - 1)
			MUST(mq_unlink(name));
	}
	test_ready();
	test_wait();
	for (int i = 0; i < COUNT; i++) {
		MUST(fstat(q[i], &st));
		CHECK_EQ(st.st_nlink, i == COUNT - 1);
		CHECK_EQ(mq_receive(q[i], text, SIZE, NULL), 1 + i);
	}
	/* The name leads to the last one. */
	mqd_t again = MUST(mq_open(name, O_RDWR | O_NONBLOCK));

	MUST(mq_send(q[COUNT - 1], "more", 4, 0));
	CHECK_EQ(mq_receive(again, text, SIZE, NULL), 4);
	MUST(mq_unlink(name));
	test_pass();
}
