/* SPDX-License-Identifier: Apache-2.0 */
/* The target and a process that is not in its tree have the same userfaultfd. */
#include "uffd-monitor.h"

int main(int argc, char **argv)
{
	test_init(argc, argv);
	outside_monitor_main(true);
}
