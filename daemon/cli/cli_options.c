/* SPDX-License-Identifier: Apache-2.0 */
/* From options as typed to what the engine takes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"
#include "procfs/owner.h"
#include "cli/cli.h"
#include "state/cgroups/cgroups.h"

int cli_open_images(struct cli *c, struct error *e)
{
	int fd = open(c->o.images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? error_set(e, errno, "cannot open the images directory %s", c->o.images_dir) : fd;
}

char *cli_images_path(const struct cli *c)
{
	char *path = realpath(c->o.images_dir, NULL);

	return path ? path : xstrdup(c->o.images_dir);
}

int cli_parse_external(struct cli *c, struct error *e)
{
	int r = 0;

	c->inherited = xcalloc(c->o.inherit_fd.n + 1, sizeof(*c->inherited));
	for (size_t i = 0; r >= 0 && i < c->o.external.n; i++)
		r = external_add(c->o.external.v[i], &c->externals, e);
	for (size_t i = 0; r >= 0 && i < c->o.inherit_fd.n; i++)
		r = inherited_parse(c->o.inherit_fd.v[i], &c->inherited[i], e);
	return r;
}

void cli_free_external(struct cli *c)
{
	for (size_t i = 0; c->inherited && i < c->o.inherit_fd.n; i++)
		free(c->inherited[i].key);
	free(c->externals);
	free(c->cgroup_roots);
	free(c->inherited);
}

void cli_state_options(const struct cli *c, struct state_options *ret)
{
	*ret = (struct state_options){
		.tcp_close = c->o.tcp_close,
		.tcp_established = c->o.tcp_established,
		.move_address = c->o.move_address,
		.shell_job = c->o.shell_job,
		.ext_unix_sk = c->o.ext_unix_sk,
		.file_locks = c->o.file_locks,
		.link_remap = c->o.link_remap,
		.ghost_limit = c->o.ghost_limit,
		.root = c->o.root,
		.externals = c->externals,
		.cgroups = c->cgroups,
		.cgroup_base = c->verb->bit & (VERB_DUMP | VERB_PREDUMP) ? c->cgroup_roots : NULL,
		.cgroup_root = c->verb->bit & (VERB_RESTORE | VERB_MIGRATE) ? c->cgroup_roots : NULL,
		.inherited = c->inherited,
		.n_inherited = c->o.inherit_fd.n,
	};
}

void cli_session_options(const struct cli *c, struct session_options *ret)
{
	session_options_init(ret);
	ret->owner = c->o.owner;
	ret->backend = c->o.backend;
	ret->backend_dir = c->o.backend_dir;
	ret->freeze_cgroup = c->o.freeze_cgroup;
	ret->freeze_timeout_ms = (int)c->o.timeout * 1000;
	ret->max_rounds = (unsigned)c->o.max_rounds;
	ret->downtime_ms = (unsigned)c->o.downtime;
	ret->max_downtime_ms = (unsigned)c->o.max_downtime;
	ret->post_copy_after = (unsigned)c->o.post_copy;
	ret->max_bandwidth = c->o.max_bandwidth;
	cli_state_options(c, &ret->state);
}

int cli_on_stall(const struct cli *c, enum on_stall *ret, struct error *e)
{
	static const struct {
		const char *name;
		enum on_stall what;
	} all[] = {{"stop", ON_STALL_STOP},
		   {"abort", ON_STALL_ABORT},
		   {"throttle", ON_STALL_THROTTLE},
		   {"postcopy", ON_STALL_POSTCOPY}};

	if (!c->o.on_stall) {
		*ret = c->verb->bit == VERB_MIGRATE ? ON_STALL_POSTCOPY : ON_STALL_STOP;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(c->o.on_stall, all[i].name)) {
			*ret = all[i].what;
			if (*ret == ON_STALL_POSTCOPY && c->verb->bit != VERB_MIGRATE)
				return error_say(e, EINVAL,
						 "--on-stall postcopy is for migrate: an image is whole");
			return 0;
		}
	return error_say(e, EINVAL, "--on-stall takes postcopy, throttle, stop or abort, not \"%s\"",
			 c->o.on_stall);
}

int cli_compress(const struct cli *c, enum compress_mode *ret, struct error *e)
{
	static const char *const names[] = {"none", "lz4", "zstd", "auto"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(c->o.compress, names[i])) {
			*ret = (enum compress_mode)i;
			return 0;
		}
	return error_say(e, EINVAL, "--compress takes none, lz4, zstd or auto, not \"%s\"", c->o.compress);
}

int cli_write_pidfile(const struct cli *c, pid_t pid, struct error *e)
{
	const char *name = c->o.pidfile;
	char text[16];

	if (!name)
		return 0;
	cleanup_free char *path = *name == '/' ? xstrdup(name) : xasprintf("%s/%s", cli_work_dir(c), name);
	cleanup_free char *part = xasprintf("%s.part", path);
	cleanup_close int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int n = snprintf(text, sizeof(text), "%d", pid);

	if (fd < 0)
		return error_set(e, errno, "cannot write the pid file %s", path);
	int r = write_full(fd, text, n);

	if (r == 0 && rename(part, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(part);
		return error_set(e, -r, "cannot write the pid file %s", path);
	}
	return 0;
}

static int find_target(const struct cli *c, pid_t *ret, struct error *e)
{
	char *end;

	if (c->o.tree && !c->argc) {
		*ret = (pid_t)c->o.tree;
		return 0;
	}
	if (c->argc != 1)
		return error_say(e, EINVAL, "%s takes one process id", c->verb->name);
	long pid = strtol(c->argv[0], &end, 10);

	if (*end || end == c->argv[0] || pid <= 0 || pid > INT_MAX)
		return error_say(e, EINVAL, "\"%s\" is not a process id", c->argv[0]);
	*ret = (pid_t)pid;
	return 0;
}

int cli_target(const struct cli *c, pid_t *ret, struct error *e)
{
	int r = find_target(c, ret, e);

	return r == 0 && c->o.owner >= 0 ? proc_owner_check(*ret, (uid_t)c->o.owner, e) : r;
}

int cli_parse_cgroups(struct cli *c, struct error *e)
{
	int r = cgroup_mode_parse(c->o.manage_cgroups, &c->cgroups, e);

	for (size_t i = 0; r >= 0 && i < c->o.cgroup_root.n; i++)
		r = cgroup_root_add(c->o.cgroup_root.v[i], &c->cgroup_roots, e);
	if (r >= 0 && c->cgroup_roots && c->cgroups == CGROUPS_IGNORE)
		c->cgroups = CGROUPS_SOFT;
	return r;
}
