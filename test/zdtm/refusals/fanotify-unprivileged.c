/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/fanotify.h>
#include <sys/syscall.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];

	test_init(argc, argv);
	MUST(syscall(SYS_capget, &header, caps));
	caps[0].effective &= ~(1u << CAP_SYS_ADMIN);
	MUST(syscall(SYS_capset, &header, caps));
	if (fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY) < 0)
		test_skip("no fanotify without privileges: %s", strerror(errno));
	test_ready();
	test_wait();
	test_pass();
}
