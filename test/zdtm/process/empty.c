/* SPDX-License-Identifier: Apache-2.0 */
#include "zdtm.h"

int main(int argc, char **argv)
{

	pid_t pid, sid, group;

	test_init(argc, argv);
	pid = getpid();
	sid = getsid(0);
	group = getpgrp();
	test_ready();
	test_wait();
	CHECK_EQ(getpid(), pid);
	CHECK_EQ(gettid(), pid);
	CHECK_EQ(getsid(0), sid);
	CHECK_EQ(getpgrp(), group);
	test_pass();
}
