/* SPDX-License-Identifier: Apache-2.0 */
#include "../freeze/target.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "parasite/region.h"
#include "procfs/procfs.h"

struct fixture {
	pid_t pid;
	struct task t;
	struct region *r;
	struct runner *w;
	struct error e;
	char *maps;
};

static void begin_size(struct fixture *f, void (*run)(void), size_t size)
{
	*f = (struct fixture){.pid = target_fork(run)};
	await(0, 1);
	f->maps = slurp("/proc/%d/maps", f->pid);
	stop_task(&f->t, f->pid, f->pid);
	assert_ok(task_save(&f->t, &f->e), &f->e);
	assert_ok(region_inject(&f->r, &f->t, 0, size, &f->e), &f->e);
	assert_ok(runner_start(&f->w, f->r, &f->t, &f->e), &f->e);
}

static void begin(struct fixture *f)
{
	begin_size(f, run_counter, 1 << 20);
}

static void end(struct fixture *f)
{
	assert_ok(region_remove(f->r, &f->e), &f->e);
	assert_ok(task_release(&f->t, &f->e), &f->e);
	cleanup_free char *maps = slurp("/proc/%d/maps", f->pid);

	assert_string_equal(maps, f->maps);
	free(f->maps);
	uint64_t n = shared[0];

	await(0, n + 1);
	target_kill(f->pid);
}

static void run(struct fixture *f, struct batch *b)
{
	assert_ok(runner_run(f->w, b, &f->e), &f->e);
}

/* The batch fails with this errno, and the text names the step. */
static void fails(struct fixture *f, struct batch *b, int code, const char *text)
{
	int r = runner_run(f->w, b, &f->e);

	if (r != -code || !strstr(f->e.text, text))
		print_error("%d: %s\n", r, f->e.text);
	assert_int_equal(r, -code);
	assert_non_null(strstr(f->e.text, text));
	error_clear(&f->e);
	batch_deinit(b);
}

/* --- operators ------------------------------------------------------------------------------------ */

static void test_operators(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;

	begin(&f);
	size_t text = batch_put_str(&b, "hello"), copy = batch_reserve(&b, 16), word = batch_reserve(&b, 16);
	unsigned pid = batch_call(&b, "getpid", SYS_getpid);
	unsigned copied = batch_op(&b, "copy", PB_OP_COPY, ARG_DATA(copy), ARG_DATA(text), ARG(6));

	batch_store_result(&b, word, pid, 4);
	batch_op(&b, "store", PB_OP_STORE, ARG_DATA(word + 8), ARG(0x1122334455667788ull), ARG(8));
	unsigned low = batch_op(&b, "load", PB_OP_LOAD, ARG_DATA(word + 8), ARG(4));
	unsigned all = batch_op(&b, "load", PB_OP_LOAD, ARG_DATA(word + 8), ARG(8));
	unsigned sum = batch_op(&b, "add", PB_OP_ADD, ARG_RESULT(low), ARG(1));
	unsigned fd =
		batch_call(&b, "open", SYS_openat, ARG(AT_FDCWD), ARG_STR(&b, "/dev/null"), ARG(O_RDWR));
	unsigned wrote = batch_call(&b, "write", SYS_write, ARG_RESULT(fd), ARG_DATA(text), ARG(5));

	batch_call(&b, "close", SYS_close, ARG_RESULT(fd));
	batch_op(&b, "repeat", PB_OP_REPEAT_EINTR);
	b.entries[b.n - 1].nr = SYS_getppid;
	run(&f, &b);
	assert_int_equal(b.n_done, b.n);
	assert_int_equal(batch_result(&b, pid), f.pid);
	assert_int_equal(batch_result(&b, copied), 6);
	assert_string_equal(batch_data(&b, copy), "hello");
	assert_int_equal(*(uint32_t *)batch_data(&b, word), f.pid);
	assert_int_equal(batch_result(&b, low), 0x55667788);
	assert_int_equal(batch_result(&b, all), 0x1122334455667788);
	assert_int_equal(batch_result(&b, sum), 0x55667789);
	assert_int_equal(batch_result(&b, wrote), 5);
	assert_int_equal(batch_result(&b, (unsigned)b.n - 1), getpid());
	batch_deinit(&b);
	end(&f);
}

/* Loaded and added words are values, whatever they look like. */
static void test_value_like_errno(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;
	int64_t word = -1;

	begin(&f);
	batch_op(&b, "load", PB_OP_LOAD, ARG_PUT(&b, &word, 8), ARG(8));
	batch_op(&b, "add", PB_OP_ADD, ARG_RESULT(0), ARG(-3));
	run(&f, &b);
	assert_int_equal(batch_result(&b, 1), -4);
	batch_deinit(&b);
	end(&f);
}

