/* SPDX-License-Identifier: Apache-2.0 */
/*	stress [-r ROUNDS] [-b BACKEND] [-d DIR] [-l engine|backend] [-c CGROUP] [-v] WAY...
 * One line per way and level: level way verdict rounds compares compared different reported needless text */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stress.h"

static const char *const verdicts[] = {"equal", "DIFFERS", "refused", "skipped", "FAILED"};

static int run(const struct stress_options *o, const char *level, const struct way_info *way)
{
	struct stress_result r = {0};
	bool backend = !strcmp(level, "backend");

	if (backend)
		stress_backend(o, way, &r);
	else
		stress_engine(o, way, &r);
	printf("%s\t%s\t%s\t%u\t%u\t%llu\t%llu\t%llu\t%llu\t%s\n", level, way->name, verdicts[r.verdict],
	       r.rounds, r.compares, (unsigned long long)r.compared, (unsigned long long)r.different,
	       (unsigned long long)r.reported, (unsigned long long)r.needless, r.text);
	fflush(stdout);
	/* What a backend alone cannot see is shown, and the engine must have the cure. */
	return r.verdict == STRESS_FAILED ||
	       (r.verdict == STRESS_DIFFERS && !(backend && (way->flags & WAY_BLIND)));
}

static int list(void)
{
	for (const struct way_info *w = way_infos; w->name; w++)
		printf("%s\t%u\t%s\n", w->name, w->flags, w->about);
	return 0;
}

int main(int argc, char **argv)
{
	struct stress_options o = {.backend = "auto", .rounds = 1000, .seed = 1};
	const char *level = NULL;
	int opt, bad = 0;

	while ((opt = getopt(argc, argv, "r:b:d:l:c:s:vL")) >= 0)
		switch (opt) {
		case 'r':
			o.rounds = (unsigned)atoi(optarg);
			break;
		case 'b':
			o.backend = optarg;
			break;
		case 'd':
			o.backend_dir = optarg;
			break;
		case 'l':
			level = optarg;
			break;
		case 'c':
			o.cgroup = optarg;
			break;
		case 's':
			o.seed = (unsigned)atoi(optarg);
			break;
		case 'v':
			o.verbose = true;
			break;
		case 'L':
			return list();
		default:
			return 2;
		}
	for (; optind < argc; optind++) {
		const struct way_info *way = way_info(argv[optind]);

		if (!way) {
			fprintf(stderr, "no such way: %s\n", argv[optind]);
			return 2;
		}
		if (!level || !strcmp(level, "backend"))
			bad |= (way->flags & WAY_ENGINE) ? 0 : run(&o, "backend", way);
		if (!level || !strcmp(level, "engine"))
			bad |= run(&o, "engine", way);
	}
	return bad;
}
