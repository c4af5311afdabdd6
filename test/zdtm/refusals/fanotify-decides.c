/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sys/fanotify.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	test_init(argc, argv);
	if (fanotify_init(FAN_CLASS_CONTENT, O_RDONLY) < 0)
		test_skip("no fanotify that decides: %s", strerror(errno));
	test_ready();
	test_wait();
	test_pass();
}
