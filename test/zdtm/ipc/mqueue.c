/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX message queues: messages by priority and age, a full queue that has lost its name, descriptors of all
 * access modes, attributes; one that notifies by a signal with a value, one by nothing; one that a child
 * waits for.
 */
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <sys/stat.h>

#include "zdtm.h"

#define SIZE 200

static volatile int told, value;

static void on_signal(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	told++;
	value = info->si_value.sival_int;
}

static mqd_t make(const char *name, int flags, long n)
{
	struct mq_attr attr = {.mq_maxmsg = n, .mq_msgsize = SIZE};

	return MUST(mq_open(name, O_CREAT | O_EXCL | flags, 0640, &attr));
}

static void receive(mqd_t q, unsigned want, const char *text)
{
	char buffer[SIZE];
	unsigned priority;
	ssize_t n = mq_receive(q, buffer, SIZE, &priority);

	if (n < 0)
		test_fail("mq_receive, waiting for \"%s\"", text);
	CHECK(n == (ssize_t)strlen(text) && !memcmp(buffer, text, (size_t)n), "the message is not \"%s\"",
	      text);
	CHECK_EQ(priority, want);
}

static long waiting(mqd_t q)
{
	struct mq_attr attr;

	MUST(mq_getattr(q, &attr));
	return attr.mq_curmsgs;
}

int main(int argc, char **argv)
{
	char names[5][64];
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
	struct mq_attr attr;
	struct stat st;
	pid_t child;

	test_init(argc, argv);
	for (int i = 0; i < 5; i++)
		snprintf(names[i], sizeof(names[i]), "/ferry-test-%d-%d", i, getpid());
	mqd_t q = make(names[0], O_RDWR, 7);
	mqd_t reader = MUST(mq_open(names[0], O_RDONLY | O_NONBLOCK));
	mqd_t writer = MUST(mq_open(names[0], O_WRONLY));
	MUST(fchown(q, 5, 6));
	MUST(mq_send(q, "second", 6, 3));
	MUST(mq_send(q, "fourth", 6, 0));
	MUST(mq_send(q, "third", 5, 3));
	MUST(mq_send(q, "first", 5, 32767));
	MUST(mq_send(q, "", 0, 0));
	mqd_t full = make(names[1], O_RDWR | O_NONBLOCK, 2);
	MUST(mq_send(full, "a", 1, 1));
	MUST(mq_send(full, "b", 1, 1));
	mqd_t full_reader = MUST(mq_open(names[1], O_RDONLY));
	MUST(mq_unlink(names[1]));
	mqd_t teller = make(names[2], O_RDWR, 3), silent = make(names[3], O_RDWR, 3);
	MUST(sigaction(SIGRTMIN + 1, &sa, NULL));
	MUST(mq_notify(teller, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL,
						  .sigev_signo = SIGRTMIN + 1,
						  .sigev_value.sival_int = 4711}));
	MUST(mq_notify(silent, &(struct sigevent){.sigev_notify = SIGEV_NONE}));
	mqd_t awaited = make(names[4], O_RDWR, 3);
	child = test_fork();
	if (child == 0) {
		receive(awaited, 5, "wake up");
		_exit(7);
	}
	test_wait_state(child, "S");
	test_ready();
	test_wait();
	CHECK_EQ(told, 0);
	MUST(fstat(q, &st));
	CHECK_EQ(st.st_uid, 5);
	CHECK_EQ(st.st_gid, 6);
	CHECK_EQ(st.st_mode & 07777, 0640);
	MUST(mq_getattr(reader, &attr));
	CHECK_EQ(attr.mq_maxmsg, 7);
	CHECK_EQ(attr.mq_msgsize, SIZE);
	CHECK_EQ(attr.mq_flags, O_NONBLOCK);
	CHECK_EQ(waiting(writer), 5);
	CHECK(mq_send(reader, "x", 1, 0) == -1 && errno == EBADF, "the reader can send");
	CHECK(mq_receive(writer, names[0], SIZE, NULL) == -1 && errno == EBADF, "the writer can receive");
	receive(reader, 32767, "first");
	receive(reader, 3, "second");
	receive(reader, 3, "third");
	receive(reader, 0, "fourth");
	receive(reader, 0, "");
	CHECK(mq_receive(reader, names[0], SIZE, NULL) == -1 && errno == EAGAIN, "the reader waits");
	MUST(mq_send(writer, "more", 4, 1));
	receive(q, 1, "more");
	MUST(fstat(full, &st));
	CHECK_EQ(st.st_nlink, 0);
	CHECK(mq_send(full, "c", 1, 1) == -1 && errno == EAGAIN, "the full queue takes more");
	receive(full_reader, 1, "a");
	receive(full_reader, 1, "b");
	CHECK(mq_notify(silent, &(struct sigevent){.sigev_notify = SIGEV_NONE}) == -1 && errno == EBUSY,
	      "nobody has asked the silent queue");
	MUST(mq_send(teller, "hello", 5, 2));
	while (!told)
		test_sleep_ms(1);
	CHECK_EQ(told, 1);
	CHECK_EQ(value, 4711);
	receive(teller, 2, "hello");
	MUST(mq_send(awaited, "wake up", 7, 5));
	test_reap(child, 7);
	for (int i = 0; i < 5; i++)
		if (i != 1)
			MUST(mq_unlink(names[i]));
	test_pass();
}
