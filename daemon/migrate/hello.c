/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/hello.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "arch/arch.h"
#include "base/util.h"
#include "state/cgroups/cgroups.h"

void hello_fill(Ferry__PeerHello *h, char *host, char *life)
{
	size_t xsize;

	*host = 0;
	gethostname(host, 255);
	host[255] = 0;
	h->version = PEER_VERSION;
	h->software = "ferry";
	h->arch = (char *)arch_name();
	h->page_size = PAGE_SIZE_BYTES;
	h->host = host;
	h->life = life;
	arch_xstate_features(&h->xstate_mask, &xsize);
}

void hello_fill_source(Ferry__PeerHello *h, const struct session_options *o)
{
	h->tcp_close = o->state.tcp_close;
	h->tcp_established = o->state.tcp_established;
	h->shell_job = o->state.shell_job;
	h->ghost_limit = o->state.ghost_limit;
	h->pid = o->pid;
	h->cgroups = (char *)cgroup_mode_name(o->state.cgroups);
	h->cgroup_root = (char *)(o->state.cgroup_root ? o->state.cgroup_root : "");
	h->cgroups = (char *)cgroup_mode_name(o->state.cgroups);
	h->cgroup_root = (char *)(o->state.cgroup_root ? o->state.cgroup_root : "");
}

int hello_check(const Ferry__PeerHello *there, const char *to, struct error *e)
{
	uint64_t mask;
	size_t xsize;

	arch_xstate_features(&mask, &xsize);
	if (there->version != PEER_VERSION)
		return error_say(e, EPROTONOSUPPORT, "%s speaks version %u of the protocol, this ferry %u",
				 to, there->version, PEER_VERSION);
	if (strcmp(there->arch, arch_name()))
		return error_say(e, EINVAL, "%s is of architecture %s, this machine of %s", to, there->arch,
				 arch_name());
	if (mask & ~there->xstate_mask)
		return error_say(e, ENOTSUP,
				 "%s lacks CPU register sets that programs here can use (xcr0 bits 0x%llx)",
				 to, (unsigned long long)(mask & ~there->xstate_mask));
	return 0;
}

static int accept_cgroups(const Ferry__PeerHello *h, struct state_options *ret, struct error *e)
{
	cleanup_free char *lines = xstrdup(h->cgroup_root);
	char *save = NULL, *list = NULL;
	int r = *h->cgroups ? cgroup_mode_parse(h->cgroups, &ret->cgroups, e) : 0;

	for (char *line = strtok_r(lines, "\n", &save); line && r >= 0; line = strtok_r(NULL, "\n", &save))
		r = cgroup_root_add(line, &list, e);
	ret->cgroup_root = list;
	return r;
}

int hello_accept(const Ferry__PeerHello *h, struct restore_options *ret, struct error *e)
{
	*ret = (struct restore_options){.detached = true};
	ret->state.tcp_close = h->tcp_close;
	ret->state.tcp_established = h->tcp_established;
	ret->state.shell_job = h->shell_job;
	ret->state.ghost_limit = h->ghost_limit;
	if (h->version != PEER_VERSION)
		return error_say(e, EPROTONOSUPPORT,
				 "the source speaks version %u of the protocol, this ferryd %u", h->version,
				 PEER_VERSION);
	return accept_cgroups(h, &ret->state, e);
}
