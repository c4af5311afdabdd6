/* SPDX-License-Identifier: Apache-2.0 */
/* File locks of every kind that several processes hold: nobody else gets them, each goes when its owner lets
 * go. */
#include <fcntl.h>
#include <sys/file.h>

#include "zdtm.h"

static int set(int fd, int cmd, int type, off_t start, off_t len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, cmd, &l);
}

/* Who keeps us from a write lock? 0: nobody, -1: an open file description. */
static pid_t owner(int fd, off_t start, off_t len, int *type)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	MUST(fcntl(fd, F_GETLK, &l));
	if (type)
		*type = l.l_type;
	return l.l_type == F_UNLCK ? 0 : l.l_pid;
}

static void check_posix(pid_t parent, pid_t child)
{
	int fd = MUST(open(test_path("own/posix"), O_RDWR)), type;

	CHECK_EQ(owner(fd, 0, 100, NULL), 0);
	CHECK_EQ(owner(fd, 100, 50, &type), parent);
	CHECK_EQ(type, F_WRLCK);
	CHECK_EQ(owner(fd, 150, 50, &type), parent);
	CHECK_EQ(type, F_RDLCK);
	CHECK_EQ(owner(fd, 200, 800, NULL), 0);
	CHECK_EQ(owner(fd, 1000, 1, NULL), child);
	CHECK_EQ(owner(fd, 5000, 1, &type), parent);
	CHECK_EQ(type, F_WRLCK);
	CHECK_EQ(owner(fd, 1ll << 40, 1, NULL), parent);
	close(fd);
}

int main(int argc, char **argv)
{
	int posix, ofd, shared, by_dead, gone, status, type;
	volatile int *asked;
	pid_t parent, child, asker;

	test_init(argc, argv);
	asked = test_shared_flags(1);
	parent = getpid();
	posix = MUST(open(test_path("own/posix"), O_RDWR | O_CREAT, 0600));
	MUST(ftruncate(posix, 10000));
	MUST(set(posix, F_SETLK, F_WRLCK, 100, 100));
	MUST(set(posix, F_SETLK, F_RDLCK, 150, 50)); /* splits it */
	MUST(set(posix, F_SETLK, F_WRLCK, 5000, 0));
	ofd = MUST(open(test_path("own/ofd"), O_RDWR | O_CREAT, 0600));
	MUST(set(ofd, F_OFD_SETLK, F_WRLCK, 7, 3));
	MUST(set(ofd, F_OFD_SETLK, F_RDLCK, 100, 0));
	shared = MUST(open(test_path("own/shared"), O_RDONLY | O_CREAT, 0600));
	by_dead = MUST(open(test_path("own/by-dead"), O_RDWR | O_CREAT, 0600));
	gone = MUST(open(test_path("own/gone"), O_RDWR | O_CREAT, 0600));
	MUST(unlink(test_path("own/gone")));
	MUST(set(gone, F_SETLK, F_WRLCK, 0, 1));
	MUST(flock(gone, LOCK_EX));
	child = test_fork();
	if (!child) {
		int own = MUST(open(test_path("own/posix"), O_WRONLY));

		MUST(set(own, F_SETLK, F_WRLCK, 1000, 1));
		MUST(flock(shared, LOCK_SH));
		MUST(set(own, F_SETLK, F_WRLCK, 1001, 1));
		MUST(set(own, F_SETLK, F_UNLCK, 1001, 1));
		test_ready();
		test_wait();
		while (!*asked) /* closing the file drops its own lock */
			test_sleep_ms(1);
		check_posix(parent, 0); /* its own never keep it from more */
		_exit(3);
	}
	asker = test_fork(); /* takes a lock and dies; the description lives on here */
	if (!asker)
		_exit(flock(by_dead, LOCK_EX) ? 1 : 4);
	test_reap(asker, 4);
	test_wait();
	asker = test_fork();
	if (!asker) {
		int fd = MUST(open(test_path("own/ofd"), O_RDWR)), old = fd;

		check_posix(parent, child);
		CHECK_EQ(owner(fd, 0, 7, NULL), 0);
		CHECK_EQ(owner(fd, 7, 1, &type), -1);
		CHECK_EQ(type, F_WRLCK);
		CHECK_EQ(owner(fd, 9, 1, NULL), -1);
		CHECK_EQ(owner(fd, 10, 90, NULL), 0);
		CHECK_EQ(owner(fd, 100, 1, &type), -1);
		CHECK_EQ(type, F_RDLCK);
		fd = MUST(open(test_path("own/shared"), O_RDWR));
		CHECK(flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK, "the shared flock is lost");
		MUST(flock(fd, LOCK_SH | LOCK_NB));
		MUST(flock(fd, LOCK_UN));
		fd = MUST(open(test_path("own/by-dead"), O_RDWR));
		CHECK(flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK,
		      "the flock of a dead process is lost");
		/* Through the shared description, whoever took it: unlocked for all. */
		MUST(flock(by_dead, LOCK_UN));
		MUST(flock(fd, LOCK_EX | LOCK_NB));
		MUST(set(ofd, F_OFD_SETLK, F_UNLCK, 0, 0));
		CHECK_EQ(owner(old, 0, 0, NULL), 0);
		CHECK_EQ(owner(gone, 0, 1, NULL), parent);
		_exit(5);
	}
	test_reap(asker, 5);
	*asked = 1;
	test_reap(child, 3);
	/* POSIX locks go with any descriptor of the file that their process closes. */
	close(MUST(open(test_path("own/posix"), O_RDONLY)));
	asker = test_fork();
	if (!asker)
		_exit(owner(posix, 0, 0, NULL) ? 1 : 6);
	status = asker;
	test_reap(status, 6);
	test_pass();
}
