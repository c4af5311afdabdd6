/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory of which pages are missing, in a program that grows, copies, moves and takes away its
 * mappings: every page is read as what it is, and nobody is forgotten. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
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

#define P       PAGE_SIZE_BYTES
#define PAGES   16ul
#define THERE   7ul /* the one page that is not missing */
#define AT      (1ull << 30)
#define FIRST   0x100000000000ull
#define SECOND  (FIRST + 1000 * P)
#define ELSE    (FIRST + 2000 * P)
#define WAIT_MS 20000

enum { OLD = 1, NEW = 2 };

/* --- the program: each command is done by a thread of its own, which then says what came of it ------------
 */

struct command {
	char what; /* read, Remove, move, unmap */
	uint64_t addr, length, to, to_length;
};

struct done {
	uint64_t addr;
	int64_t result;
};

static int commands[2], results[2];

static void *do_command(void *arg)
{
	struct command *c = arg;
	void *p = (void *)c->addr;
	struct done d = {.addr = c->addr};

	if (c->what == 'r')
		d.result = *(volatile char *)p;
	else if (c->what == 'R')
		d.result = madvise(p, c->length, MADV_REMOVE);
	else if (c->what == 'u')
		d.result = munmap(p, c->length);
	else if (c->to)
		d.result = (int64_t)mremap(p, c->length, c->to_length, MREMAP_MAYMOVE | MREMAP_FIXED, c->to);
	else
		d.result = (int64_t)mremap(p, c->length, c->to_length, 0);
	(void)!write(results[1], &d, sizeof(d));
	free(c);
	return NULL;
}

static int map_at(int uffd, int fd, uint64_t addr, uint64_t length)
{
	struct uffdio_register reg = {.range = {addr, length},
				      .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
	void *p = mmap((void *)addr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);

	return p == MAP_FAILED ? -1 : ioctl(uffd, UFFDIO_REGISTER, &reg);
}

static void be_program(int fd)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
					     UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_MISSING_SHMEM |
					     UFFD_FEATURE_MINOR_SHMEM};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), number = uffd;
	struct command c;
	pthread_t t;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0 || map_at(uffd, fd, FIRST, 4 * P) < 0 ||
	    map_at(uffd, fd, SECOND, 4 * P) < 0)
		number = -1;
	(void)!write(results[1], &number, sizeof(number));
	(void)!read(commands[0], &c, sizeof(c)); /* it has been taken over */
	close(uffd);
	close(fd);
	while (read(commands[0], &c, sizeof(c)) == sizeof(c))
		pthread_create(&t, NULL, do_command, xmemdup(&c, sizeof(c)));
	_exit(0);
}

/* --- its pager ---------------------------------------------------------------------------------------- */

static char *path;

struct test {
	struct pager *p, *killed;
	pid_t program;
	int fd, asked[PAGES];
	struct error e;
};

static void send_command(struct command c)
{
	assert_int_equal(write(commands[1], &c, sizeof(c)), sizeof(c));
}

static int ask(void *ctx, size_t source, uint64_t mark, struct error *e)
{
	struct test *t = ctx;

	(void)source, (void)e;
	t->asked[mark]++;
	return 0;
}

static void begin(struct test *t)
{
	struct page_set pages = PAGE_SET_INIT, none = PAGE_SET_INIT, registered = PAGE_SET_INIT;
	char page[P];
	int number;

	*t = (struct test){.fd = memfd_create("shared", MFD_CLOEXEC)};
	memset(page, OLD, sizeof(page));
	for (size_t i = 0; i < PAGES; i++)
		assert_int_equal(pwrite(t->fd, page, P, (off_t)(i * P)), P);
	assert_true(pipe(commands) == 0 && pipe(results) == 0);
	t->program = fork();
	if (!t->program)
		be_program(t->fd);
	assert_int_equal(read(results[0], &number, sizeof(number)), sizeof(number));
	cleanup_close int pidfd = sys_pidfd_open(t->program, 0);
	int uffd = number < 0 ? -1 : sys_pidfd_getfd(pidfd, number);

	if (uffd < 0)
		skip();
	send_command((struct command){0});
	page_set_add(&pages, AT, AT + THERE * P);
	page_set_add(&pages, AT + (THERE + 1) * P, AT + PAGES * P);
	page_set_add(&registered, FIRST, FIRST + 4 * P);
	page_set_add(&registered, SECOND, SECOND + 4 * P);
	t->p = pager_new();
	pager_add_mixed(t->p, t->program, &pages, &none, &registered, uffd);
	size_t object = pager_add_object(t->p, dup(t->fd), PAGES * P);

	pager_add_shared(t->p, 0, object, AT, AT + PAGES * P, 0);
	missing_add_view(&t->p->missing, 0, &(struct missing_view){FIRST, FIRST + 4 * P, 0, object});
	missing_add_view(&t->p->missing, 0, &(struct missing_view){SECOND, SECOND + 4 * P, 0, object});
	assert_int_equal(pager_write(t->p, path, &t->e), 0);
	page_set_deinit(&pages);
	page_set_deinit(&registered);
}

