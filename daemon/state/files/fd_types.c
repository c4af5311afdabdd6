/* SPDX-License-Identifier: Apache-2.0 */
#include "state/files/fd_type.h"
#include "state/files/files.h"

const struct fd_type *const fd_types[] = {
	&fd_external, &fd_bpf_map,     &fd_mqueue,  &fd_dgram,   &fd_packet,   &fd_netlink,  &fd_unix,
	&fd_inet,     &fd_pipe,        &fd_fifo,    &fd_eventfd, &fd_epoll,    &fd_timerfd,  &fd_signalfd,
	&fd_memfd,    &fd_userfaultfd, &fd_pidfd,   &fd_inotify, &fd_io_uring, &fd_fanotify, &fd_tty,
	&fd_ghost,    &fd_regular,     &fd_refused, NULL,
};

const struct fd_type *fd_type_match(const struct fd_facts *f)
{
	size_t i = 0;

	while (!fd_types[i]->match(f))
		i++;
	return fd_types[i];
}

const struct fd_type *fd_type_of_kind(FileKind kind)
{
	for (size_t i = 0; fd_types[i]; i++)
		if (fd_types[i]->kind == kind && fd_types[i]->open)
			return fd_types[i];
	return NULL;
}
