/* SPDX-License-Identifier: Apache-2.0 */
/* Memory protection keys: which are allocated, what they are on, and the rights of two threads. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "zdtm.h"

static __thread sigjmp_buf back;
static int key[4];
static char *mem[4];

static void handler(int sig, siginfo_t *i, void *ctx)
{
	(void)sig, (void)i, (void)ctx;
	siglongjmp(back, 1);
}

static bool can_write(int i)
{
	if (sigsetjmp(back, 1))
		return false;
	*(volatile char *)mem[i] = 'w';
	return true;
}

static bool can_read(int i)
{
	if (sigsetjmp(back, 1))
		return false;
	(void)*(volatile char *)mem[i];
	return true;
}

static void *other(void *arg)
{
	pkey_set(key[0], 0);
	pkey_set(key[2], PKEY_DISABLE_ACCESS);
	test_wait();
	CHECK(can_write(0) && !can_read(2), "the rights of the other thread");
	return arg;
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	pthread_t t;

	test_init(argc, argv);
	sigaction(SIGSEGV, &sa, NULL);
	for (int i = 0; i < 4; i++) {
		key[i] = pkey_alloc(0, 0);
		if (key[i] < 0)
			test_skip("no protection keys: %s", strerror(errno));
		mem[i] = test_map(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
		mem[i][8] = (char)('a' + i);
	}
	MUST(pkey_free(key[1])); /* a gap */
	for (int i = 0; i < 4; i++)
		if (i != 1)
			MUST(pkey_mprotect(mem[i], 4096, PROT_READ | PROT_WRITE, key[i]));
	pkey_set(key[0], PKEY_DISABLE_WRITE);
	pkey_set(key[2], 0);
	pkey_set(key[3], PKEY_DISABLE_ACCESS);
	MUST0(pthread_create(&t, NULL, other, NULL));
	test_sleep_ms(20);
	test_ready();
	test_wait();
	CHECK(can_read(0) && !can_write(0), "the first key");
	CHECK(can_write(2), "the third key");
	CHECK(!can_read(3), "the fourth key");
	MUST0(pthread_join(t, NULL));
	pkey_set(key[3], 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(mem[i][8], 'a' + i);
	CHECK_EQ(pkey_alloc(0, 0), key[1]);
	CHECK(pkey_alloc(0, 0) > key[3], "another key was free");
	test_pass();
}