static void serve(struct test *t)
{
	if (pager_read(t->p, &t->e) < 0 || pager_faults(t->p, ask, t, &t->e) < 0)
		fail_msg("%s", t->e.text);
}

/* Until a command is done; the others wait as long. */
static struct done result(struct test *t)
{
	struct pollfd p = {.fd = results[0], .events = POLLIN};
	uint64_t end = now_ns() + WAIT_MS * 1000000ull;
	struct done d;

	while (poll(&p, 1, 1) == 0) {
		serve(t);
		assert_true(now_ns() < end);
	}
	assert_int_equal(read(results[0], &d, sizeof(d)), sizeof(d));
	return d;
}

static int64_t run(struct test *t, struct command c)
{
	send_command(c);
	struct done d = result(t);

	assert_int_equal(d.addr, c.addr);
	return d.result;
}

static void move(struct test *t, uint64_t from, uint64_t length, uint64_t to, uint64_t to_length)
{
	assert_int_equal(run(t, (struct command){'m', from, length, to, to_length}), to ? to : from);
}

static void read_later(uint64_t addr)
{
	send_command((struct command){.what = 'r', .addr = addr});
}

static int64_t content(struct test *t, uint64_t addr)
{
	return run(t, (struct command){.what = 'r', .addr = addr});
}

static uint64_t mark_of(uint64_t page)
{
	return page - (page > THERE);
}

static void until_asked(struct test *t, uint64_t page)
{
	uint64_t end = now_ns() + WAIT_MS * 1000000ull;

	while (!t->asked[mark_of(page)]) {
		struct pollfd p = {.fd = t->p->missing.spaces[0].fd, .events = POLLIN};

		(void)poll(&p, 1, 1);
		serve(t);
		assert_true(now_ns() < end);
	}
}

/* A thread has faulted, and that has been looked at. */
static void until_looked_at(struct test *t)
{
	uint64_t end = now_ns() + WAIT_MS * 1000000ull;

	while (!t->p->n_faults) {
		if (pager_read(t->p, &t->e) < 0)
			fail_msg("%s", t->e.text);
		assert_true(now_ns() < end);
	}
	serve(t);
}

static void come(struct test *t, uint64_t page)
{
	char data[P];

	memset(data, NEW, sizeof(data));
	assert_int_equal(pager_place(t->p, 0, mark_of(page), 1, data, NULL, NULL, &t->e), 0);
}

static void all_come(struct test *t)
{
	for (uint64_t i = 0; i < PAGES; i++)
		if (i != THERE)
			come(t, i);
	assert_int_equal(missing_left(&t->p->missing), 0);
	pager_finish(t->p);
}

static void end(struct test *t)
{
	pager_finish(t->p);
	pager_discard(path);
	pager_free(t->p);
	pager_free(t->killed);
	kill(t->program, SIGKILL);
	waitpid(t->program, NULL, 0);
	for (int i = 0; i < 2; i++) {
		close(commands[i]);
		close(results[i]);
	}
	close(t->fd);
}

/* A missing page of @view, whose @page of the object it is: asked for, and read when it comes. */
static void is_asked_for(struct test *t, uint64_t view, uint64_t page)
{
	read_later(view + page * P);
	until_asked(t, page);
	come(t, page);
	assert_int_equal(result(t).result, NEW);
}

/* --- tests --------------------------------------------------------------------------------------------- */

