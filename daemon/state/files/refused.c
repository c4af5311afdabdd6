/* SPDX-License-Identifier: Apache-2.0 */
/* What cannot be moved: matches everything that no other type took, and says what it is. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "state/files/files.h"

static bool refused_match(const struct fd_facts *f)
{
	(void)f;
	return true;
}

static bool is_terminal(const struct stat *st)
{
	unsigned n = major(st->st_rdev);

	/* ttys and serial lines, /dev/tty and /dev/console and /dev/ptmx, Unix98 masters and slaves */
	return S_ISCHR(st->st_mode) && (n == 4 || n == 5 || (n >= 128 && n <= 143) || n == 204 || n == 229);
}

static int refuse_socket(const struct fd_facts *f, struct error *e)
{
	static const struct {
		int domain;
		const char *name;
	} known[] = {
		{AF_NETLINK, "netlink"},   {AF_PACKET, "packet"},
		{AF_VSOCK, "vsock"},       {AF_BLUETOOTH, "bluetooth"},
		{AF_ALG, "kernel crypto"}, {AF_XDP, "XDP"},
		{AF_CAN, "CAN"},           {AF_TIPC, "TIPC"},
		{AF_INET, "IPv4"},         {AF_INET6, "IPv6"},
	};
	const char *name = "unknown";

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].domain == f->domain)
			name = known[i].name;
	return error_say(e, ENOTSUP,
			 "pid %d fd %d: %s socket (family %d, type %d, protocol %d) is not supported", f->pid,
			 f->fd, name, f->domain, f->type, f->protocol);
}

static int refused_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	(void)c;
	(void)m;
	if (S_ISSOCK(f->st.st_mode))
		return refuse_socket(f, e);
	if (is_terminal(&f->st))
		return error_say(e, ENOTSUP,
				 "pid %d fd %d: terminal %s cannot be moved yet; start the program with its "
				 "input and output "
				 "redirected (setsid, < /dev/null)",
				 f->pid, f->fd, f->link);
	if (!strncmp(f->link, "anon_inode:", 11))
		return error_say(e, ENOTSUP, "pid %d fd %d: %s descriptor is not supported", f->pid, f->fd,
				 f->link + 11);
	if (S_ISCHR(f->st.st_mode) || S_ISBLK(f->st.st_mode))
		return error_say(e, ENOTSUP, "pid %d fd %d: %s device %u:%u (%s) is not supported", f->pid,
				 f->fd, S_ISCHR(f->st.st_mode) ? "character" : "block", major(f->st.st_rdev),
				 minor(f->st.st_rdev), f->link);
	return error_say(e, ENOTSUP, "pid %d fd %d: descriptor of an unknown kind (%s) is not supported",
			 f->pid, f->fd, f->link);
}

const struct fd_type fd_refused = {
	.name = "refused",
	.kind = FILE_KIND(NONE),
	.match = refused_match,
	.capture = refused_capture,
};
