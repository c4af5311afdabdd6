/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings that are refused by what smaps says of them, where no machine at hand has the thing itself. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "procfs/procfs.h"
#include "state/memory/memory.h"
#include "state/memory/named.h"

static void refused(const char *flags, const char *what)
{
	char text[512];
	struct proc_maps maps;
	struct capture c = {0};
	struct error e = ERROR_INIT;
	Ferry__Vma *v = NULL;

	snprintf(text, sizeof(text),
		 "7f0000000000-7f0000200000 rw-s 00000000 103:02 77 /pmem/log\n"
		 "Size:               2048 kB\nVmFlags: %s\n",
		 flags);
	assert_int_equal(proc_maps_parse(text, &maps, &e), 0);
	assert_int_equal(maps.n, 1);
	assert_int_equal(vma_describe(&c, 4711, &maps.v[0], &v, &e), -ENOTSUP);
	assert_null(v);
	assert_non_null(strstr(e.text, "pid 4711"));
	assert_non_null(strstr(e.text, "0x7f0000000000-0x7f0000200000 of /pmem/log"));
	assert_non_null(strstr(e.text, what));
	proc_maps_deinit(&maps);
}

static void test_refused(void **state)
{
	(void)state;
	refused("rd wr sh mr mw me ms sf", "MAP_SYNC");
	refused("rd wr sh mr mw me ms io", "device memory");
	refused("rd wr sh mr mw me ms pf", "device memory");
	refused("rd wr sh mr mw me ms sl", "mseal");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
