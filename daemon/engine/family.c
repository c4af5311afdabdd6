/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The family: every process is cloned by its own parent (clone3 with set_tid, injected), every thread by its
 * leader, so that parents, wait() and inheritance are as they were.
 *
 * A session can only be inherited or founded by oneself: children that are to stay in the session their
 * parent had before it called setsid are cloned before that.  A session (or group) whose leader is dead is
 * founded anew by a helper with the leader's pid: the parent clones it, it calls setsid, clones the members
 * with CLONE_PARENT (so the parent is theirs), ends and is reaped; the number stays taken as long as members
 * live, who clone the others.  Groups come when all processes are there.
 *
 * With the memory of its creator a clone inherits the pages that it shares with it (docs/cow-sharing.md).
 */
#include "engine/family.h"
#include "engine/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "state/files/terminal.h"

static struct thread *leader(struct process *p)
{
	return p->threads[0];
}

struct new_child {
	pid_t pid;
};

static void note_child(void *ctx, pid_t child)
{
	((struct new_child *)ctx)->pid = child;
}

/* clone3 in the (stopped) leader of @p; its argument block lies in the last page of the region. */
static int inject_clone(struct process *p, pid_t want, uint64_t flags, int exit_signal, struct error *e)
{
	struct skeleton *k = p->data;
	uint64_t scratch = region_addr(k->region) + region_size(k->region) - PAGE_SIZE_BYTES;
	struct {
		struct clone_args a;
		int32_t tid;
	} block = {.a = {.flags = flags, .exit_signal = exit_signal, .set_tid_size = 1}, .tid = want};
	struct new_child child = {0};
	int64_t result = 0;

	block.a.set_tid = scratch + offsetof(typeof(block), tid);
	if (flags & CLONE_THREAD) {
		block.a.stack = scratch + 1024;
		block.a.stack_size = 2048;
	}
	int r = pwrite_full(k->mem_fd, &block, sizeof(block), scratch);

	if (r < 0)
		return error_set(e, -r, "pid %d: write into its region", p->pid);
	uint64_t args[6] = {scratch, sizeof(block.a)};

	r = task_syscall(&leader(p)->task, SYS_clone3, args, &result, note_child, &child, e);
	if (r < 0)
		return r;
	if (result == -EEXIST)
		return error_say(e, EEXIST, "%s %d is taken here", flags & CLONE_THREAD ? "thread id" : "pid",
				 want);
	if (result < 0)
		return error_set(e, -result, "pid %d: make %s %d", p->pid,
				 flags & CLONE_THREAD ? "thread" : "child", want);
	if (child.pid != want)
		return error_say(e, EIO, "pid %d: made %s %d, but %d was wanted", p->pid,
				 flags & CLONE_THREAD ? "thread" : "child", child.pid, want);
	return 0;
}

static void adopt_task(struct task *t, const struct process *p, pid_t tid, uint64_t insn)
{
	*t = (struct task){.pid = p->pid,
			   .tid = tid,
			   .state = TASK_STOPPED,
			   .seized = true,
			   .skeleton = true,
			   .syscall_insn = insn};
}

int family_new_data(struct process *p, const Ferry__TreeProcess *tp, struct error *e)
{
	struct skeleton *k = xcalloc(1, sizeof(*k));
	cleanup_free char *path = xasprintf("/proc/%d/mem", p->pid);

	place_init(&k->place);
	k->start_time = tp->start_time;
	k->mem_fd = open(path, O_RDWR | O_CLOEXEC);
	p->data = k;
	if (k->mem_fd < 0)
		return error_set(e, errno, "open %s", path);
	return 0;
}

/* What a clone has of its creator's memory. */
static void inherit_memory(struct skeleton *k, const struct skeleton *creator)
{
	struct page_set common = PAGE_SET_INIT;

	k->mm = layout_of_clone(creator->mm);
	layout_common(creator->mm, k->mm, true, &common);
	page_set_and(&creator->has, &common, &k->has);
	page_set_deinit(&common);
}

/* @p was just cloned by @creator and is to be a child of @parent: into the tree, with a region of its own. */
static int adopt_child(struct skeletons *s, struct process *parent, struct process *creator,
		       const Ferry__TreeProcess *tp, bool inherits, struct error *e)
{
	struct skeleton *ck = creator->data;
	struct process *p = tree_add_process(s->tree, tp->pid, parent);
	struct thread *t = process_add_thread(p, tp->pid);

	p->sid = creator->sid;
	p->pgid = creator->pgid;
	adopt_task(&t->task, p, tp->pid, region_syscall_insn(ck->region));
	int r = family_new_data(p, tp, e);

	if (r >= 0 && inherits && ck->mm)
		inherit_memory(p->data, ck);
	if (r >= 0)
		r = region_inject_over(&((struct skeleton *)p->data)->region, &t->task, ck->region, e);
	return r;
}

