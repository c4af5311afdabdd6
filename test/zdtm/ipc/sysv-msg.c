/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V message queues: messages in order with their types, empty and large ones, who sent and received
 * last; a queue that nobody has used yet, one of another user, one in whose msgrcv(2) a child waits.
 */
#include <sys/ipc.h>
#include <sys/msg.h>

#include "zdtm.h"

#define KEY   0x5eed0012
#define LARGE 8000

struct message {
	long type;
	char text[LARGE];
};

static void send(int id, long type, size_t n, int seed)
{
	struct message m = {.type = type};

	test_fill(m.text, n / 8 * 8, (uint64_t)seed);
	if (msgsnd(id, &m, n, IPC_NOWAIT) < 0)
		test_fail("msgsnd of %zu bytes, type %ld", n, type);
}

static void receive(int id, long type, size_t n, int seed)
{
	struct message m;
	ssize_t got = MUST(msgrcv(id, &m, sizeof(m.text), 0, IPC_NOWAIT));

	CHECK_EQ(m.type, type);
	CHECK_EQ(got, n);
	test_check_fill(m.text, n / 8 * 8, (uint64_t)seed, "message");
}

static void check_same(int id, const struct msqid_ds *was, const char *what)
{
	struct msqid_ds now;

	if (msgctl(id, IPC_STAT, &now) < 0)
		test_fail("%s: no queue %d any more", what, id);
	errno = 0;
	CHECK(now.msg_perm.__key == was->msg_perm.__key, "%s: key 0x%x", what, now.msg_perm.__key);
	CHECK(now.msg_perm.uid == was->msg_perm.uid && now.msg_perm.gid == was->msg_perm.gid, "%s: owner",
	      what);
	CHECK(now.msg_perm.cuid == was->msg_perm.cuid && now.msg_perm.cgid == was->msg_perm.cgid,
	      "%s: creator", what);
	CHECK(now.msg_perm.mode == was->msg_perm.mode, "%s: mode 0%o", what, now.msg_perm.mode);
	CHECK(now.msg_qbytes == was->msg_qbytes, "%s: room for %lu bytes, was %lu", what, now.msg_qbytes,
	      was->msg_qbytes);
	CHECK(now.msg_qnum == was->msg_qnum, "%s: %lu messages, were %lu", what, now.msg_qnum, was->msg_qnum);
	CHECK(now.msg_lspid == was->msg_lspid, "%s: sender %d, was %d", what, now.msg_lspid, was->msg_lspid);
	CHECK(now.msg_lrpid == was->msg_lrpid, "%s: receiver %d, was %d", what, now.msg_lrpid,
	      was->msg_lrpid);
}

int main(int argc, char **argv)
{
	struct msqid_ds was[4], set;
	int id[4];
	pid_t child, waiter;

	test_init(argc, argv);
	id[0] = MUST(msgget(KEY, IPC_CREAT | IPC_EXCL | 0640));
	id[1] = MUST(msgget(IPC_PRIVATE, 0600)); /* nobody has used it */
	MUST(seteuid(1000));
	id[2] = MUST(msgget(IPC_PRIVATE, 0600));
	MUST(seteuid(0));
	MUST(msgctl(id[2], IPC_STAT, &set));
	set.msg_perm.uid = 5;
	set.msg_perm.gid = 6;
	set.msg_perm.mode = 0604;
	set.msg_qbytes = 5000;
	MUST(msgctl(id[2], IPC_SET, &set));
	id[3] = MUST(msgget(IPC_PRIVATE, 0600));
	send(id[0], 9, 40, 1);
	child = test_fork();
	if (child == 0) {
		receive(id[0], 9, 40, 1);
		send(id[2], 3, 16, 8);
		_exit(0);
	}
	test_reap(child, 0);
	child = test_fork();
	if (child == 0) {
		send(id[0], 2, LARGE, 2);
		send(id[0], 1, 0, 3);
		send(id[0], 2, 100, 4);
		test_wait();
		_exit(7);
	}
	waiter = test_fork();
	if (waiter == 0) {
		struct message m;

		while (msgrcv(id[3], &m, sizeof(m.text), 0, 0) < 0)
			CHECK(errno == EINTR, "msgrcv");
		_exit(m.type == 11 ? 8 : 1);
	}
	struct msqid_ds now;
	do {
		test_sleep_ms(1);
		MUST(msgctl(id[0], IPC_STAT, &now));
	} while (now.msg_qnum < 3);
	test_wait_state(waiter, "S");
	for (int i = 0; i < 4; i++)
		MUST(msgctl(id[i], IPC_STAT, &was[i]));
	/* Of a process that has ended the root stands for. */
	was[0].msg_lrpid = was[2].msg_lspid = 0;
	test_ready();
	test_wait();
	for (int i = 0; i < 4; i++) {
		struct msqid_ds x;

		MUST(msgctl(id[i], IPC_STAT, &x));
		if (!was[i].msg_lrpid)
			was[i].msg_lrpid = x.msg_lrpid;
		if (!was[i].msg_lspid)
			was[i].msg_lspid = x.msg_lspid;
	}
	check_same(id[0], &was[0], "with a key");
	check_same(id[1], &was[1], "not used yet");
	check_same(id[2], &was[2], "of another user");
	check_same(id[3], &was[3], "waited for");
	CHECK_EQ(was[0].msg_lspid, child);
	CHECK_EQ(MUST(msgget(KEY, 0)), id[0]);
	receive(id[0], 2, LARGE, 2);
	receive(id[0], 1, 0, 3);
	receive(id[0], 2, 100, 4);
	receive(id[2], 3, 16, 8);
	send(id[1], 4, 8, 5);
	receive(id[1], 4, 8, 5);
	send(id[3], 11, 8, 6);
	test_reap(waiter, 8);
	test_reap(child, 7);
	for (int i = 0; i < 4; i++)
		MUST(msgctl(id[i], IPC_RMID, NULL));
	test_pass();
}
