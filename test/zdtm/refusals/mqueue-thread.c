/* SPDX-License-Identifier: Apache-2.0 */
/* A POSIX message queue that starts a thread when a message comes. */
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>

#include "zdtm.h"

static volatile int told;

static void on_message(union sigval v)
{
	told = v.sival_int;
}

int main(int argc, char **argv)
{
	struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 100};
	char name[64];

	test_init(argc, argv);
	snprintf(name, sizeof(name), "/ferry-test-%d", getpid());
	mqd_t q = MUST(mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr));
	MUST(mq_unlink(name));
	MUST(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_THREAD,
					     .sigev_notify_function = on_message,
					     .sigev_value.sival_int = 12}));
	test_ready();
	test_wait();
	MUST(mq_send(q, "hello", 5, 0));
	while (told != 12)
		test_sleep_ms(1);
	test_pass();
}
