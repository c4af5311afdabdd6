/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/resource.h>

#include "zdtm.h"

int main(int argc, char **argv)
{
	struct rlimit want[RLIM_NLIMITS], is;

	test_init(argc, argv);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		MUST(getrlimit(i, &is));
		if (is.rlim_max == RLIM_INFINITY || is.rlim_max > 1UL << 40)
			is.rlim_max = (1UL << 40) + (i + 1) * 4096UL;
		else if (is.rlim_max > 1000)
			is.rlim_max -= i + 1;
		is.rlim_cur = is.rlim_max / 2;
		if (i == RLIMIT_STACK)
			is.rlim_cur = 12 << 20;
		if (i == RLIMIT_CPU)
			is = (struct rlimit){100000, RLIM_INFINITY};
		if (i == RLIMIT_CORE)
			is = (struct rlimit){0, 0};
		MUST(setrlimit(i, &is));
		MUST(getrlimit(i, &want[i]));
	}
	test_ready();
	test_wait();
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		MUST(getrlimit(i, &is));
		CHECK(is.rlim_cur == want[i].rlim_cur && is.rlim_max == want[i].rlim_max,
		      "limit %d is %llu/%llu, was %llu/%llu", i, (unsigned long long)is.rlim_cur,
		      (unsigned long long)is.rlim_max, (unsigned long long)want[i].rlim_cur,
		      (unsigned long long)want[i].rlim_max);
	}
	test_pass();
}
