/* SPDX-License-Identifier: Apache-2.0 */
/* Tables, and the file system context, asked of the process itself by the parasite; what a server's
 * descriptors cost. */
#include "fixture.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "parasite/region.h"

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Run one kind's ask in the frozen process of @x and take what came. */
static void ask_and_take(struct fixture *x, const struct state_kind *kind)
{
	struct process *p = &x->procs[0];
	struct task *t = &x->threads[0].task;
	struct region *region;
	struct runner *runner;
	struct batch b = BATCH_INIT;
	void *state = NULL;

	x->tree.frozen = true;
	if (task_seize(t, p->pid, p->pid, false, &x->e) < 0 || task_interrupt(t, &x->e) < 0 ||
	    task_wait_stopped(t, 5000, &x->e) != 0 || task_save(t, &x->e) < 0 ||
	    kind->ask(&x->c, p, &x->threads[0], &b, &state, &x->e) < 0 ||
	    region_inject(&region, t, 0, region_size_for(1, b.n * sizeof(struct pb_entry) + b.data_size),
			  &x->e) < 0 ||
	    runner_start(&runner, region, t, &x->e) < 0 || runner_run(runner, &b, &x->e) < 0 ||
	    kind->take(&x->c, p, &x->threads[0], &b, state, &x->e) < 0 || region_remove(region, &x->e) < 0 ||
	    task_release(t, &x->e) < 0)
		fail_msg("%s (%s)", x->e.text, x->e.where);
	free(state);
	batch_deinit(&b);
}

static void table_setup(int k)
{
	(void)k;
	MUST(open("/dev/null", O_RDONLY) == 0 && open("/dev/zero", O_RDONLY | O_CLOEXEC) == 1);
	MUST(dup2(0, 5) == 5 && dup3(1, 900, O_CLOEXEC) == 900);
}

static void test_ask(void **state)
{
	static const struct {
		int fd;
		bool cloexec;
		int same_as;
	} expect[] = {{0, false, 0}, {1, true, 1}, {5, false, 0}, {900, true, 1}};
	struct fixture x;

	(void)state;
	start(&x, &(struct scenario){table_setup, NULL, 1, {0}});
	ask_and_take(&x, &kind_fdtable);
	const Ferry__FdTable *m = (const Ferry__FdTable *)snapshot_find(
		&x.snapshot, FERRY__RECORD_TYPE__RECORD_FDTABLE, x.procs[0].pid, 0);

	assert_int_equal(m->n_fds, ARRAY_SIZE(expect));
	for (size_t i = 0; i < m->n_fds; i++) {
		assert_int_equal(m->fds[i]->fd, expect[i].fd);
		assert_int_equal(m->fds[i]->cloexec, expect[i].cloexec);
		assert_int_equal(m->fds[i]->file, m->fds[expect[i].same_as]->file);
	}
	stop(&x);
	finish(&x);
}

static char dir[64];

static void fs_setup(int k)
{
	(void)k;
	MUST(chdir(dir) == 0);
	umask(0135);
}

