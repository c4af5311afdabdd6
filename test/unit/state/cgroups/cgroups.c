/* SPDX-License-Identifier: Apache-2.0 */
/* Names, lists, and what a destination would refuse, on directories that play groups of version 2. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/util.h"
#include "state/cgroups/cgroups.h"

static void lists(void **state)
{
	(void)state;
	assert_true(cgroup_list_within("0-3,8", "0-9"));
	assert_true(cgroup_list_within("", "0"));
	assert_true(cgroup_list_within("1", "0,1"));
	assert_false(cgroup_list_within("0-3,8", "0-7"));
	assert_false(cgroup_list_within("4", "0-3,5-8"));
	assert_false(cgroup_list_within("3-1", "0-9"));
	assert_false(cgroup_list_within("x", "0-9"));
	assert_false(cgroup_list_within("0-99999999", "0-99999999"));
}

static void paths(void **state)
{
	static const char *const good[] = {"/", "/a", "/a/b.scope", "/..a", "/a..", "/ b"};
	static const char *const bad[] = {"",   "a",   "//",      "/a/",    "/a//b",
					  "/.", "/..", "/a/../b", "/a/./b", "/a\nb"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(cgroup_path_ok(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(cgroup_path_ok(bad[i]));
}

static void roots(void **state)
{
	static const struct {
		const char *controllers, *path;
	} want[] = {
		{"cpu", "/c"}, {"cpuacct,cpu", "/c"}, {"cpuset", "/x"}, {"name=systemd", "/n"}, {"", "/x"}};
	static const char *const bad[] = {"x", "cpu:x", "/..", "cpu:/a/..", ":", ""};
	struct error e = ERROR_INIT;
	char *list = NULL;

	(void)state;
	assert_int_equal(cgroup_root_add("cpu:/c", &list, &e), 0);
	assert_null(cgroup_root_of(list, "memory"));
	assert_int_equal(cgroup_root_add("/x", &list, &e), 0);
	assert_int_equal(cgroup_root_add("name=systemd:/n", &list, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		cleanup_free char *path = cgroup_root_of(list, want[i].controllers);

		assert_string_equal(path, want[i].path);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(cgroup_root_add(bad[i], &list, &e) < 0);
		error_clear(&e);
	}
	free(list);
}

static void values(void **state)
{
	const struct cgroup_property *p = cgroup_property_find("memory.limit_in_bytes", false);

	(void)state;
	assert_true(cgroup_property_is_default(p, "9223372036854771712"));
	assert_true(cgroup_property_is_default(p, "9223372036852678656")); /* whole huge pages */
	assert_false(cgroup_property_is_default(p, "1073741824"));
	p = cgroup_property_find("cpu.max", true);
	assert_true(cgroup_property_is_default(p, "max 100000"));
	assert_false(cgroup_property_is_default(p, "50000 100000"));
	/* What makes the machine run a program, or is of the other version, is none. */
	assert_null(cgroup_property_find("release_agent", false));
	assert_null(cgroup_property_find("notify_on_release", false));
	assert_null(cgroup_property_find("cgroup.procs", true));
	assert_null(cgroup_property_find("cpu.max", false));
}

/* --- what a destination refuses --------------------------------------------------------------------------
 */

static char root[] = "/tmp/ferry-unit-cgroups-XXXXXX";

