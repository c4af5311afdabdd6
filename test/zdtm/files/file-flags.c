/* SPDX-License-Identifier: Apache-2.0 */
/* Flags of open files: those of open(2) and those set later; O_PATH of everything; a large sparse deleted
 * file. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "zdtm.h"

#define GIB (1ull << 30)

static const int flags[] = {
	O_RDONLY,
	O_WRONLY | O_APPEND,
	O_RDWR | O_SYNC,
	O_RDWR | O_DSYNC,
	O_RDWR | O_DIRECT,
	O_RDWR | O_NOATIME,
	O_RDONLY | O_NOFOLLOW,
	O_RDWR | O_NONBLOCK,
	O_WRONLY | O_CLOEXEC,
	O_RDONLY | O_PATH,
};
#define COUNT (sizeof(flags) / sizeof(flags[0]))

int main(int argc, char **argv)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	int fd[COUNT], before[COUNT], later, link, socket_path, device, dir, sock, sparse;
	struct stat st;
	char buf[64];
	mode_t kind[4];

	test_init(argc, argv);
	test_write_file(test_path("file"), "0123456789");
	for (size_t i = 0; i < COUNT; i++) {
		fd[i] = open(test_path("file"), flags[i]);
		if (fd[i] < 0 && flags[i] & O_DIRECT) /* not on every file system */
			fd[i] = MUST(open(test_path("file"), O_RDWR));
		CHECK(fd[i] >= 0, "open with 0%o", flags[i]);
		before[i] = fcntl(fd[i], F_GETFL);
	}
	later = MUST(open(test_path("file"), O_RDWR));
	MUST(fcntl(later, F_SETFL, O_APPEND | O_NONBLOCK | O_NOATIME));
	MUST(symlink("nowhere", test_path("link")));
	link = MUST(open(test_path("link"), O_PATH | O_NOFOLLOW));
	snprintf(name.sun_path, sizeof(name.sun_path), "%s", test_path("sock"));
	sock = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	MUST(bind(sock, (struct sockaddr *)&name, sizeof(name)));
	close(sock);
	socket_path = MUST(open(test_path("sock"), O_PATH));
	device = MUST(open("/dev/tty", O_PATH));
	dir = MUST(open(test_path("."), O_PATH | O_DIRECTORY));
	sparse = MUST(open(test_path("sparse"), O_RDWR | O_CREAT, 0600));
	MUST(unlink(test_path("sparse")));
	MUST(ftruncate(sparse, 64 * GIB));
	CHECK_EQ(pwrite(sparse, "begin", 5, 0), 5);
	CHECK_EQ(pwrite(sparse, "middle", 6, 32 * GIB + 5), 6);
	test_ready();
	test_wait();
	for (size_t i = 0; i < COUNT; i++)
		CHECK(fcntl(fd[i], F_GETFL) == before[i], "flags 0%o have become 0%o", before[i],
		      fcntl(fd[i], F_GETFL));
	CHECK_EQ(fcntl(later, F_GETFL) & (O_APPEND | O_NONBLOCK | O_NOATIME),
		 O_APPEND | O_NONBLOCK | O_NOATIME);
	CHECK_EQ(write(fd[1], "a", 1), 1);
	CHECK_EQ(write(later, "b", 1), 1);
	CHECK_EQ(pread(fd[0], buf, sizeof(buf), 0), 12);
	CHECK(!memcmp(buf, "0123456789ab", 12), "appended elsewhere");
	CHECK(read(fd[9], buf, 1) == -1 && errno == EBADF, "O_PATH can be read");
	CHECK_EQ(readlinkat(link, "", buf, sizeof(buf)), 7);
	MUST(fstat(link, &st));
	kind[0] = st.st_mode & S_IFMT;
	MUST(fstat(socket_path, &st));
	kind[1] = st.st_mode & S_IFMT;
	MUST(fstat(device, &st));
	kind[2] = st.st_mode & S_IFMT;
	MUST(fstat(dir, &st));
	kind[3] = st.st_mode & S_IFMT;
	CHECK(kind[0] == S_IFLNK && kind[1] == S_IFSOCK && kind[2] == S_IFCHR && kind[3] == S_IFDIR,
	      "O_PATH descriptors of other kinds");
	MUST(faccessat(dir, "file", F_OK, 0));
	MUST(fstat(sparse, &st));
	CHECK_EQ(st.st_size, 64 * GIB);
	CHECK(st.st_blocks < 1024, "the holes were filled: %ld blocks", (long)st.st_blocks);
	CHECK(pread(sparse, buf, 5, 0) == 5 && !memcmp(buf, "begin", 5), "content at the beginning");
	CHECK(pread(sparse, buf, 6, 32 * GIB + 5) == 6 && !memcmp(buf, "middle", 6), "content behind 32 GiB");
	CHECK_EQ(lseek(sparse, 0, SEEK_END), 64 * GIB);
	test_pass();
}