static void test_accept(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;

	begin(&f);
	batch_accept_any(&b, batch_call(&b, "close", SYS_close, ARG(9999)));
	batch_accept_errno(&b, batch_call(&b, "close", SYS_close, ARG(9999)), EBADF);
	batch_accept_errno(&b, batch_call(&b, "getpid", SYS_getpid), EBADF);
	batch_accept_equal(&b, batch_call(&b, "close", SYS_close, ARG(9999)), -EBADF);
	batch_accept_equal(&b, batch_call(&b, "getpid", SYS_getpid), f.pid);
	run(&f, &b);
	assert_int_equal(batch_result(&b, 0), -EBADF);
	batch_deinit(&b);
	end(&f);
}

/* --- failures ------------------------------------------------------------------------------------- */

static void test_failures(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;

	begin(&f);
	/* A call that fails: which, why, and nothing behind it is run. */
	batch_call(&b, "getpid", SYS_getpid);
	batch_call(&b, "close nothing", SYS_close, ARG(9999));
	batch_call(&b, "exit", SYS_exit_group, ARG(1));
	assert_int_equal(runner_run(f.w, &b, &f.e), -EBADF);
	assert_int_equal(b.n_done, 1);
	assert_true(b.failed);
	assert_int_equal(batch_result(&b, 1), -EBADF);
	error_clear(&f.e);
	fails(&f, &b, EBADF, "close nothing (step 2 of 3)");
	batch_accept_equal(&b, batch_call(&b, "value", SYS_getpid), 1);
	fails(&f, &b, EPROTO, "where 1 was expected");
	batch_accept_errno(&b, batch_call(&b, "other errno", SYS_close, ARG(9999)), ENOENT);
	fails(&f, &b, EBADF, "other errno");
	batch_call(&b, "later result", SYS_close, ARG_RESULT(0));
	fails(&f, &b, EINVAL, "later result");
	batch_call(&b, "beyond data", SYS_close, ARG_DATA(1));
	fails(&f, &b, EINVAL, "beyond data");
	batch_add(&b, "no such op", 99, 0, 0, NULL);
	fails(&f, &b, ENOSYS, "no such op");
	batch_accept_any(&b, batch_add(&b, "no such op at all", 99, 0, 0, NULL));
	fails(&f, &b, ENOSYS, "no such op at all");
	batch_op(&b, "store width", PB_OP_STORE, ARG_PUT(&b, "12345678", 8), ARG(1), ARG(3));
	fails(&f, &b, EINVAL, "store width");
	batch_op(&b, "load width", PB_OP_LOAD, ARG_PUT(&b, "12345678", 8), ARG(1));
	fails(&f, &b, EINVAL, "load width");
	batch_call(&b, "kind", SYS_getpid, ((struct batch_arg){9, 0}));
	fails(&f, &b, EINVAL, "kind");
	batch_call(&b, "no such call", 9999);
	fails(&f, &b, ENOSYS, "no such call");
	batch_reserve(&b, 2 << 20);
	fails(&f, &b, ENOSPC, "does not fit");
	/* And it still works. */
	batch_call(&b, "getpid", SYS_getpid);
	run(&f, &b);
	batch_deinit(&b);
	run(&f, &b); /* an empty one too */
	end(&f);
}

static void test_death(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;

	begin(&f);
	batch_call(&b, "exit", SYS_exit_group, ARG(1));
	fails(&f, &b, ESRCH, "died");
	assert_ok(region_remove(f.r, &f.e), &f.e);
	assert_ok(task_release(&f.t, &f.e), &f.e);
	free(f.maps);

	begin(&f);
	kill(f.pid, SIGKILL);
	batch_call(&b, "pause", SYS_pause);
	fails(&f, &b, ESRCH, "died");
	assert_ok(region_remove(f.r, &f.e), &f.e);
	assert_ok(task_release(&f.t, &f.e), &f.e);
	free(f.maps);
}

/* A wrong pointer given to COPY: an error, and the target survives. */
static void test_crash(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;

	begin(&f);
	batch_op(&b, "copy from nowhere", PB_OP_COPY, ARG_PUT(&b, "12345678", 8), ARG(64), ARG(8));
	fails(&f, &b, EFAULT, "copy from nowhere (step 1 of 1)");
	end(&f);
}