static void grown_and_moved(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	move(&t, FIRST, 4 * P, 0, 8 * P);
	is_asked_for(&t, FIRST, 5);
	move(&t, FIRST, 8 * P, ELSE, 8 * P);
	is_asked_for(&t, ELSE, 2);
	is_asked_for(&t, ELSE, 6);
	assert_int_equal(content(&t, ELSE + THERE * P), OLD);
	move(&t, ELSE, 8 * P, 0, 12 * P);
	is_asked_for(&t, ELSE, 11);
	end(&t);
}

static void grown_moved_untouched(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	move(&t, FIRST, 4 * P, 0, 8 * P);
	move(&t, FIRST, 8 * P, ELSE, 8 * P);
	is_asked_for(&t, ELSE, 6);
	end(&t);
}

/* A copy says of itself only where it begins. */
static void copied_and_moved(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	move(&t, FIRST, 0, ELSE, 10 * P);
	move(&t, ELSE, 10 * P, ELSE + 50 * P, 10 * P);
	is_asked_for(&t, ELSE + 50 * P, 3);
	is_asked_for(&t, ELSE + 50 * P, 8);
	is_asked_for(&t, FIRST, 1);
	move(&t, FIRST, 0, ELSE, 12 * P);
	is_asked_for(&t, ELSE, 11);
	is_asked_for(&t, ELSE, 2);
	end(&t);
}

/* What was taken away stays away, through whatever mapping it is found missing. */
static void taken_away_and_moved(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	move(&t, FIRST, 4 * P, 0, 8 * P);
	assert_int_equal(run(&t, (struct command){.what = 'R', .addr = FIRST + 5 * P, .length = P}), 0);
	move(&t, FIRST, 8 * P, ELSE, 8 * P);
	assert_int_equal(content(&t, ELSE + 5 * P), 0);
	come(&t, 5);
	assert_int_equal(content(&t, ELSE + 5 * P), 0);
	end(&t);
}

/* The beginning of a mapping that had grown is unmapped: whose the rest is cannot be known. Nothing is
 * guessed: it waits. */
static void rest_of_a_mapping(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	move(&t, SECOND, 4 * P, 0, 10 * P);
	assert_int_equal(run(&t, (struct command){.what = 'R', .addr = SECOND + 8 * P, .length = P}), 0);
	assert_int_equal(run(&t, (struct command){.what = 'u', .addr = SECOND, .length = 4 * P}), 0);
	read_later(SECOND + 6 * P);
	until_looked_at(&t);
	read_later(SECOND + 8 * P);
	until_looked_at(&t);
	all_come(&t);
	for (int i = 0; i < 2; i++) {
		struct done d = result(&t);

		assert_int_equal(d.result, d.addr == SECOND + 6 * P ? NEW : 0);
	}
	end(&t);
}

/* A thread waits for a page; another one takes the page away and looks at it: both go on. */
static void given_up_while_waited_for(void **state)
{
	struct test t;

	(void)state;
	begin(&t);
	read_later(FIRST + 2 * P);
	until_asked(&t, 2);
	assert_int_equal(run(&t, (struct command){.what = 'R', .addr = SECOND + 2 * P, .length = P}), 0);
	read_later(SECOND + 2 * P);
	for (int i = 0; i < 2; i++)
		assert_int_equal(result(&t).result, 0);
	assert_int_equal(t.p->n_waiting, 0);
	assert_int_equal(missing_left(&t.p->missing), PAGES - 2);
	end(&t);
}

/* The process that fetches is followed by another one, while a thread waits where the books have nothing. */
static void taken_over(void **state)
{
	struct pager *next;
	struct test t;

	(void)state;
	begin(&t);
	move(&t, FIRST, 0, ELSE, 10 * P);
	read_later(ELSE + 9 * P);
	until_asked(&t, 9);
	t.asked[mark_of(9)] = 0;
	if (pager_open(&next, path, &t.e) < 0)
		fail_msg("%s", t.e.text);
	t.killed = t.p;
	t.p = next;
	until_asked(&t, 9);
	come(&t, 9);
	assert_int_equal(result(&t).result, NEW);
	end(&t);
}

int main(void)
{
	char dir[] = "/tmp/ferry-pager-XXXXXX";
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grown_and_moved),   cmocka_unit_test(grown_moved_untouched),
		cmocka_unit_test(copied_and_moved),  cmocka_unit_test(taken_away_and_moved),
		cmocka_unit_test(rest_of_a_mapping), cmocka_unit_test(given_up_while_waited_for),
		cmocka_unit_test(taken_over),
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
