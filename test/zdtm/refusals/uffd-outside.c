/* SPDX-License-Identifier: Apache-2.0 */
/* The faults of the target are handled by a process that is not in its tree. */
#include "uffd-monitor.h"

int main(int argc, char **argv)
{
	test_init(argc, argv);
	outside_monitor_main(false);
}
