/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/perf_event.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct perf_event_attr a = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(a), .config = PERF_COUNT_SW_TASK_CLOCK};

	test_init(argc, argv);
	if (syscall(SYS_perf_event_open, &a, 0, -1, -1, 0UL) < 0)
		test_skip("no perf events: %s", strerror(errno));
	test_ready();
	test_wait();
	test_pass();
}