static void test_stop_in_batch(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;
	int status;

	begin(&f);
	kill(f.pid, SIGSTOP);
	batch_call(&b, "getpid", SYS_getpid);
	for (int i = 0; i < 20; i++)
		run(&f, &b);
	batch_deinit(&b);
	assert_ok(region_remove(f.r, &f.e), &f.e);
	assert_ok(task_release(&f.t, &f.e), &f.e);
	assert_int_equal(waitpid(f.pid, &status, WUNTRACED), f.pid);
	assert_true(WIFSTOPPED(status));
	free(f.maps);
	target_kill(f.pid);
}

/* --- size and number ------------------------------------------------------------------------------ */

static void test_many_entries(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;

	begin_size(&f, run_counter, region_size_for(1, 10000 * sizeof(struct pb_entry)));
	batch_call(&b, "getpid", SYS_getpid);
	for (unsigned i = 1; i < 10000; i++)
		batch_op(&b, "count", PB_OP_ADD, ARG_RESULT(i - 1), ARG(1));
	run(&f, &b);
	assert_int_equal(b.n_done, 10000);
	assert_int_equal(batch_result(&b, 9999), f.pid + 9999);
	b.entries[7000].kinds[0] = 77;
	fails(&f, &b, EINVAL, "count (step 7001 of 10000)");
	end(&f);
}

static void test_large_arena(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;
	size_t size = 64 << 20;

	begin_size(&f, run_counter, region_size_for(1, size + 4096));
	size_t from = batch_reserve(&b, size / 2), to = batch_reserve(&b, size / 2);
	uint64_t *p = batch_data(&b, from);

	for (size_t i = 0; i < size / 16; i++)
		p[i] = i * 0x9e3779b97f4a7c15ull;
	batch_op(&b, "copy", PB_OP_COPY, ARG_DATA(to), ARG_DATA(from), ARG(size / 2));
	run(&f, &b);
	assert_memory_equal(batch_data(&b, from), batch_data(&b, to), size / 2);
	batch_deinit(&b);
	end(&f);
}

static void *counting_thread(void *arg)
{
	for (;;)
		shared[(size_t)arg]++;
	return NULL;
}

#include <pthread.h>
#define THREADS 8
static void run_threads(void)
{
	pthread_t th;

	for (size_t i = 1; i < THREADS; i++)
		pthread_create(&th, NULL, counting_thread, (void *)i);
	run_counter();
}

