/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What every live test needs.  A test sets up one kind of state, calls test_ready(), waits with test_wait()
 * (this is where it is dumped or migrated), then checks itself and ends with test_pass() or test_fail().
 *
 * All talk with the runner goes through files in one directory, by absolute path, so that the waiting itself
 * needs no state worth mentioning: no descriptor is held, no handler is set.
 *   pid     written by test_init        ready   made by test_ready
 *   go      made by the runner          result  "pass", "fail: ..." or "skip: ..."; the first one written
 * stays log     stdout and stderr of the test
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* Daemonises: own session, descriptors 0 to 2 on /dev/null and the log, nothing else open, signals at their
 * default. */
void test_init(int argc, char **argv);
/* The directory as the test sees it from now on (after a chroot, for example). */
void test_set_dir(const char *dir);
/* DIR/name. The string stays good for the next 15 calls of the thread. */
const char *test_path(const char *name);

void test_ready(void);
/* Not told to go on yet? For tests that are busy while they are copied. */
bool test_waiting(void);
void test_wait(void);
/* Wait at most @ms; true while there is more to wait. */
bool test_wait_ms(unsigned ms);
void test_sleep_ms(unsigned ms);

_Noreturn void test_pass(void);
_Noreturn void test_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The whole process ends; the reason and errno in words go into the result. Also from threads and children.
 */
_Noreturn void test_fail_at(const char *where, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define ZDTM_STR2(x)   #x
#define ZDTM_STR(x)    ZDTM_STR2(x)
#define test_fail(...) test_fail_at(__FILE_NAME__ ":" ZDTM_STR(__LINE__), __VA_ARGS__)
#define CHECK(cond, ...)                        \
	do {                                    \
		if (!(cond))                    \
			test_fail(__VA_ARGS__); \
	} while (0)
/* A call that returns -1 with errno when it fails. */
#define MUST(call)                                        \
	({                                                \
		__typeof__(call) must_ret = (call);       \
		if (must_ret == (__typeof__(must_ret))-1) \
			test_fail("%s", #call);           \
		must_ret;                                 \
	})
/* A call that returns 0 or an error number, as those of pthreads do. */
#define MUST0(call)                             \
	do {                                    \
		errno = (call);                 \
		if (errno)                      \
			test_fail("%s", #call); \
	} while (0)
#define CHECK_EQ(a, b)                                                                       \
	do {                                                                                 \
		long long eq_a = (long long)(a), eq_b = (long long)(b);                      \
		errno = 0;                                                                   \
		if (eq_a != eq_b)                                                            \
			test_fail("%s is %lld (0x%llx), not %lld (0x%llx)", #a, eq_a,        \
				  (unsigned long long)eq_a, eq_b, (unsigned long long)eq_b); \
	} while (0)

/* fork() that cannot fail. */
pid_t test_fork(void);
/* The child must end by exit(@code). */
void test_reap(pid_t pid, int code);
/* Wait until /proc says the task is in one of the @states ("S", "T", "Z"...). */
void test_wait_state(pid_t tid, const char *states);
/* A flag in shared memory, for tests with children: 0 to begin with. */
volatile int *test_shared_flags(size_t n);

/* A file of /proc as text (with a zero byte behind it), up to what fits. Returns the length. */
size_t test_read_file(const char *path, char *buf, size_t size);
void test_write_file(const char *path, const char *text);

void *test_map(size_t size, int prot, int flags);
/* Fill with, and check for, bytes that depend on position and seed. */
void test_fill(void *p, size_t size, uint64_t seed);
void test_check_fill(const void *p, size_t size, uint64_t seed, const char *what);
uint64_t test_random(uint64_t *state);
