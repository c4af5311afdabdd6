/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sys/fsuid.h>

#define BIT(cap) (1ull << (cap))

static const struct state_kind *const kinds[] = {&kind_creds, NULL};
static void (*in_second)(void);

static void *second(void *arg)
{
	(void)arg;
	if (in_second)
		in_second();
	shared[1]++;
	for (;;)
		pause();
	return NULL;
}

static void wait_with_second(void)
{
	pthread_t t;

	pthread_create(&t, NULL, second, NULL);
	while (shared[1] == 0)
		msleep(1);
	shared[0]++;
	for (;;)
		pause();
}

static void set_caps(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {
		{(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
		{effective >> 32, permitted >> 32, inheritable >> 32},
	};

	if (syscall(SYS_capset, &h, d) < 0)
		shared[15] = errno;
}

#define MUST(call)                                    \
	do {                                          \
		if ((call) < 0)                       \
			shared[15] = 1000 + __LINE__; \
	} while (0)

static void run_plain(void)
{
	wait_with_second();
}

/* Every id, group and set differs from every other. Raw calls: libc would do it in all threads. */
static void mixture(void)
{
	const gid_t groups[] = {30, 10, 20};
	const uint64_t caps = BIT(CAP_NET_RAW) | BIT(CAP_CHOWN) | BIT(CAP_KILL);

	MUST(syscall(SYS_setgroups, 3, groups));
	MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0));
	MUST(prctl(PR_CAPBSET_DROP, CAP_AUDIT_WRITE, 0, 0, 0));
	MUST(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS, 0, 0, 0));
	MUST(syscall(SYS_setresgid, 101, 102, 103));
	MUST(syscall(SYS_setresuid, 1001, 1002, 1003));
	syscall(SYS_setfsgid, 104);
	syscall(SYS_setfsuid, 1004);
	set_caps(~0ull & BIT(CAP_SETPCAP), caps | BIT(CAP_SETPCAP), BIT(CAP_NET_RAW) | BIT(CAP_SYS_CHROOT));
	MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0));
	MUST(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_CAP_AMBIENT_RAISE, 0,
		   0, 0));
	set_caps(BIT(CAP_KILL), caps, BIT(CAP_NET_RAW) | BIT(CAP_SYS_CHROOT));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2));
	MUST(prctl(PR_SET_DUMPABLE, 1));
}

static void run_mixture(void)
{
	mixture();
	wait_with_second();
}

/* The other thread stays as it is. */
static void run_second_mixture(void)
{
	in_second = mixture;
	wait_with_second();
}

static void ordinary_user(void)
{
	MUST(syscall(SYS_setgroups, 0, NULL));
	MUST(syscall(SYS_setresgid, 1000, 1000, 1000));
	MUST(syscall(SYS_setresuid, 1000, 1000, 1000));
	MUST(prctl(PR_SET_DUMPABLE, 0));
	MUST(prctl(PR_SET_PDEATHSIG, SIGKILL)); /* reset by the change */
}

static void run_user(void)
{
	ordinary_user();
	in_second = NULL;
	wait_with_second();
}

static void run_user_dumpable(void)
{
	ordinary_user();
	MUST(prctl(PR_SET_DUMPABLE, 1));
	MUST(prctl(PR_SET_KEEPCAPS, 1));
	wait_with_second();
}

static pid_t begin(void (*run)(void))
{
	memset((void *)shared, 0, 4096);
	pid_t pid = start(run);

	await(0, 1);
	assert_int_equal(shared[15], 0);
	return pid;
}

static void move(void (*run)(void))
{
	pid_t from = begin(run), to = begin(run_plain);

	move_and_compare(from, to, kinds);
	finish(from);
	finish(to);
}

static void test_mixture(void **state)
{
	(void)state;
	struct snapshot s;
	pid_t from = begin(run_mixture);

	capture(from, kinds, &s);
	const Ferry__Creds *m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_CREDS, from, from);

	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(m->uid[i], 1001 + i);
		assert_int_equal(m->gid[i], 101 + i);
	}
	assert_int_equal(m->n_groups, 3);
	assert_true(m->effective == BIT(CAP_KILL));
	assert_true(m->ambient == BIT(CAP_NET_RAW));
	assert_true(m->inheritable == (BIT(CAP_NET_RAW) | BIT(CAP_SYS_CHROOT)));
	assert_false(m->bounding & (BIT(CAP_SYS_TIME) | BIT(CAP_AUDIT_WRITE)));
	assert_int_equal(m->securebits, SECBIT_NOROOT | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_CAP_AMBIENT_RAISE);
	assert_true(m->no_new_privs);
	assert_int_equal(m->pdeathsig, SIGUSR2);
	assert_int_equal(m->dumpable, 1);
	snapshot_deinit(&s);
	finish(from);
	move(run_mixture);
}

static void test_second_mixture(void **state)
{
	(void)state;
	move(run_second_mixture);
}

static void test_user(void **state)
{
	(void)state;
	move(run_user);
	/* Threads race for the dumpable flag. */
	for (int i = 0; i < 5; i++)
		move(run_user_dumpable);
}

static void test_root(void **state)
{
	(void)state;
	move(run_plain);
}

static void test_check(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct snapshot s;
	struct rebuild r = {.snapshot = &s};
	pid_t pid = begin(run_user);

	capture(pid, kinds, &s);
	Ferry__Creds *m = (void *)snapshot_find(&s, FERRY__RECORD_TYPE__RECORD_CREDS, pid, pid);

	assert_int_equal(kind_creds.check(&r, pid, pid, &m->base, &e), 0);
	/* Give up one capability for good, in a child, and ask there. */
	pid_t child = fork();

	if (child == 0) {
		uint64_t full = m->bounding;

		m->permitted = full;
		if (kind_creds.check(&r, pid, pid, &m->base, &e) != 0)
			_exit(1);
		set_caps(full & ~BIT(CAP_CHOWN), full & ~BIT(CAP_CHOWN), 0);
		if (kind_creds.check(&r, pid, pid, &m->base, &e) != -EPERM || !strstr(e.text, "cap_chown"))
			_exit(2);
		_exit(0);
	}
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	snapshot_deinit(&s);
	finish(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mixture), cmocka_unit_test(test_second_mixture),
		cmocka_unit_test(test_user),    cmocka_unit_test(test_root),
		cmocka_unit_test(test_check),
	};

	if (geteuid() != 0)
		return 0; /* changing credentials takes root */
	return cmocka_run_group_tests(tests, shared_setup, NULL);
}
