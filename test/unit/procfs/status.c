/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "procfs/procfs.h"

#define MASKS                                                                                           \
	"SigPnd:\t0000000000000001\nShdPnd:\t0000000000000002\nSigBlk:\tfffffffe7ffbfeff\nSigIgn:\t4\n" \
	"SigCgt:\t8\nCapInh:\t0\nCapPrm:\t000001ffffffffff\nCapEff:\t10\nCapBnd:\t20\nCapAmb:\t40\n"

static void test_text(void **state)
{
	(void)state;
	static const char text[] =
		"Name:\tTgid:\\n7\nUmask:\t0027\nTgid:\t12\nPPid:\t1\nTracerPid:\t3\n"
		"Uid:\t0\t1\t2\t4294967295\nGid:\t5\t6\t7\t8\nGroups:\t1 65534 \n"
		"NSpid:\t12\t4\t1\nVmPin:\t      64 kB\nRssAnon:\t 8 kB\nRssShmem:\t 12 kB\n"
		"VmSwap:\t 4 kB\n" MASKS "NoNewPrivs:\t1\nSeccomp:\t2\n";
	struct proc_status s;
	struct error e = ERROR_INIT;

	assert_int_equal(proc_status_parse(text, &s, &e), 0);
	assert_int_equal(s.tgid, 12);
	assert_int_equal(s.tracer, 3);
	assert_true(s.has_umask);
	assert_int_equal(s.umask, 027);
	assert_int_equal(s.uid[3], 4294967295);
	assert_int_equal(s.gid[0], 5);
	assert_int_equal(s.n_groups, 2);
	assert_int_equal(s.groups[1], 65534);
	assert_int_equal(s.n_ns_pid, 3);
	assert_int_equal(s.ns_pid[2], 1);
	assert_int_equal(s.sig_blk, 0xfffffffe7ffbfeff);
	assert_int_equal(s.cap_amb, 0x40);
	assert_int_equal(s.vm_pin_kb, 64);
	assert_int_equal(s.rss_anon_kb, 8);
	assert_int_equal(s.rss_shmem_kb, 12);
	assert_int_equal(s.swap_kb, 4);
	assert_int_equal(s.no_new_privs, 1);
	assert_int_equal(s.seccomp, 2);
	assert_int_equal(s.thp_enabled, -1);
	proc_status_deinit(&s);
}

static void test_malformed(void **state)
{
	(void)state;
	static const char head[] = "Tgid:\t1\nPPid:\t0\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n";
	static const char *const bad[] = {
		"",
		"Groups:\t1 x\nNSpid:\t1\n" MASKS,
		"Groups:\t\nNSpid:\t1 y\n" MASKS,
		"Groups:\t\nNSpid:\t1\n",
		"Groups:\t1 4294967296\n" MASKS,
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[1024];
		struct proc_status s;
		struct error e = ERROR_INIT;

		snprintf(text, sizeof(text), "%s%s", head, bad[i]);
		assert_int_equal(proc_status_parse(text, &s, &e), -EINVAL);
	}
}

static void test_self(void **state)
{
	(void)state;
	struct proc_status s;
	struct error e = ERROR_INIT;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR1);
	mode_t old = umask(0123);

	prctl(PR_SET_NAME, "Tgid:\t1\nUid: 7");
	assert_int_equal(proc_status_read(getpid(), gettid(), &s, &e), 0);
	assert_int_equal(s.tgid, getpid());
	assert_int_equal(s.uid[0], getuid());
	assert_int_equal(s.umask, 0123);
	assert_int_equal(s.sig_blk, 1ull << (SIGUSR1 - 1));
	assert_int_equal(s.sig_pnd, 1ull << (SIGUSR1 - 1));
	assert_true(s.n_ns_pid >= 1);
	proc_status_deinit(&s);
	umask(old);
}

static void test_fields(void **state)
{
	(void)state;
	static const char text[] = "pos:\t0\nflags:\t0100002\nxpos: 9\neventfd-count: \t   1f\nmnt_id:\n";
	uint64_t v;

	assert_string_equal(proc_field(text, "pos"), text + 5);
	assert_null(proc_field(text, "po"));
	assert_null(proc_field(text, "s"));
	assert_true(proc_field_u64(text, "flags", 8, &v));
	assert_int_equal(v, 0100002);
	assert_true(proc_field_u64(text, "eventfd-count", 16, &v));
	assert_int_equal(v, 0x1f);
	assert_false(proc_field_u64(text, "mnt_id", 10, &v));
	assert_false(proc_field_u64("a: 18446744073709551616", "a", 10, &v));
	assert_true(proc_field_u64("a: 18446744073709551615", "a", 10, &v));
	assert_int_equal(v, ~0ull);
	assert_false(proc_field_u64("a: 9", "a", 8, &v));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_self),
		cmocka_unit_test(test_fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
