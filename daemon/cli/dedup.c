/* SPDX-License-Identifier: Apache-2.0 */
/* Known to scripts, and refused: pages in an image are checked by runs, and a run with a hole would not be
 * whole. */
#include <errno.h>

#include "cli/cli.h"

int verb_dedup(struct cli *c, struct error *e)
{
	return error_say(e, ENOTSUP,
			 "dedup is not supported: the images in %s stay as they are, for each run of pages "
			 "is checked as a whole",
			 c->o.images_dir);
}
