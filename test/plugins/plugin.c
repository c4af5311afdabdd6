/* SPDX-License-Identifier: Apache-2.0 */
/* A backend that does nothing, with the defect PLUGIN_... asks for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ferry/dirty_backend.h"

#ifdef PLUGIN_crash_load
__attribute__((constructor)) static void crash(void)
{
	abort();
}
#endif

#if defined(PLUGIN_hang_probe) || defined(PLUGIN_hang_collect) || defined(PLUGIN_hang_closed)
static void hang(void)
{
	for (;;)
		pause();
}
#endif

static int probe(char *why, size_t why_size)
{
#if defined(PLUGIN_refuses)
	snprintf(why, why_size, "it never works");
	return -EOPNOTSUPP;
#elif defined(PLUGIN_bad_probe)
	(void)why;
	(void)why_size;
	return 7;
#elif defined(PLUGIN_crash_probe)
	*(volatile char *)why_size = why[0]; /* the arguments mixed up */
	return 0;
#elif defined(PLUGIN_hang_probe)
	(void)why;
	(void)why_size;
	hang();
	return 0;
#elif defined(PLUGIN_hang_closed)
	(void)why;
	(void)why_size;
	for (int fd = 0; fd < 1024; fd++)
		close(fd);
	hang();
	return 0;
#elif defined(PLUGIN_exit_probe)
	(void)why;
	(void)why_size;
	_exit(3);
#else
	(void)why;
	(void)why_size;
	return 0;
#endif
}

static int attach(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size)
{
#if defined(PLUGIN_crash_attach)
	(void)t;
	(void)ret;
	(void)why;
	(void)why_size;
	abort();
#elif defined(PLUGIN_crash_collect) || defined(PLUGIN_hang_collect)
	(void)t;
	(void)why;
	(void)why_size;
	*ret = malloc(1);
	return 0;
#else
	(void)t;
	(void)ret;
	snprintf(why, why_size, "for tests only");
	return -EOPNOTSUPP;
#endif
}

static int pass(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	(void)s;
	(void)mode;
	(void)why;
	(void)why_size;
	return 0;
}

static int arm(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size)
{
	(void)s;
	(void)v;
	(void)why;
	(void)why_size;
#if defined(PLUGIN_crash_collect) || defined(PLUGIN_hang_collect)
	return 0;
#else
	return 1;
#endif
}

static ssize_t collect(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		       const struct dirty_range **ret_ranges, char *why, size_t why_size)
{
	(void)s;
	(void)v;
	(void)mode;
	(void)ret_ranges;
	(void)why;
	(void)why_size;
#if defined(PLUGIN_crash_collect)
	abort();
#elif defined(PLUGIN_hang_collect)
	hang();
	return 0;
#else
	return -EPERM;
#endif
}

static void detach(struct dirty_session *s)
{
	free(s);
}

static const struct dirty_backend_ops ops = {
	.abi_version = FERRY_DIRTY_BACKEND_ABI,
	.size = sizeof(ops),
	.name = PLUGIN,
	.summary = "a plugin for tests",
	.priority = 10,
	.kinds = DIRTY_KIND(DIRTY_VMA_ANON),
	.probe = probe,
	.attach = attach,
	.begin = pass,
	.arm = arm,
	.collect = collect,
	.end = pass,
	.detach = detach,
};

#ifndef PLUGIN_no_export
const struct dirty_backend_ops *ferry_dirty_backend(void)
{
	static struct dirty_backend_ops o;

	o = ops;
#if defined(PLUGIN_null)
	return NULL;
#elif defined(PLUGIN_better)
	o.priority = 11;
#elif defined(PLUGIN_abi)
	o.abi_version = 4711;
#elif defined(PLUGIN_old_abi)
	o.abi_version = 1;
	o.size = 80;
	o.probe = NULL; /* wherever it was then */
#elif defined(PLUGIN_large)
	o.size = 4096; /* newer, of the same version: what is behind the known part is not looked at */
#elif defined(PLUGIN_small)
	o.size = 8;
#elif defined(PLUGIN_no_name)
	o.name = NULL;
#elif defined(PLUGIN_other_name)
	o.name = "good";
#elif defined(PLUGIN_no_probe)
	o.probe = NULL;
#elif defined(PLUGIN_no_attach)
	o.attach = NULL;
#elif defined(PLUGIN_no_begin)
	o.begin = NULL;
#elif defined(PLUGIN_no_end)
	o.end = NULL;
#elif defined(PLUGIN_no_kinds)
	o.kinds = 0;
#elif defined(PLUGIN_no_arm)
	o.arm = NULL;
#elif defined(PLUGIN_no_collect)
	o.collect = NULL;
#elif defined(PLUGIN_no_detach)
	o.detach = NULL;
#endif
#if defined(PLUGIN_unresolved)
	extern int ferry_no_such_function(void);

	o.priority = (uint32_t)ferry_no_such_function();
#endif
	return &o;
}
#else
const struct dirty_backend_ops *other_symbol(void);
const struct dirty_backend_ops *other_symbol(void)
{
	return &ops;
}
#endif
