/* SPDX-License-Identifier: Apache-2.0 */
/* A pager is taken over: what its file says of memory that has ended. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/util.h"
#include "engine/pager.h"

#define PAGES 8

static char *path;
static pid_t target;
static int to_target, from_target; /* pipes */

/* A process whose memory is registered, and that forks when it is told to. */
static void be_target(int in, int out)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK};
	char *mem = mmap(NULL, PAGES * PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	struct uffdio_register reg = {.range = {(uintptr_t)mem, PAGES * PAGE_SIZE_BYTES},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) < 0)
		fd = -1;
	(void)!write(out, &fd, sizeof(fd));
	(void)!write(out, &mem, sizeof(mem));
	while (read(in, &c, 1) == 1) {
		if (c == 'c') {
			close(fd);
			continue;
		}
		pid_t child = fork();

		if (!child) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pause();
			_exit(0);
		}
		(void)!write(out, &child, sizeof(child));
		if (read(in, &c, 1) != 1)
			break;
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		(void)!write(out, &child, sizeof(child));
	}
	_exit(0);
}

static pid_t answer(void)
{
	pid_t pid;

	assert_int_equal(read(from_target, &pid, sizeof(pid)), sizeof(pid));
	return pid;
}

/* It waits in fork until that has been read. */
static void have_child(struct pager *p)
{
	struct pollfd done = {.fd = from_target, .events = POLLIN};
	struct error e = ERROR_INIT;

	assert_int_equal(write(to_target, "f", 1), 1);
	while (poll(&done, 1, 1) == 0)
		assert_int_equal(pager_read(p, &e), 0);
	(void)answer();
}

static void end_child(void)
{
	assert_int_equal(write(to_target, "k", 1), 1);
	(void)answer();
}

static struct pager *new_pager(void)
{
	struct page_set pages = PAGE_SET_INIT;
	struct error e = ERROR_INIT;
	int in[2], out[2], number;
	char *mem;

	assert_true(pipe(in) == 0 && pipe(out) == 0);
	target = fork();
	if (!target)
		be_target(in[0], out[1]);
	to_target = in[1];
	from_target = out[0];
	number = answer();
	assert_int_equal(read(from_target, &mem, sizeof(mem)), sizeof(mem));
	int pidfd = sys_pidfd_open(target, 0), fd = number < 0 ? -1 : sys_pidfd_getfd(pidfd, number);

	close(pidfd);
	if (fd < 0)
		skip();
	assert_int_equal(write(to_target, "c", 1), 1);
	page_set_add(&pages, (uintptr_t)mem, (uintptr_t)mem + PAGES * PAGE_SIZE_BYTES);
	struct pager *p = pager_new();

	pager_add(p, target, &pages, &pages, fd);
	page_set_deinit(&pages);
	assert_int_equal(pager_write(p, path, &e), 0);
	return p;
}

static struct pager *killed; /* its descriptors and holder are its successor's */

static void end_all(struct pager *p)
{
	pager_finish(p);
	pager_discard(path);
	pager_free(p);
	pager_free(TAKE_PTR(killed));
	kill(target, SIGKILL);
	waitpid(target, NULL, 0);
	close(to_target);
	close(from_target);
}

static struct pager *take_over(struct pager *p)
{
	struct error e = ERROR_INIT;
	struct pager *next = NULL;

	if (pager_open(&next, path, &e) < 0)
		fail_msg("%s", e.text);
	killed = p;
	return next;
}

static size_t alive(const struct pager *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->missing.n_spaces; i++)
		n += !p->missing.spaces[i].ended;
	return n;
}

/* The child came with an event, and its descriptor has been closed since. */
static void ended_since(void **state)
{
	struct pager *p = new_pager();

	(void)state;
	have_child(p);
	assert_int_equal(alive(p), 2);
	end_child();
	pager_look_for_ended(p);
	assert_int_equal(alive(p), 1);
	struct pager *next = take_over(p);

	assert_int_equal(next->missing.n_spaces, 2);
	assert_int_equal(alive(next), 1);
	assert_int_equal(missing_left(&next->missing), PAGES);
	end_all(next);
}

/* It is in the file itself. */
static void ended_in_the_file(void **state)
{
	struct error e = ERROR_INIT;
	struct pager *p = new_pager();

	(void)state;
	have_child(p);
	assert_int_equal(pager_write(p, path, &e), 0);
	end_child();
	pager_look_for_ended(p);
	struct pager *next = take_over(p);

	assert_int_equal(alive(next), 1);
	end_all(next);
}

static void still_there(void **state)
{
	struct pager *p = new_pager();

	have_child(p);
	struct pager *next = take_over(p);

	(void)state;
	assert_int_equal(alive(next), 2);
	end_all(next);
}

/* Content of page @i of the object. */
static int byte_of(int fd, uint64_t i)
{
	char c = -1;

	return pread(fd, &c, 1, (off_t)(i * PAGE_SIZE_BYTES)) == 1 ? c : -1;
}

/* Shared memory: what was taken away does not come back, neither here nor in a successor; all else does. */
static void taken_away(void **state)
{
	const uint64_t at = 1ull << 30;
	struct page_set pages = PAGE_SET_INIT, none = PAGE_SET_INIT;
	struct error e = ERROR_INIT;
	char data[4 * PAGE_SIZE_BYTES];
	int fd = memfd_create("shared", MFD_CLOEXEC);
	int any = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = {.api = UFFD_API};

	(void)state;
	if (any < 0 || ioctl(any, UFFDIO_API, &api) < 0)
		skip();
	memset(data, 1, sizeof(data));
	assert_int_equal(pwrite(fd, data, sizeof(data), 0), sizeof(data));
	page_set_add(&pages, at, at + sizeof(data));
	struct pager *p = pager_new();

	pager_add_mixed(p, getpid(), &pages, &none, &none, any);
	pager_add_shared(p, 0, pager_add_object(p, dup(fd), sizeof(data)), at, at + sizeof(data), 0);
	assert_int_equal(pager_write(p, path, &e), 0);
	assert_int_equal(missing_left(&p->missing), 4);
	memset(data, 2, sizeof(data));
	for (int hole = 0; hole < 4; hole += 2)
		assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   (off_t)(hole * PAGE_SIZE_BYTES), PAGE_SIZE_BYTES),
				 0);
	assert_int_equal(pager_place(p, 0, 0, 2, data, NULL, NULL, &e), 0);
	assert_int_equal(missing_left(&p->missing), 2);
	struct pager *next = take_over(p);

	assert_int_equal(missing_left(&next->missing), 2);
	assert_int_equal(pager_place(next, 0, 2, 2, data, NULL, NULL, &e), 0);
	assert_int_equal(missing_left(&next->missing), 0);
	assert_int_equal(byte_of(fd, 0), 0);
	assert_int_equal(byte_of(fd, 1), 2);
	assert_int_equal(byte_of(fd, 2), 0);
	assert_int_equal(byte_of(fd, 3), 2);
	pager_finish(next);
	pager_discard(path);
	pager_free(next);
	pager_free(TAKE_PTR(killed));
	page_set_deinit(&pages);
	close(fd);
}

int main(void)
{
	char dir[] = "/tmp/ferry-pager-XXXXXX";
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ended_since),
		cmocka_unit_test(ended_in_the_file),
		cmocka_unit_test(still_there),
		cmocka_unit_test(taken_away),
	};

	if (!mkdtemp(dir))
		return 1;
	path = xasprintf("%s/pages", dir);
	int r = cmocka_run_group_tests(tests, NULL, NULL);

	unlink(path);
	rmdir(dir);
	free(path);
	return r;
}
