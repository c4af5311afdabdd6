/* SPDX-License-Identifier: Apache-2.0 */
/* A privileged process with part of its capabilities, with unusual ids, groups and securebits. */
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "zdtm.h"

static struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};

struct creds {
	uid_t uid[3], fsuid;
	gid_t gid[3], fsgid, groups[8];
	int ngroups, securebits, bounding[64], ambient[64], no_new_privs, keepcaps;
	struct __user_cap_data_struct caps[2];
};

static void read_creds(struct creds *c)
{
	memset(c, 0, sizeof(*c));
	MUST(getresuid(&c->uid[0], &c->uid[1], &c->uid[2]));
	MUST(getresgid(&c->gid[0], &c->gid[1], &c->gid[2]));
	c->fsuid = setfsuid(-1);
	c->fsgid = setfsgid(-1);
	c->ngroups = MUST(getgroups(8, c->groups));
	c->securebits = MUST(prctl(PR_GET_SECUREBITS));
	c->no_new_privs = MUST(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	c->keepcaps = MUST(prctl(PR_GET_KEEPCAPS));
	for (int i = 0; i <= CAP_LAST_CAP; i++) {
		c->bounding[i] = MUST(prctl(PR_CAPBSET_READ, i));
		c->ambient[i] = MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0));
	}
	MUST(syscall(SYS_capget, &head, c->caps));
}

static void drop(struct __user_cap_data_struct *caps, int cap)
{
	caps[CAP_TO_INDEX(cap)].effective &= ~CAP_TO_MASK(cap);
	caps[CAP_TO_INDEX(cap)].permitted &= ~CAP_TO_MASK(cap);
}

int main(int argc, char **argv)
{
	static const gid_t groups[] = {4, 1000, 70000};
	struct creds before, after;
	struct __user_cap_data_struct *caps = before.caps;

	test_init(argc, argv);
	MUST(setgroups(3, groups));
	MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE));
	MUST(prctl(PR_CAPBSET_DROP, CAP_SYSLOG));
	MUST(setresgid(1001, 1002, 1003));
	setfsgid(1004);
	MUST(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED));
	MUST(setresuid(0, 2001, 2002));
	setfsuid(0);
	MUST(syscall(SYS_capget, &head, caps));
	drop(caps, CAP_SYS_BOOT);
	drop(caps, CAP_SYSLOG);
	caps[CAP_TO_INDEX(CAP_SYS_TIME)].effective &= ~CAP_TO_MASK(CAP_SYS_TIME);
	caps[CAP_TO_INDEX(CAP_KILL)].inheritable |= CAP_TO_MASK(CAP_KILL) | CAP_TO_MASK(CAP_CHOWN);
	MUST(syscall(SYS_capset, &head, caps));
	MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
	read_creds(&before);
	test_ready();
	test_wait();
	read_creds(&after);
	CHECK(!memcmp(before.uid, after.uid, sizeof(before.uid)) && before.fsuid == after.fsuid,
	      "user ids changed");
	CHECK(!memcmp(before.gid, after.gid, sizeof(before.gid)) && before.fsgid == after.fsgid,
	      "group ids changed");
	CHECK(!memcmp(before.groups, after.groups, sizeof(before.groups)), "supplementary groups changed");
	CHECK_EQ(after.securebits, before.securebits);
	CHECK(!memcmp(before.bounding, after.bounding, sizeof(before.bounding)), "the bounding set changed");
	CHECK(!memcmp(before.ambient, after.ambient, sizeof(before.ambient)), "the ambient set changed");
	CHECK(!memcmp(before.caps, after.caps, sizeof(before.caps)), "capabilities changed");
	CHECK(!memcmp(&before, &after, sizeof(before)), "credentials changed");
	test_pass();
}
