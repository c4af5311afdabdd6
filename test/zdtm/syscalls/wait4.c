/* SPDX-License-Identifier: Apache-2.0 */
/* A parent in waitpid: it goes on waiting and gets the child's status once. */
#include <sys/wait.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	pid_t waiter, child;
	int status;

	test_init(argc, argv);
	waiter = test_fork();
	if (!waiter) {
		child = test_fork();
		if (!child) {
			test_wait();
			_exit(17);
		}
		CHECK(waitpid(child, &status, 0) == child, "waitpid");
		CHECK_EQ(WEXITSTATUS(status), 17);
		CHECK(!test_waiting(), "waitpid came back early");
		CHECK(wait(NULL) == -1 && errno == ECHILD, "a child too many");
		_exit(18);
	}
	test_sleep_ms(30);
	test_ready();
	test_wait();
	test_reap(waiter, 18);
	test_pass();
}
