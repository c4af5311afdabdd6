/* SPDX-License-Identifier: Apache-2.0 */
/*
 * root (session leader)
 * +- member    in the root's group and session
 * +- group     leader of a group of its own
 * |  +- follower   in that group
 * +- session   leader of a session of its own
 *    +- inner      in that session, leader of a group
 *    +- last       in that session and its first group
 */
#include <sys/wait.h>

#include "zdtm.h"

struct who {
	pid_t pid, parent, group, session;
};

static struct who who(void)
{
	return (struct who){getpid(), getppid(), getpgrp(), getsid(0)};
}

static volatile int *up;

static void check_self(const char *name, struct who want)
{
	struct who is;

	__atomic_add_fetch(&up[0], 1, __ATOMIC_SEQ_CST);
	test_wait();
	is = who();
	CHECK(!memcmp(&is, &want, sizeof(is)),
	      "%s was %d %d %d %d, is %d %d %d %d (pid, parent, group, session)", name, want.pid, want.parent,
	      want.group, want.session, is.pid, is.parent, is.group, is.session);
}

static void group(void)
{
	pid_t child;

	MUST(setpgid(0, 0));
	child = test_fork();
	if (!child) {
		check_self("follower", who());
		_exit(11);
	}
	check_self("group", who());
	test_reap(child, 11);
	_exit(2);
}

static void session(void)
{
	pid_t inner, last;

	MUST(setsid());
	inner = test_fork();
	if (!inner) {
		MUST(setpgid(0, 0));
		check_self("inner", who());
		_exit(12);
	}
	last = test_fork();
	if (!last) {
		check_self("last", who());
		_exit(13);
	}
	check_self("session", who());
	test_reap(inner, 12);
	test_reap(last, 13);
	_exit(3);
}

int main(int argc, char **argv)
{
	pid_t child[3];
	struct who self;

	test_init(argc, argv);
	up = test_shared_flags(1);
	child[0] = test_fork();
	if (!child[0]) {
		check_self("member", who());
		_exit(1);
	}
	child[1] = test_fork();
	if (!child[1])
		group();
	child[2] = test_fork();
	if (!child[2])
		session();
	while (up[0] < 6)
		test_sleep_ms(1);
	self = who();
	test_ready();
	test_wait();
	CHECK_EQ(getpid(), self.pid);
	CHECK_EQ(getpgrp(), self.group);
	CHECK_EQ(getsid(0), self.session);
	for (int i = 0; i < 3; i++)
		test_reap(child[i], i + 1);
	CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a child too many");
	test_pass();
}
