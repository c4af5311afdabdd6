/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Userfaultfds of the program's own: whose memory, which ranges in which modes, which pages are there, which
 * are write protected.
 *
 * /proc tells the features of a userfaultfd (fdinfo) and the modes of a mapping (VmFlags), but not which
 * belongs to which.  The kernel does, to who asks with the descriptor: registering a range again in the same
 * mode changes nothing and succeeds for the owner, and is EBUSY for others.  It acts on the memory of the
 * process that made the descriptor, though, which may be any of the tree, and forked processes have the same
 * addresses.  So first that process is found, by registering and unregistering a page that only it has: the
 * last one of the parasite's region, whose place is another in every process.  All of it with the tree
 * frozen, since a program that unregisters a range at the same moment would find it registered again.
 *
 * Pages: what is missing in a registered range must stay missing, and what is there must be there, a page of
 * zeros too, since a fault for it would ask the monitor for a page it has already given.  So the image says
 * which pages the page table has, and the rebuild compares that with what arrived, page by page, before and
 * after it registers.
 *
 * A thread that waits for a page when the tree is frozen faults again when it runs again, here or there.  An
 * event that was not read yet is made anew by that; one that was read but not yet answered comes a second
 * time unless the answer is there first, as after any signal; monitors have to expect that.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "base/page_set.h"
#include "base/util.h"
#include "parasite/region.h"
#include "procfs/pagemap.h"
#include "procfs/procfs.h"
#include "state/files/files.h"
#include "state/files/userfaultfd.h"
#include "state/memory/memory.h"

#define FAULT_TRIES         50000       /* of 0.1 ms: one of the two always happens, much sooner */
#define FEATURE_INITIALISED 0x80000000u /* the kernel's own mark in the features that fdinfo shows */

bool userfaultfd_is(const char *link)
{
	return !strcmp(link, "anon_inode:[userfaultfd]");
}

static bool uffd_match(const struct fd_facts *f)
{
	return userfaultfd_is(f->link);
}

/* --- capture -------------------------------------------------------------------------------------------- */

bool userfaultfd_register(int uffd, uint64_t start, uint64_t end, uint32_t modes)
{
	struct uffdio_register reg = {.range = {start, end - start}, .mode = modes};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) == 0;
}

/* Is the memory behind @uffd that of the process that has @region? *ret_gone: it is nobody's any more. */
static bool is_of(int uffd, const struct region *region, bool *ret_gone)
{
	uint64_t page = region_addr(region) + region_size(region) - PAGE_SIZE_BYTES;
	struct uffdio_range range = {page, PAGE_SIZE_BYTES};

	if (!userfaultfd_register(uffd, page, page + PAGE_SIZE_BYTES, UFFDIO_REGISTER_MODE_MISSING)) {
		*ret_gone = errno == ENOMEM || errno == ESRCH;
		return false;
	}
	ioctl(uffd, UFFDIO_UNREGISTER, &range);
	return true;
}

static int find_owner(struct capture *c, const struct fd_facts *f, struct process **ret, struct error *e)
{
	bool gone = false;

	*ret = NULL;
	for (size_t i = 0; i < c->tree->n && !*ret; i++) {
		const struct memory_process *mp = c->tree->procs[i]->data;

		if (mp && mp->region && is_of(f->copy, mp->region, &gone))
			*ret = c->tree->procs[i];
	}
	if (*ret || gone)
		return 0;
	return error_say(
		e, ENOTSUP,
		"pid %d fd %d: its userfaultfd handles the memory of a process that is not in the tree",
		f->pid, f->fd);
}

static uint32_t modes_of(const Ferry__Vma *v)
{
	return (v->flags & FERRY__VMA_FLAG__VMA_UFFD_MISSING ? UFFDIO_REGISTER_MODE_MISSING : 0) |
	       (v->flags & FERRY__VMA_FLAG__VMA_UFFD_WP ? UFFDIO_REGISTER_MODE_WP : 0) |
	       (v->flags & FERRY__VMA_FLAG__VMA_UFFD_MINOR ? UFFDIO_REGISTER_MODE_MINOR : 0);
}

static void put_pairs(const struct page_set *s, size_t *ret_n, uint64_t **ret)
{
	*ret = xcalloc(2 * s->n + 1, sizeof(**ret));
	*ret_n = 2 * s->n;
	for (size_t i = 0; i < s->n; i++) {
		(*ret)[2 * i] = s->r[i].start;
		(*ret)[2 * i + 1] = s->r[i].end;
	}
}

/* Missing means: not in the page table of private memory, a hole of shared memory (which its object keeps);
 * for minor faults: not in the page table of shared memory. */
