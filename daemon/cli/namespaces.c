/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces that a restored tree lives in, other than those ferry was called in: ferry enters them before it
 * builds anything, and its children are there then (setns(2), unshare(2)).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"
#include "service/script.h"

/* Of the others the images, the parasite or pids would be others, too. */
static const struct kind {
	const char *name;
	int flag;
} kinds[] = {{"net", CLONE_NEWNET}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}};

static const struct kind *kind_of(const char *text, size_t length)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strlen(kinds[i].name) == length && !strncmp(kinds[i].name, text, length))
			return &kinds[i];
	return NULL;
}

static int join(const char *arg, struct error *e)
{
	const char *colon = strchr(arg, ':');
	const struct kind *k = colon ? kind_of(arg, (size_t)(colon - arg)) : NULL;

	if (!colon || !colon[1])
		return error_say(e, EINVAL, "--join-ns %s: it has the form NS:PATH", arg);
	if (!k)
		return error_say(
			e, ENOTSUP,
			"--join-ns %s: namespaces of this kind are entered by nsenter(1), with all of "
			"ferry restore; net, ipc and uts are joined",
			arg);
	cleanup_close int fd = open(colon + 1, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "--join-ns: open %s", colon + 1);
	if (ioctl(fd, NS_GET_NSTYPE) != k->flag)
		return error_say(e, EINVAL, "--join-ns: %s is no %s namespace", colon + 1, k->name);
	return setns(fd, k->flag) < 0 ? error_set(e, errno, "join the namespace %s", colon + 1) : 0;
}

int cli_check_empty_ns(const struct cli *c, struct error *e)
{
	return !c->o.empty_ns || !strcmp(c->o.empty_ns, "net")
		       ? 0
		       : error_say(e, EINVAL, "--empty-ns %s: only net can be an empty one", c->o.empty_ns);
}

int cli_enter_namespaces(const struct cli *c, const struct script *s, struct error *e)
{
	int r = cli_check_empty_ns(c, e);

	for (size_t i = 0; i < c->o.join_ns.n && r >= 0; i++)
		r = join(c->o.join_ns.v[i], e);
	if (r >= 0 && c->o.empty_ns && unshare(CLONE_NEWNET) < 0)
		r = error_set(e, errno, "make a network namespace");
	if (r < 0 || (!c->o.empty_ns && !c->o.join_ns.n))
		return r;
	r = script_run(s, "setup-namespaces", getpid(), e);
	return r < 0 ? r : script_run(s, "post-setup-namespaces", getpid(), e);
}
