/* SPDX-License-Identifier: Apache-2.0 */
#include "stream/show.h"

#include <errno.h>
#include <fcntl.h>

#include "base/util.h"
#include "cli/cli.h"
#include "state/kind.h"

static const ProtobufCMessageDescriptor *descriptor(uint32_t type)
{
	const struct state_kind *k = state_kind_find(type);

	return k ? k->descriptor : NULL;
}

int verb_show(struct cli *c, struct error *e)
{
	struct show_options o = {.json = c->o.json, .verbose = c->o.verbosity > 2, .descriptor = descriptor};
	const char *dir = c->argc ? c->argv[0] : c->o.images_dir;

	if (c->argc > 1)
		return error_say(e, EINVAL, "show takes one directory");
	cleanup_close int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dirfd < 0)
		return error_set(e, errno, "cannot open the images directory %s", dir);
	return show_image(dirfd, &o, stdout, e);
}
