/* SPDX-License-Identifier: Apache-2.0 */
/* System calls that write into buffers of the caller. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ways.h"

#define FILE_SIZE (1ul << 20)

static int source; /* a file to read from */
static int pairs[2][2];

static void setup_areas(void)
{
	for (unsigned i = 0; i < 3; i++)
		memset(area(i, i == 2 ? MAP_SHARED : MAP_PRIVATE, -1, AREA_SIZE), 1, AREA_SIZE);
}

static void setup_read(void)
{
	source = (int)MUST(open(program_path(), O_RDONLY | O_CLOEXEC));
	setup_areas();
}

static void step_read(unsigned w)
{
	size_t n = 1 + rnd() % (3 * PAGE);

	MUST(pread(source, next_page(area_at(w), AREA_SIZE - 4 * PAGE) + rnd() % PAGE, n, rnd() % 20000));
	MUST(lseek(source, rnd() % 20000, SEEK_SET));
	MUST(read(source, next_page(area_at(w), AREA_SIZE - 4 * PAGE), n));
	pause_us(100);
}

static void pieces(struct iovec *v, unsigned n, unsigned w)
{
	for (unsigned i = 0; i < n; i++)
		v[i] = (struct iovec){next_page(area_at(w), AREA_SIZE - PAGE) + rnd() % PAGE,
				      1 + rnd() % 600};
}

static void step_readv(unsigned w)
{
	struct iovec v[6];

	pieces(v, 6, w);
	MUST(preadv2(source, v, 6, rnd() % 20000, 0));
	pieces(v, 6, w);
	MUST(lseek(source, rnd() % 20000, SEEK_SET));
	MUST(readv(source, v, 6));
	pause_us(100);
}

static void setup_recv(void)
{
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[0]));
	MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pairs[1]));
	setup_areas();
}

static void step_recv(unsigned w)
{
	char text[2 * PAGE];
	struct iovec v[3];
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
	struct mmsghdr mm = {.msg_hdr = {.msg_iov = v, .msg_iovlen = 3}};
	int *pair = pairs[w]; /* each writer has its own */

	scribble(text, sizeof(text));
	MUST(send(pair[0], text, sizeof(text), 0));
	MUST(recv(pair[1], next_page(area_at(w), AREA_SIZE - 4 * PAGE) + rnd() % PAGE, sizeof(text), 0));
	pieces(v, 3, w);
	MUST(send(pair[0], text, 500, 0));
	MUST(recvmsg(pair[1], &m, 0));
	pieces(v, 3, w);
	MUST(send(pair[0], text + 1000, 700, 0));
	MUST(recvmmsg(pair[1], &mm, 1, 0, NULL));
	while (recv(pair[1], text, sizeof(text), MSG_DONTWAIT) > 0) /* what did not fit */
		;
	pause_us(100);
}

static int direct_file(void)
{
	char name[] = "/var/tmp/ferry-stress-XXXXXX";
	char *buf = area(10, MAP_PRIVATE, -1, FILE_SIZE);
	int fd = (int)MUST(mkostemp(name, O_CLOEXEC | O_DIRECT));

	unlink(name);
	scribble(buf, FILE_SIZE);
	if (pwrite(fd, buf, FILE_SIZE, 0) != (ssize_t)FILE_SIZE)
		skip("no direct I/O in /var/tmp: %s", strerror(errno));
	munmap(buf, FILE_SIZE);
	return fd;
}

static void setup_direct(void)
{
	source = direct_file();
	setup_areas();
}

static void read_direct(int fd, unsigned w)
{
	size_t n = (1 + rnd() % 8) * PAGE;

	MUST(pread(fd, next_page(area_at(w), AREA_SIZE - 8 * PAGE), n, (off_t)(rnd() % 240 * PAGE)));
}

static void step_direct(unsigned w)
{
	read_direct(source, w);
}

static void setup_reopen(void)
{
	setup_direct();
	MUST(fcntl(source, F_SETFL, 0));
}

static void step_reopen(unsigned w)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", source);
	int fd = (int)MUST(open(path, O_RDONLY | O_DIRECT | O_CLOEXEC));

	read_direct(fd, w);
	close(fd);
	pause_us(rnd() % 2000);
}

const struct way ways_kernel[] = {
	{"read", 3, setup_read, step_read, NULL},
	{"readv", 3, setup_read, step_readv, NULL},
	{"recv", 2, setup_recv, step_recv, NULL},
	{"direct", 3, setup_direct, step_direct, NULL},
	{"direct-reopen", 2, setup_reopen, step_reopen, NULL},
	{0},
};