static bool needs_pages(const Ferry__Vma *v)
{
	return v->flags & FERRY__VMA_FLAG__VMA_UFFD_MINOR ||
	       (v->flags & FERRY__VMA_FLAG__VMA_UFFD_MISSING && !v->shared);
}

/* Pages of a range as the two sides compare them: of a private file map the file's own do not count. */
int userfaultfd_pages(int pagemap, const Ferry__Vma *v, uint64_t start, uint64_t end, struct page_set *ret)
{
	if (!v->shared && v->kind != FERRY__VMA_KIND__VMA_ANON)
		return pagemap_populated(pagemap, start, end, 1, ret);
	return pagemap_mapped(pagemap, start, end, ret);
}

static int take_ranges(const struct process *p, int uffd, Ferry__UserFaultFd *u, struct error *e)
{
	const struct memory_process *mp = p->data;
	struct page_set present = PAGE_SET_INIT, protected = PAGE_SET_INIT;
	size_t cap = 0;
	int r = 0;

	for (size_t i = 0; i < mp->mm->n_vmas && r >= 0; i++) {
		const Ferry__Vma *v = mp->mm->vmas[i];
		uint32_t modes = modes_of(v);

		if (!modes || !userfaultfd_register(uffd, v->start, v->end, modes))
			continue;
		Ferry__UserFaultRange *range = xmalloc(sizeof(*range));

		ferry__user_fault_range__init(range);
		range->start = v->start;
		range->end = v->end;
		range->modes = modes;
		range->exact = needs_pages(v);
		FILES_GROW(u->ranges, u->n_ranges, cap);
		u->ranges[u->n_ranges++] = range;
		if (range->exact)
			r = userfaultfd_pages(mp->pagemap_fd, v, v->start, v->end, &present);
		if (r >= 0 && modes & UFFDIO_REGISTER_MODE_WP)
			r = pagemap_protected(mp->pagemap_fd, v->start, v->end, &protected);
	}
	put_pairs(&present, &u->n_present, &u->present);
	put_pairs(&protected, &u->n_write_protected, &u->write_protected);
	page_set_deinit(&present);
	page_set_deinit(&protected);
	return r < 0 ? error_set(e, -r, "pid %d: look at the pages of its userfaultfd", p->pid) : 0;
}

static uint64_t pending_of(int uffd)
{
	char path[64];
	cleanup_free char *text = NULL;
	uint64_t n = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	if (read_file(path, &text) >= 0)
		proc_field_u64(text, "pending", 10, &n);
	return n;
}

/* A page of anonymous memory that is missing, or 0. */
static uint64_t find_missing(const struct memory_process *mp, const Ferry__UserFaultFd *u)
{
	for (size_t i = 0; i < mp->mm->n_vmas; i++) {
		const Ferry__Vma *v = mp->mm->vmas[i];
		uint64_t at = v->start;

		if (v->kind != FERRY__VMA_KIND__VMA_ANON || !(v->prot & PROT_READ) ||
		    !(v->flags & FERRY__VMA_FLAG__VMA_UFFD_MISSING))
			continue;
		bool mine = false;

		for (size_t k = 0; k < u->n_ranges; k++)
			mine |= u->ranges[k]->start == v->start;
		for (size_t k = 0; k + 1 < u->n_present && at < v->end; k += 2)
			if (u->present[k] <= at && u->present[k + 1] > at)
				at = u->present[k + 1];
		if (mine && at < v->end)
			return at;
	}
	return 0;
}

/*
 * Whether it handles faults of the program's own instructions only (UFFD_USER_MODE_ONLY) shows nowhere, but
 * in what it does: a read of a missing page from outside is refused at once, or waits for the monitor, which
 * is frozen.  The one who waits is a child that is killed then; nothing remains of it.
 */
static int try_kernel_fault(pid_t pid, int uffd, uint64_t page)
{
	uint64_t before = pending_of(uffd);
	pid_t child = fork();
	int status, answer = -1;

	if (child == 0) {
		static char buffer[16];
		struct iovec to = {buffer, sizeof(buffer)}, from = {(void *)(uintptr_t)page, sizeof(buffer)};

		_exit(process_vm_readv(pid, &to, 1, &from, 1, 0) < 0 && errno == EFAULT ? 1 : 2);
	}
	for (int i = 0; child > 0 && answer < 0 && i < FAULT_TRIES; i++) {
		if (waitpid(child, &status, WNOHANG) == child)
			return WIFEXITED(status) && WEXITSTATUS(status) == 1;
		if (pending_of(uffd) > before)
			answer = 0;
		else
			nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	}
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
	}
	return answer;
}

