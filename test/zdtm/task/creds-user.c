/* SPDX-License-Identifier: Apache-2.0 */
/* An ordinary user with no_new_privs, after having been root: nothing may come back. */
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct caps[2];
	gid_t groups[4];
	uid_t u[3];

	test_init(argc, argv);
	MUST(setgroups(1, (gid_t[]){100}));
	MUST(setresgid(1000, 1000, 1000));
	MUST(setresuid(1000, 1000, 1000));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	test_ready();
	test_wait();
	MUST(getresuid(&u[0], &u[1], &u[2]));
	CHECK(u[0] == 1000 && u[1] == 1000 && u[2] == 1000, "user ids %d %d %d", u[0], u[1], u[2]);
	CHECK_EQ(getgroups(4, groups), 1);
	CHECK_EQ(groups[0], 100);
	CHECK_EQ(getgid(), 1000);
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	MUST(syscall(SYS_capget, &head, caps));
	CHECK(!caps[0].effective && !caps[1].effective && !caps[0].permitted && !caps[1].permitted,
	      "got capabilities");
	CHECK(setuid(0) == -1 && errno == EPERM, "became root again");
	test_pass();
}