static int make_child(struct skeletons *s, struct process *parent, const Ferry__TreeProcess *tp,
		      bool inherits, struct error *e)
{
	int r = inherits ? skeleton_flush_drops(parent, e) : 0;

	if (r >= 0)
		r = skeleton_stop(parent, e);
	if (r >= 0)
		r = inject_clone(parent, tp->pid, 0, tp->exit_signal ? tp->exit_signal : SIGCHLD, e);
	return r < 0 ? r : adopt_child(s, parent, parent, tp, inherits, e);
}

static int make_thread(struct process *p, pid_t tid, struct error *e)
{
	struct skeleton *k = p->data;
	int r = skeleton_stop(p, e);

	if (r >= 0)
		r = inject_clone(p, tid,
				 CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
					 CLONE_SYSVSEM,
				 0, e);
	if (r < 0)
		return r;
	struct thread *t = process_add_thread(p, tid);

	adopt_task(&t->task, p, tid, region_syscall_insn(k->region));
	return 0;
}

/* @ret: the result; may be NULL. */
static int inject_value(struct process *p, long nr, uint64_t a0, uint64_t a1, uint64_t a2, int64_t *ret,
			const char *what, struct error *e)
{
	uint64_t args[6] = {a0, a1, a2};
	int64_t result = 0;
	int r = skeleton_stop(p, e);

	if (r >= 0)
		r = task_syscall(&leader(p)->task, nr, args, &result, NULL, NULL, e);
	if (r < 0)
		return r;
	if (ret)
		*ret = result;
	return result < 0 ? error_set(e, -result, "pid %d: %s", p->pid, what) : 0;
}

static int inject_simple(struct process *p, long nr, uint64_t a0, uint64_t a1, const char *what,
			 struct error *e)
{
	return inject_value(p, nr, a0, a1, 0, NULL, what, e);
}

/* --- the tree -------------------------------------------------------------------------------------- */

static const Ferry__TreeProcess *wanted(const Ferry__Tree *tree, pid_t pid)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		if (tree->processes[i]->pid == pid)
			return tree->processes[i];
	return NULL;
}

static bool founds_session(const Ferry__TreeProcess *tp)
{
	return tp->sid == tp->pid;
}

/* --- dead leaders ---------------------------------------------------------------------------------- */

/* A child of @parent with the pid of a leader that is dead. */
static int make_helper(struct skeletons *s, struct process *parent, pid_t pid, bool inherits,
		       struct process **ret, struct error *e)
{
	Ferry__TreeProcess tp = FERRY__TREE_PROCESS__INIT;

	tp.pid = pid;
	int r = make_child(s, parent, &tp, inherits, e);

	*ret = tree_find(s->tree, pid);
	return r;
}

/* Clone @tp from @creator; it becomes a child of the creator's parent, in the creator's session. */
static int make_sibling(struct skeletons *s, struct process *creator, const Ferry__TreeProcess *tp,
			bool inherits, struct error *e)
{
	int r = inherits ? skeleton_flush_drops(creator, e) : 0;

	if (r >= 0)
		r = skeleton_stop(creator, e);
	if (r >= 0)
		r = inject_clone(creator, tp->pid, CLONE_PARENT, 0, e);
	return r < 0 ? r : adopt_child(s, creator->parent, creator, tp, inherits, e);
}

/* The first member of a session whose leader is dead. */
static int make_by_helper(struct skeletons *s, struct process *parent, const Ferry__TreeProcess *tp,
			  bool inherits, struct error *e)
{
	struct process *h;
	int r = make_helper(s, parent, tp->sid, inherits, &h, e);

	if (r >= 0)
		r = inject_simple(h, SYS_setsid, 0, 0, "found the session of a dead leader", e);
	if (r >= 0) {
		h->sid = h->pgid = h->pid;
		r = make_sibling(s, h, tp, inherits, e);
	}
	if (h)
		family_kill(s, h);
	return r;
}

/* A child of @parent that is in session @sid. */
static struct process *member_of(struct skeletons *s, const struct process *parent, pid_t sid)
{
	for (size_t i = 0; i < s->tree->n; i++) {
		struct process *p = s->tree->procs[i];

		if (p->parent == parent && p->sid == sid && p->data)
			return p;
	}
	return NULL;
}

/* --- the tree -------------------------------------------------------------------------------------- */