static void file(const char *dir, const char *name, const char *text)
{
	cleanup_free char *path = xasprintf("%s%s/%s", root, dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void group(const char *dir, const char *controllers, const char *on)
{
	cleanup_free char *path = xasprintf("%s%s", root, dir);

	assert_true(!*dir || mkdir(path, 0755) == 0);
	file(dir, "cgroup.procs", "");
	file(dir, "cgroup.events", "populated 0\nfrozen 0\n");
	file(dir, "cgroup.controllers", controllers);
	file(dir, "cgroup.subtree_control", on);
}

/* One group, /a/b, with one value. */
static int check(const char *name, const char *value, enum cgroup_mode mode, struct error *e)
{
	Ferry__CgroupProperty p = FERRY__CGROUP_PROPERTY__INIT, *ps[] = {&p};
	Ferry__CgroupGroup g = FERRY__CGROUP_GROUP__INIT, *gs[] = {&g};
	Ferry__CgroupHierarchy h = FERRY__CGROUP_HIERARCHY__INIT, *hs[] = {&h};
	Ferry__Cgroups m = FERRY__CGROUPS__INIT;
	cleanup_free char *dir = xasprintf("%s/a/b", root);
	struct cgroup_place place = {.group = &g, .path = (char *)"/a/b", .dir = dir};
	struct cgroup_tree tree = {
		.hierarchy = &h, .v2 = true, .root = root, .base = (char *)"/a/b", .places = &place};
	struct cgroup_plan plan = {.record = &m, .trees = &tree};

	p.name = (char *)name;
	p.value = (char *)value;
	g.path = (char *)"";
	g.properties = ps;
	g.n_properties = 1;
	h.groups = gs;
	h.n_groups = 1;
	m.hierarchies = hs;
	m.n_hierarchies = 1;
	error_clear(e);
	return cgroup_plan_check(&plan, mode, e);
}

static void refusals(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	assert_non_null(mkdtemp(root));
	group("", "cpu memory cpuset\n", "cpu\n");
	file("", "cpuset.cpus.effective", "0-1\n");
	/* Neither the group nor the one above it is there. */
	assert_int_equal(check("cpu.max", "1000 10000", CGROUPS_SOFT, &e), 0);
	assert_int_equal(check("memory.max", "1048576", CGROUPS_SOFT, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "does not hand on the controller memory"));
	assert_int_equal(check("memory.max", "max", CGROUPS_SOFT, &e), 0); /* as it is anyway */
	assert_int_equal(check("cpuset.cpus", "0-3", CGROUPS_SOFT, &e), -EINVAL);
	assert_non_null(strstr(e.text, "this machine has 0-1"));
	assert_int_equal(check("release_agent", "/bin/sh", CGROUPS_SOFT, &e), -EBADMSG);
	assert_int_equal(check("../cpu.max", "1", CGROUPS_SOFT, &e), -EBADMSG);
	assert_int_equal(check("cpu.max", "1 1\n2 2", CGROUPS_SOFT, &e), -EBADMSG);
	assert_int_equal(check("cpu.max", "1000 10000", CGROUPS_NONE, &e), -ENOENT);
	assert_int_equal(check("cpu.max", "1000 10000", CGROUPS_PROPS, &e), -ENOENT);
	/* It is there. */
	group("/a", "cpu\n", "cpu\n");
	group("/a/b", "cpu\n", "");
	file("/a/b", "cpu.max", "max 100000\n");
	assert_int_equal(check("cpu.max", "1000 10000", CGROUPS_STRICT, &e), -EEXIST);
	assert_int_equal(check("cpu.max", "1000 10000", CGROUPS_FULL, &e), 0);
	assert_int_equal(check("memory.max", "1048576", CGROUPS_NONE, &e), 0);
	assert_int_equal(check("memory.max", "1048576", CGROUPS_SOFT, &e), 0); /* it is not set */
	assert_int_equal(check("memory.max", "1048576", CGROUPS_PROPS, &e), -ENOENT);
	assert_non_null(strstr(e.text, "memory.max of the cgroup"));
	file("/a/b", "cgroup.events", "populated 1\nfrozen 1\n");
	assert_int_equal(check("cpu.max", "1000 10000", CGROUPS_NONE, &e), -EBUSY);
	cleanup_free char *clear = xasprintf("rm -r %s", root);

	assert_int_equal(system(clear), 0);
}

/* --- undoing ---------------------------------------------------------------------------------------------
 */

static void undoing(void **state)
{
	static const bool undo[] = {true, false};
	struct error e = ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(undo); i++) {
		char dir[] = "/tmp/ferry-unit-cgroups-XXXXXX";
		cleanup_free char *made = NULL, *other = NULL;
		struct cgroup_undo *u;

		assert_non_null(mkdtemp(dir));
		made = xasprintf("%s/k", dir);
		other = xasprintf("%s/other", dir);
		assert_int_equal(mkdir(other, 0755), 0);
		cleanup_free char *value = xasprintf("%s/kk", dir);
		FILE *f = fopen(value, "w");

		fclose(f);
		assert_int_equal(cgroup_undo_new(&u, &e), 0);
		assert_int_equal(cgroup_undo_made(u, made, &e), 0);
		assert_int_equal(mkdir(made, 0755), 0);
		assert_int_equal(cgroup_undo_value(u, dir, "kk", "before", &e), 0);
		assert_int_equal(cgroup_write(dir, "kk", "after!"), 0);
		/* Somebody else made that one. */
		assert_int_equal(cgroup_undo_made(u, other, &e), 0);
		assert_int_equal(cgroup_undo_not(u, &e), 0);
		assert_true(cgroup_undo_has_made(u, made));
		assert_false(cgroup_undo_has_made(u, other));
		cgroup_undo_free(u, undo[i]);
		cleanup_free char *now = cgroup_read(dir, "kk");

		assert_string_equal(now, undo[i] ? "before" : "after!");
		assert_int_equal(access(made, F_OK) == 0, !undo[i]);
		assert_int_equal(access(other, F_OK), 0);
		cleanup_free char *clear = xasprintf("rm -r %s", dir);

		assert_int_equal(system(clear), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists),  cmocka_unit_test(paths),    cmocka_unit_test(roots),
		cmocka_unit_test(values), cmocka_unit_test(refusals), cmocka_unit_test(undoing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