static void test_fs(void **state)
{
	struct fixture x;
	struct batch b = BATCH_INIT;

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/ferry-unit-fs-%d", getpid());
	assert_int_equal(mkdir(dir, 0700), 0);
	start(&x, &(struct scenario){fs_setup, NULL, 1, {0}});
	assert_int_equal(kind_fs.preflight(&x.c, &x.procs[0], &x.e), 0);
	ask_and_take(&x, &kind_fs);
	ProtobufCMessage *m = snapshot_find(&x.snapshot, FERRY__RECORD_TYPE__RECORD_FS, x.procs[0].pid, 0);
	const Ferry__Fs *fs = (const Ferry__Fs *)m;

	assert_string_equal(fs->cwd, dir);
	assert_string_equal(fs->root, "/");
	assert_int_equal(fs->umask, 0135);
	/* and it still has it */
	ask_and_take(&x, &kind_fs);
	assert_int_equal(((const Ferry__Fs *)snapshot_find(&x.snapshot, FERRY__RECORD_TYPE__RECORD_FS,
							   x.procs[0].pid, 0))
				 ->umask,
			 0135);
	m = snapshot_find(&x.snapshot, FERRY__RECORD_TYPE__RECORD_FS, x.procs[0].pid, 0);
	assert_int_equal(kind_fs.check(&x.r, x.procs[0].pid, 0, m, &x.e), 0);
	assert_int_equal(kind_fs.build(&x.r, &x.procs[0], &x.threads[0], m, &b, &x.e), 0);
	pid_t pid = fork();

	if (pid == 0) {
		char here[128];
		int next = open("/dev/null", O_RDONLY);

		run_batch(&b);
		_exit(!(getcwd(here, sizeof(here)) && !strcmp(here, dir) && umask(0) == 0135 &&
			open("/dev/null", O_RDONLY) == next + 1));
	}
	int status = -1;

	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	rmdir(dir);
	/* deleted under it */
	assert_true(kind_fs.check(&x.r, x.procs[0].pid, 0, m, &x.e) < 0);
	assert_non_null(strstr(x.e.text, "missing here"));
	error_clear(&x.e);
	assert_int_equal(kind_fs.preflight(&x.c, &x.procs[0], &x.e), 0);
	ask_and_take(&x, &kind_fs);
	m = snapshot_find(&x.snapshot, FERRY__RECORD_TYPE__RECORD_FS, x.procs[0].pid, 0);
	fs = (const Ferry__Fs *)m;
	assert_string_equal(fs->cwd, dir);
	assert_non_null(fs->dead_cwd);
	assert_int_equal(fs->dead_cwd->mode, 0700);
	assert_int_equal(kind_fs.check(&x.r, x.procs[0].pid, 0, m, &x.e), 0);
	batch_deinit(&b);
	stop(&x);
	finish(&x);
}

/* A small server: log, listening and connected sockets in an epoll set, pipes. */
static void server_setup(int k)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t n = sizeof(a);
	int p[2], set = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM, 0);

	int one = 1;

	(void)k;
	MUST(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
	MUST(bind(listener, (struct sockaddr *)&a, n) == 0 && listen(listener, 100) == 0);
	MUST(getsockname(listener, (struct sockaddr *)&a, &n) == 0 && pipe(p) == 0);
	for (int i = 0; i < 25; i++) {
		int c = socket(AF_INET, SOCK_STREAM, 0);
		struct epoll_event e = {.events = EPOLLIN, .data.fd = c};

		MUST(connect(c, (struct sockaddr *)&a, n) == 0 && accept(listener, NULL, NULL) >= 0);
		MUST(epoll_ctl(set, EPOLL_CTL_ADD, c, &e) == 0);
	}
	for (int i = 0; i < 40; i++)
		MUST(open("/dev/null", O_WRONLY | O_APPEND) >= 0);
}

static void server_verify(int k)
{
	(void)k;
}

static void test_cost(void **state)
{
	struct scenario s = {server_setup, server_verify, 1, {.tcp_close = true}};
	struct fixture x;
	uint64_t best = UINT64_MAX;

	(void)state;
	start(&x, &s);
	assert_int_equal(preflight(&x), 0);
	for (int i = 0; i < 5; i++) {
		uint64_t before = cpu_ns();

		x.tree.frozen = true;
		assert_int_equal(kind_files.take(&x.c, NULL, NULL, NULL, NULL, &x.e), 0);
		best = MIN(best, cpu_ns() - before);
	}
	assert_int_equal(capture(&x), 0);
	stop(&x);
	uint64_t before = cpu_ns();

	rebuild(&x, &s);
	print_message("94 descriptors: capture %.2f ms, rebuild %.2f ms of processor time\n", best / 1e6,
		      (cpu_ns() - before) / 1e6);
	finish(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ask),
		cmocka_unit_test(test_fs),
		cmocka_unit_test(test_cost),
	};

	return cmocka_run_group_tests(tests, make_shared, NULL);
}