/* The leader of a session takes its terminal before its children are cloned: they have it from then on. */
static int take_terminal(struct skeletons *s, struct process *p, const Ferry__TreeProcess *tp,
			 struct error *e)
{
	struct skeleton *k = p->data;
	int64_t pidfd = -1, fd = -1;
	int slave, r;

	if (!tp->tty || !k || k->has_terminal)
		return 0;
	r = terminal_slave(s->rebuild, tp->tty - 1, &slave, e);
	if (r >= 0)
		r = inject_value(p, SYS_pidfd_open, getpid(), 0, 0, &pidfd, "get at the host's terminal", e);
	if (r >= 0)
		r = inject_value(p, SYS_pidfd_getfd, pidfd, slave, 0, &fd, "fetch its terminal", e);
	if (r >= 0)
		r = inject_value(p, SYS_ioctl, fd, TIOCSCTTY, 0, NULL, "take its controlling terminal", e);
	if (fd >= 0 && r >= 0)
		r = inject_simple(p, SYS_close, fd, 0, "close its terminal", e);
	if (pidfd >= 0 && r >= 0)
		r = inject_simple(p, SYS_close, pidfd, 0, "close the host's pidfd", e);
	k->has_terminal = r >= 0;
	return r;
}

static int found_session(struct skeletons *s, struct process *p, const Ferry__TreeProcess *tp,
			 struct error *e)
{
	int r = 0;

	if (!founds_session(tp))
		return 0;
	if (p->sid != p->pid) {
		r = inject_simple(p, SYS_setsid, 0, 0, "found its session", e);
		p->sid = p->pgid = p->pid;
	}
	return r < 0 ? r : take_terminal(s, p, tp, e);
}

int family_make(struct skeletons *s, const Ferry__Tree *tree, const Ferry__TreeProcess *tp, pid_t holder,
		struct error *e)
{
	struct process *parent = tree_find(s->tree, tp->ppid), *creator = NULL;
	const Ferry__TreeProcess *ptp = wanted(tree, tp->ppid);
	int r = 0;

	if (!parent || !ptp || !parent->data)
		return error_say(e, EINVAL, "pid %d: its parent %d is not in the tree", tp->pid, tp->ppid);
	/* Those who stay in the session that their parent has left are made before it leaves. */
	if (tp->sid == ptp->sid || founds_session(tp))
		r = found_session(s, parent, ptp, e);
	else if (!wanted(tree, tp->sid) && tp->sid != parent->sid && !s->shell_job) {
		creator = member_of(s, parent, tp->sid);
		if (!creator)
			return make_by_helper(s, parent, tp, holder == tp->ppid, e);
	}
	if (holder && holder != tp->ppid)
		creator = tree_find(s->tree, holder);
	if (r < 0)
		return r;
	if (holder && holder != tp->ppid && (!creator || creator->parent != parent || !creator->data))
		return error_say(e, EINVAL, "pid %d: shares memory with %d, which is not its sibling",
				 tp->pid, holder);
	return creator ? make_sibling(s, creator, tp, holder == creator->pid, e)
		       : make_child(s, parent, tp, holder == tp->ppid, e);
}

static int check_sessions(struct skeletons *s, const Ferry__Tree *tree, struct error *e)
{
	for (size_t i = 0; i < tree->n_processes; i++) {
		const Ferry__TreeProcess *tp = tree->processes[i];
		struct process *p = tree_find(s->tree, tp->pid);

		if (p->sid != tp->sid && (wanted(tree, tp->sid) || !s->shell_job))
			return error_say(e, ENOTSUP, "pid %d: cannot be put into session %d", tp->pid,
					 tp->sid);
	}
	return 0;
}

/* Members of a group whose leader is dead: a helper with its number leads it until they have joined. */
static int join_dead_group(struct skeletons *s, const Ferry__Tree *tree, struct process *first, pid_t pgid,
			   struct error *e)
{
	struct process *h;
	int r = make_helper(s, first, pgid, false, &h, e);

	if (r >= 0)
		r = inject_simple(h, SYS_setpgid, 0, 0, "lead the group of a dead leader", e);
	for (size_t i = 0; i < tree->n_processes && r >= 0; i++) {
		struct process *p = tree_find(s->tree, tree->processes[i]->pid);

		if (tree->processes[i]->pgid != pgid || p->pgid == pgid)
			continue;
		r = inject_simple(p, SYS_setpgid, 0, pgid, "join its process group", e);
		p->pgid = pgid;
	}
	if (h)
		family_kill(s, h);
	return r;
}

