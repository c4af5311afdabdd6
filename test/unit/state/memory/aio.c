/* SPDX-License-Identifier: Apache-2.0 */
/* How large a ring of asynchronous I/O gets, as seen on Linux 6.18 with 2 CPUs, and what to ask for to get
 * one of that size elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "state/memory/aio.h"

static void test_sizes(void **state)
{
	(void)state;
	assert_int_equal(aio_events(1, 2), 127);
	assert_int_equal(aio_events(201, 2), 511);
	assert_int_equal(aio_events(401, 2), 895);
	assert_int_equal(aio_events(1, 64), 639);
}

/* The kernel has the last word. */
static void test_this_kernel(void **state)
{
	static const unsigned asked[] = {4094, 4095, 4096, 5000} /* more than eight for each CPU */;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		aio_context_t c = 0;

		if (syscall(SYS_io_setup, asked[i], &c) < 0)
			skip();
		uint32_t nr = ((const struct aio_ring *)c)->nr;

		syscall(SYS_io_destroy, c);
		assert_int_equal(nr, aio_events(asked[i], 1));
	}
}

static void test_requests(void **state)
{
	(void)state;
	assert_int_equal(aio_requests(511, 201, 2), 201);
	/* 1 was asked for on a machine that can have 64 CPUs: here more must be. */
	assert_int_equal(aio_events(aio_requests(639, 1, 2), 2), 639);
	/* And the other way it is not possible. */
	assert_int_equal(aio_requests(127, 1, 64), 0);
	assert_int_equal(aio_requests(0, 0, 2), 0);
	assert_int_equal(aio_requests(128, 0, 2), 0);
	for (uint64_t n = 1; n < 5000; n++)
		assert_int_equal(aio_events(aio_requests(aio_events(n, 4), 0, 4), 4), aio_events(n, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_this_kernel),
		cmocka_unit_test(test_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
