/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* For tests with userfaultfds of their own. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "zdtm.h"

#define PAGE 4096ul

static inline int uffd_new(int flags, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | flags);

	if (fd < 0)
		test_skip("no userfaultfd: %s", strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api))
		test_skip("no userfaultfd with features 0x%llx: %s", (unsigned long long)features,
			  strerror(errno));
	return fd;
}

static inline int uffd_try_register(int fd, void *p, size_t pages, int mode)
{
	struct uffdio_register reg = {.range = {(uintptr_t)p, pages * PAGE}, .mode = mode};

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

static inline void uffd_register(int fd, void *p, size_t pages, int mode)
{
	MUST(uffd_try_register(fd, p, pages, mode));
}

/* Place a page that is filled with @seed. */
static inline int uffd_try_copy(int fd, void *page, uint64_t seed)
{
	static _Thread_local uint64_t buffer[PAGE / 8];
	struct uffdio_copy copy = {.dst = (uintptr_t)page, .src = (uintptr_t)buffer, .len = PAGE};

	test_fill(buffer, PAGE, seed);
	return ioctl(fd, UFFDIO_COPY, &copy);
}

static inline void uffd_copy(int fd, void *page, uint64_t seed)
{
	MUST(uffd_try_copy(fd, page, seed));
}

static inline void uffd_zero(int fd, void *page)
{
	struct uffdio_zeropage zero = {.range = {(uintptr_t)page, PAGE}};

	MUST(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
}

static inline void uffd_protect(int fd, void *p, size_t pages, bool on)
{
	struct uffdio_writeprotect wp = {.range = {(uintptr_t)p, pages * PAGE},
					 .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};

	MUST(ioctl(fd, UFFDIO_WRITEPROTECT, &wp));
}

/* The next event must be a fault of this page, with these flags. */
static inline void uffd_expect(int fd, void *page, uint64_t flags)
{
	struct uffd_msg msg;
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	CHECK(poll(&pfd, 1, 20000) == 1, "no event for the fault at %p", page);
	errno = 0;
	CHECK(read(fd, &msg, sizeof(msg)) == sizeof(msg), "no event can be read");
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(msg.arg.pagefault.address & ~(PAGE - 1), (uintptr_t)page);
	CHECK_EQ(msg.arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_MINOR), flags);
}

static inline void uffd_expect_none(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	CHECK(poll(&pfd, 1, 0) == 0, "an event that nothing can have caused");
}

/* Is the page in the page table? Reading it could be a fault. */
static inline bool page_is_there(void *page)
{
	uint64_t word;
	int fd = MUST(open("/proc/self/pagemap", O_RDONLY));

	CHECK(pread(fd, &word, 8, (uintptr_t)page / PAGE * 8) == 8, "pagemap");
	close(fd);
	return word >> 63;
}

static inline uint64_t uffd_features(int fd)
{
	char path[64], text[512], *p;
	unsigned features = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	test_read_file(path, text, sizeof(text));
	p = strstr(text, "API:");
	CHECK(p && sscanf(p, "API: %*x:%x", &features) == 1, "no features in %s", path);
	return features;
}

static inline void send_fd(int sock, int fd)
{
	char dummy = 0, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&dummy, 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	CHECK_EQ(sendmsg(sock, &msg, 0), 1);
}

static inline int receive_fd(int sock)
{
	char dummy, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&dummy, 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fd;

	CHECK_EQ(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC), 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}