static int set_group(struct skeletons *s, const Ferry__Tree *tree, struct process *p, pid_t pgid,
		     struct error *e)
{
	if (!wanted(tree, pgid))
		return s->shell_job ? 0 : join_dead_group(s, tree, p, pgid, e);
	int r = inject_simple(p, SYS_setpgid, 0, pgid, "join its process group", e);

	p->pgid = pgid;
	return r;
}

static int set_groups(struct skeletons *s, const Ferry__Tree *tree, struct error *e)
{
	int r = 0;

	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < tree->n_processes && r >= 0; i++) {
			const Ferry__TreeProcess *tp = tree->processes[i];
			struct process *p = tree_find(s->tree, tp->pid);

			if (p->pgid != tp->pgid && (tp->pgid == tp->pid) == (pass == 0))
				r = set_group(s, tree, p, tp->pgid, e);
		}
	return r;
}

int family_settle(struct skeletons *s, const Ferry__Tree *tree, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < tree->n_processes && r >= 0; i++)
		r = found_session(s, tree_find(s->tree, tree->processes[i]->pid), tree->processes[i], e);
	if (r >= 0)
		r = check_sessions(s, tree, e);
	return r < 0 ? r : set_groups(s, tree, e);
}

static bool has_tid(const Ferry__TreeProcess *tp, pid_t tid)
{
	for (size_t i = 0; i < tp->n_tids; i++)
		if (tp->tids[i] == tid)
			return true;
	return false;
}

int family_sync_threads(struct process *p, const Ferry__TreeProcess *tp, struct error *e)
{
	int r = 0;

	for (size_t i = 1; i < p->n_threads && r >= 0;) {
		struct thread *t = p->threads[i];
		struct error gone = ERROR_INIT;
		int64_t result;

		if (has_tid(tp, t->task.tid)) {
			i++;
			continue;
		}
		/* exit(2) ends just this thread; the task is gone when the call does not come back. */
		task_syscall(&t->task, SYS_exit, (uint64_t[6]){0}, &result, NULL, NULL, &gone);
		free(t);
		memmove(&p->threads[i], &p->threads[i + 1], (p->n_threads - i - 1) * sizeof(*p->threads));
		p->n_threads--;
	}
	for (size_t i = 1; i < tp->n_tids && r >= 0; i++) {
		bool there = false;

		/* Threads are listed in the same order round after round: look at the same place first. */
		if (i < p->n_threads && p->threads[i]->task.tid == tp->tids[i])
			there = true;
		for (size_t j = 0; j < p->n_threads && !there; j++)
			there = p->threads[j]->task.tid == tp->tids[i];
		if (!there)
			r = make_thread(p, tp->tids[i], e);
	}
	return r;
}

static void forget_process(struct tree *t, struct process *p)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->procs[i] == p) {
			memmove(&t->procs[i], &t->procs[i + 1], (t->n - i - 1) * sizeof(*t->procs));
			t->n--;
			break;
		}
	for (size_t i = 0; i < p->n_threads; i++)
		free(p->threads[i]);
	free(p->threads);
	if (p->pidfd >= 0)
		close(p->pidfd);
	free(p);
}

void family_kill(struct skeletons *s, struct process *p)
{
	struct process *parent = p->parent;
	struct error ignore = ERROR_INIT;
	int status;

	kill(p->pid, SIGKILL);
	/* As the tracer we see the end of every thread first, the leader last. */
	for (size_t i = p->n_threads; i-- > 0;)
		waitpid(p->threads[i]->task.tid, &status, __WALL);
	if (parent)
		inject_simple(parent, SYS_wait4, p->pid, 0, "reap", &ignore);
	skeleton_data_free(p);
	forget_process(s->tree, p);
}

/* Processes that ended, or whose pid belongs to another process now, go, their children with them. */
void family_drop_stale(struct skeletons *s, const Ferry__Tree *tree)
{
	for (size_t i = s->tree->n; i-- > 0;) {
		struct process *p = s->tree->procs[i];
		struct skeleton *k = p->data;
		const Ferry__TreeProcess *tp = wanted(tree, p->pid);
		bool stale = !tp || (k && k->start_time != tp->start_time) ||
			     (p->parent && p->parent->pid != tp->ppid);

		if (!stale && !p->parent)
			stale = tp != tree->processes[0];
		/* One that has ended since is made anew as a zombie. */
		if (!stale && k && k->mm)
			stale = tp->state == FERRY__PROCESS_RUN_STATE__RUN_ZOMBIE;
		if (!stale)
			continue;
		for (size_t j = s->tree->n; j-- > i + 1;)
			if (s->tree->procs[j]->parent == p)
				s->tree->procs[j]->parent = NULL;
		family_kill(s, p);
	}
}