static void test_threads(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct region *r;
	struct task t[THREADS];
	struct runner *w[THREADS];
	struct batch b[THREADS] = {0}, *list[THREADS];
	pid_t pid = target_fork(run_threads), *tids;
	size_t n;

	for (unsigned i = 0; i < THREADS; i++)
		await(i, 1);
	assert_ok(proc_threads(pid, &tids, &n, &e), &e);
	assert_int_equal(n, THREADS);
	cleanup_free char *maps = slurp("/proc/%d/maps", pid);

	for (size_t i = 0; i < n; i++)
		stop_task(&t[i], pid, tids[i]);
	/* Room for fewer batches at a time than there are threads. */
	assert_ok(region_inject(&r, &t[0], 0, region_size_for(THREADS, 3 * 65536), &e), &e);
	for (size_t i = 0; i < n; i++) {
		assert_ok(runner_start(&w[i], r, &t[i], &e), &e);
		batch_call(&b[i], "gettid", SYS_gettid);
		batch_reserve(&b[i], 50000);
		list[i] = &b[i];
	}
	for (int round = 0; round < 50; round++) {
		assert_ok(runner_run_all(w, list, n, &e), &e);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(batch_result(&b[i], 0), tids[i]);
	}
	batch_call(&b[5], "fail", SYS_close, ARG(-1));
	assert_int_equal(runner_run_all(w, list, n, &e), -EBADF);
	assert_true(b[7].ran);
	error_clear(&e);
	assert_ok(region_remove(r, &e), &e);
	for (size_t i = 0; i < n; i++) {
		assert_ok(task_release(&t[i], &e), &e);
		batch_deinit(&b[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		await(i, shared[i] + 1);
	cleanup_free char *maps2 = slurp("/proc/%d/maps", pid);

	assert_string_equal(maps, maps2);
	free(tids);
	target_kill(pid);
}

/* --- injection that fails -------------------------------------------------------------------------- */

static void run_small_as(void)
{
	struct rlimit small = {64 << 20, 64 << 20};

	setrlimit(RLIMIT_AS, &small);
	run_counter();
}

static void test_no_room(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t;
	struct region *r;
	pid_t pid = target_fork(run_small_as);

	await(0, 1);
	cleanup_free char *maps = slurp("/proc/%d/maps", pid);

	stop_task(&t, pid, pid);
	assert_int_equal(region_inject(&r, &t, 0, 512 << 20, &e), -ENOMEM);
	assert_non_null(strstr(e.text, "mmap"));
	error_clear(&e);
	assert_int_equal(region_inject(&r, &t, 0x400000000000 - 4096, 2ull << 30, &e), -EINVAL);
	error_clear(&e);
	assert_ok(task_release(&t, &e), &e);
	cleanup_free char *maps2 = slurp("/proc/%d/maps", pid);

	assert_string_equal(maps, maps2);
	await(0, shared[0] + 1);
	target_kill(pid);
}

/* --- skeletons ------------------------------------------------------------------------------------ */

static void child_made(void *ctx, pid_t child)
{
	*(pid_t *)ctx = child;
}

static void run_stub(void)
{
	struct error e = ERROR_INIT;
	int fd = stub_memfd(&e);

	shared[0] = 1;
	syscall(SYS_execveat, fd, "", (char *[]){NULL}, (char *[]){NULL}, AT_EMPTY_PATH);
	shared[1] = 1;
}

static void test_skeleton(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct task t, c;
	struct region *r, *rc;
	struct runner *w, *wc;
	struct batch b = BATCH_INIT;
	pid_t child = 0, pid = target_fork(run_stub);
	uint64_t at = 0x300000000000;
	int64_t result;

	await(0, 1);
	msleep(20);
	assert_int_equal(shared[1], 0);
	cleanup_free char *maps = slurp("/proc/%d/maps", pid);

	assert_non_null(strstr(maps, "memfd:ferry-stub"));
	assert_ok(task_seize(&t, pid, pid, true, &e), &e);
	assert_ok(task_interrupt(&t, &e), &e);
	assert_int_equal(task_wait_stopped(&t, 5000, &e), 0);
	assert_ok(region_inject(&r, &t, at, 1 << 20, &e), &e);
	assert_int_equal(region_addr(r), at);
	/* All that was there can go: system calls are made in the region now. */
	assert_ok(task_syscall(&t, SYS_munmap, (uint64_t[6]){0, at}, &result, NULL, NULL, &e), &e);
	assert_int_equal(result, 0);
	assert_ok(task_syscall(&t, SYS_fork, NULL, &result, child_made, &child, &e), &e);
	assert_int_equal(result, child);
	task_adopt(&c, child, child, true);
	assert_ok(region_inject_over(&rc, &c, r, &e), &e);
	assert_ok(runner_start(&w, r, &t, &e), &e);
	assert_ok(runner_start(&wc, rc, &c, &e), &e);
	batch_call(&b, "getpid", SYS_getpid);
	assert_ok(runner_run(w, &b, &e), &e);
	assert_int_equal(batch_result(&b, 0), pid);
	assert_ok(runner_run(wc, &b, &e), &e);
	assert_int_equal(batch_result(&b, 0), child);
	batch_deinit(&b);
	assert_ok(region_remove(rc, &e), &e);
	kill(child, SIGKILL);
	region_free(r);
	target_kill(pid);
}

/* --- signals while held ---------------------------------------------------------------------------- */

static void on_segv(int sig)
{
	(void)sig;
	shared[1]++;
}

static void run_handlers(void)
{
	signal(SIGSEGV, on_segv);
	signal(SIGTRAP, on_segv);
	run_counter();
}

static void test_handlers_kept(void **state)
{
	(void)state;
	struct fixture f;
	struct batch b = BATCH_INIT;

	begin_size(&f, run_handlers, 1 << 20);
	batch_call(&b, "getpid", SYS_getpid);
	kill(f.pid, SIGSEGV);
	kill(f.pid, SIGTRAP);
	run(&f, &b);
	batch_deinit(&b);
	assert_int_equal(shared[1], 0);
	assert_ok(region_remove(f.r, &f.e), &f.e);
	assert_ok(task_release(&f.t, &f.e), &f.e);
	await(1, 2);
	msleep(2);
	assert_int_equal(shared[1], 2);
	free(f.maps);
	target_kill(f.pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_operators),     cmocka_unit_test(test_value_like_errno),
		cmocka_unit_test(test_accept),        cmocka_unit_test(test_failures),
		cmocka_unit_test(test_death),         cmocka_unit_test(test_crash),
		cmocka_unit_test(test_stop_in_batch), cmocka_unit_test(test_many_entries),
		cmocka_unit_test(test_large_arena),   cmocka_unit_test(test_threads),
		cmocka_unit_test(test_no_room),       cmocka_unit_test(test_skeleton),
		cmocka_unit_test(test_handlers_kept),
	};

	return cmocka_run_group_tests(tests, target_setup, target_teardown);
}