/* Where no page is missing: what the process could make, were it to make one now. */
static bool could_only_make_user_mode(pid_t pid)
{
	cleanup_free char *text = NULL;
	struct proc_status st;
	struct error ignore = ERROR_INIT;
	bool capable;

	if (read_file("/proc/sys/vm/unprivileged_userfaultfd", &text) >= 0 && text[0] == '1')
		return false;
	if (proc_status_read(pid, pid, &st, &ignore) < 0)
		return true;
	capable = st.cap_eff & (1ull << 19); /* CAP_SYS_PTRACE */
	proc_status_deinit(&st);
	return !capable;
}

static bool is_user_mode_only(const struct process *p, int uffd, const Ferry__UserFaultFd *u)
{
	uint64_t page = u->ready && !(u->features & UFFD_FEATURE_SIGBUS) ? find_missing(p->data, u) : 0;
	int r = page ? try_kernel_fault(process_living(p), uffd, page) : -1;

	return r >= 0 ? r == 1 : could_only_make_user_mode(p->pid);
}

static int take_state(struct capture *c, const struct fd_facts *f, Ferry__UserFaultFd *u, struct error *e)
{
	struct process *p = NULL;
	int r = 0;

	/* One that was made since the last look at the mappings: they were not asked for their modes. */
	if (!((struct memory *)c->memory)->userfaults_seen)
		return error_say(
			e, EAGAIN,
			"pid %d fd %d: a userfaultfd was made in the very moment of the freeze: try again",
			f->pid, f->fd);
	if (u->ready)
		r = find_owner(c, f, &p, e);
	else /* it knows its memory from the start, but would not say: the first that has it made it */
		p = f->extra ? NULL : tree_find(c->tree, f->pid);
	if (r < 0)
		return r;
	u->pid = p ? p->pid : 0;
	if (!p)
		return 0;
	r = take_ranges(p, f->copy, u, e);
	if (r >= 0)
		u->user_mode_only = is_user_mode_only(p, f->copy, u);
	return r;
}

static int uffd_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	const char *info = fd_facts_info(f, e), *api = info ? proc_field(info, "API") : NULL;
	unsigned features = 0;

	if (!info)
		return -e->code;
	if (!api || sscanf(api, "%*x:%x", &features) != 1)
		return error_say(e, EIO, "pid %d fd %d: fdinfo does not show its userfaultfd", f->pid, f->fd);
	if (c->memory)
		((struct memory *)c->memory)->userfaults = true;
	m->userfaultfd = xmalloc(sizeof(*m->userfaultfd));
	ferry__user_fault_fd__init(m->userfaultfd);
	m->userfaultfd->ready = features & FEATURE_INITIALISED;
	m->userfaultfd->features = features & ~FEATURE_INITIALISED;
	return f->frozen ? take_state(c, f, m->userfaultfd, e) : 0;
}

/* Every mapping whose faults somebody handles must have been claimed. (Write protection alone may be what is
 * left of our own tracking.) */
static int uffd_settle(struct capture *c, Ferry__Files *all, struct error *e)
{
	const uint64_t flags = FERRY__VMA_FLAG__VMA_UFFD_MISSING | FERRY__VMA_FLAG__VMA_UFFD_MINOR;
	struct page_set claimed = PAGE_SET_INIT;
	int r = 0;

	for (size_t i = 0; files_capture_of(c)->frozen && i < c->tree->n && r >= 0; i++) {
		const struct process *p = c->tree->procs[i];
		const struct memory_process *mp = p->data;

		if (!userfaultfd_find_registered(p, flags))
			continue;
		page_set_clear(&claimed);
		for (size_t k = 0; k < all->n_files; k++) {
			const Ferry__UserFaultFd *u = all->files[k]->userfaultfd;

			for (size_t j = 0; u && u->pid == p->pid && j < u->n_ranges; j++)
				page_set_add(&claimed, u->ranges[j]->start, u->ranges[j]->end);
		}
		for (size_t k = 0; k < mp->mm->n_vmas && r >= 0; k++)
			if (mp->mm->vmas[k]->flags & flags &&
			    !page_set_overlaps(&claimed, mp->mm->vmas[k]->start, mp->mm->vmas[k]->end))
				r = userfaultfd_refuse_outside(c, p, mp->mm->vmas[k], e);
	}
	page_set_deinit(&claimed);
	return r;
}

const struct fd_type fd_userfaultfd = {
	.name = "userfaultfd",
	.kind = FILE_KIND(USERFAULTFD),
	.match = uffd_match,
	.preflight = userfaultfd_preflight,
	.capture = uffd_capture,
	.settle = uffd_settle,
	.check = userfaultfd_check_here,
	.open = userfaultfd_open,
	.connect = userfaultfd_connect,
};
