/* SPDX-License-Identifier: Apache-2.0 */
/*
 * maps and smaps.  A line is "start-end perms offset major:minor inode   path"; the kernel writes a newline
 * in the path as \012 and leaves everything else alone, a backslash too: a file whose name really holds the
 * four characters \012 reads like one with a newline (map_files tells them apart).  Likewise the kernel
 * appends " (deleted)" to a file that is unlinked, and a name may end like that by itself: the path is given
 * as it stands.
 *
 * The kernel writes the file in pieces, and the map of a running process may change between them: a VMA that
 * merged with one that was already printed comes again.  The result is sorted and disjoint all the same.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "procfs/text.h"

static const struct {
	char name[3];
	uint64_t flag;
} vm_flags[] = {
	{"gd", PROC_VM_GROWSDOWN},    {"lo", PROC_VM_LOCKED},     {"lf", PROC_VM_LOCKFAULT},
	{"nr", PROC_VM_NORESERVE},    {"dc", PROC_VM_DONTCOPY},   {"dd", PROC_VM_DONTDUMP},
	{"wf", PROC_VM_WIPEONFORK},   {"hg", PROC_VM_HUGEPAGE},   {"nh", PROC_VM_NOHUGEPAGE},
	{"sr", PROC_VM_SEQREAD},      {"rr", PROC_VM_RANDREAD},   {"ht", PROC_VM_HUGETLB},
	{"sf", PROC_VM_SYNC},         {"mg", PROC_VM_MERGEABLE},  {"io", PROC_VM_IO},
	{"pf", PROC_VM_PFNMAP},       {"mw", PROC_VM_MAYWRITE},   {"uw", PROC_VM_UFFD_WP},
	{"um", PROC_VM_UFFD_MISSING}, {"ui", PROC_VM_UFFD_MINOR}, {"sl", PROC_VM_SEALED},
	{"sd", PROC_VM_SOFTDIRTY},    {"dp", PROC_VM_DROPPABLE},  {"ac", PROC_VM_ACCOUNT},
	{"gu", PROC_VM_GUARD},
};

static char *unescape(const char *p, size_t n)
{
	char *s = xmalloc(n + 1), *q = s;

	for (size_t i = 0; i < n; i++) {
		if (n - i >= 4 && memcmp(p + i, "\\012", 4) == 0) {
			*q++ = '\n';
			i += 3;
		} else {
			*q++ = p[i];
		}
	}
	*q = 0;
	return s;
}

static bool perms(const char **p, struct proc_vma *v)
{
	static const struct {
		char c;
		uint32_t prot;
	} bits[] = {{'r', PROT_READ}, {'w', PROT_WRITE}, {'x', PROT_EXEC}};

	for (size_t i = 0; i < ARRAY_SIZE(bits); i++, ++*p) {
		if (**p == bits[i].c)
			v->prot |= bits[i].prot;
		else if (**p != '-')
			return false;
	}
	/* 's': may be shared (VM_MAYSHARE); 'p': private. */
	v->shared = **p == 's';
	if (**p != 's' && **p != 'p')
		return false;
	++*p;
	return true;
}

static bool header(const char *p, struct proc_vma *v)
{
	uint64_t major, minor;

	if (!text_u64(&p, 16, &v->start) || !text_skip(&p, "-") || !text_u64(&p, 16, &v->end) ||
	    !text_skip(&p, " ") || !perms(&p, v) || !text_skip(&p, " ") || !text_u64(&p, 16, &v->offset) ||
	    !text_skip(&p, " ") || !text_u64(&p, 16, &major) || !text_skip(&p, ":") ||
	    !text_u64(&p, 16, &minor) || !text_skip(&p, " ") || !text_u64(&p, 10, &v->ino))
		return false;
	if (v->start >= v->end || (v->start | v->end) % PAGE_SIZE_BYTES || major > UINT32_MAX ||
	    minor > UINT32_MAX)
		return false;
	v->dev_major = major;
	v->dev_minor = minor;
	text_blanks(&p);
	v->path = unescape(p, strchrnul(p, '\n') - p);
	return true;
}

/* Kernels before "lf" (seen: 6.1, 6.12) print VM_LOCKONFAULT as a flag without a name. No other nameless flag
 * goes together with locked memory that Ferry would touch. */
static uint64_t flags_line(const char *p)
{
	uint64_t flags = 0;
	bool nameless = false;

	for (;;) {
		text_blanks(&p);
		if (*p == 0 || *p == '\n' || p[1] == 0 || p[1] == '\n')
			return nameless && (flags & PROC_VM_LOCKED) ? flags | PROC_VM_LOCKFAULT : flags;
		for (size_t i = 0; i < ARRAY_SIZE(vm_flags); i++)
			if (memcmp(p, vm_flags[i].name, 2) == 0)
				flags |= vm_flags[i].flag;
		nameless |= memcmp(p, "??", 2) == 0;
		p += 2;
	}
}

static uint32_t pkey_line(const char *p)
{
	uint64_t key;

	text_blanks(&p);
	return text_u64(&p, 10, &key) && key < 32 ? key : 0;
}

/* Add @v (taken over) behind the last one, cut where it overlaps. Returns false when nothing of it is new. */
static bool add(struct proc_maps *m, size_t *cap, struct proc_vma *v)
{
	uint64_t last = m->n ? m->v[m->n - 1].end : 0;

	if (v->end <= last) {
		free(v->path);
		return false;
	}
	if (v->start < last) {
		if (v->ino)
			v->offset += last - v->start;
		v->start = last;
	}
	if (m->n == *cap) {
		*cap = *cap ? *cap * 2 : 64;
		m->v = xrealloc(m->v, *cap * sizeof(*m->v));
	}
	m->v[m->n++] = *v;
	return true;
}

int proc_maps_parse(const char *text, struct proc_maps *ret, struct error *e)
{
	struct proc_maps m = {0};
	bool current = false; /* smaps lines belong to the last VMA (false: to one that was dropped) */
	size_t cap = 0;

	for (const char *p = text; *p; p = text_next_line(p)) {
		if (*p >= 'A' && *p <= 'Z') { /* smaps: "Size: ..."; addresses are lower-case */
			const char *q = p;

			if (current && text_skip(&q, "VmFlags:")) {
				m.v[m.n - 1].has_flags = true;
				m.v[m.n - 1].vmflags = flags_line(q);
			} else if (current && text_skip(&q, "AnonHugePages:")) {
				text_blanks(&q);
				text_u64(&q, 10, &m.v[m.n - 1].anon_huge_kb);
			} else if (current && text_skip(&q, "ProtectionKey:")) {
				m.v[m.n - 1].pkey = pkey_line(q);
			}
			continue;
		}
		struct proc_vma v = {0};

		if (!header(p, &v)) {
			proc_maps_deinit(&m);
			return error_say(e, EINVAL, "a line of /proc/PID/maps is malformed: %.*s",
					 (int)MIN(strchrnul(p, '\n') - p, 160), p);
		}
		current = add(&m, &cap, &v);
	}
	*ret = m;
	return 0;
}

#define EXEC_TRIES 10

/* The text through a thread that still has the memory: that of a dead leader is empty. 0, *ret empty too if
 * there is none; or -errno. */
static int read_once(pid_t pid, const char *name, char **ret, struct error *e)
{
	int r = proc_file_read(pid, 0, name, ret, e);

	if (r < 0 || **ret)
		return r;
	cleanup_free pid_t *tids = NULL;
	size_t n;

	r = proc_threads(pid, &tids, &n, e);
	for (size_t i = 0; r >= 0 && i < n && !**ret; i++) {
		struct error ignored = ERROR_INIT; /* this thread went meanwhile */
		char *text;

		if (tids[i] == pid || proc_file_read(pid, tids[i], name, &text, &ignored) < 0)
			continue;
		free(*ret);
		*ret = text;
	}
	return r;
}

/* An open file stays with the memory it was opened for: after an exec between open and read it is empty. */
static int read_text(pid_t pid, const char *name, char **ret, struct error *e)
{
	for (int i = 0; i < EXEC_TRIES; i++) {
		int r = read_once(pid, name, ret, e);
		struct proc_stat st;

		if (r < 0 || **ret)
			return r;
		if (proc_stat_read(pid, 0, &st, e) < 0)
			return -e->code;
		if (st.state == 'Z' || st.state == 'X' || (st.flags & PF_EXITING))
			break;
		free(TAKE_PTR(*ret));
	}
	return error_say(e, ESRCH, "process %d has no memory: it has exited (or is a kernel thread)", pid);
}

int proc_maps_read(pid_t pid, bool flags, struct proc_maps *ret, struct error *e)
{
	cleanup_free char *text = NULL;
	int r = read_text(pid, flags ? "smaps" : "maps", &text, e);

	if (r < 0)
		return r;
	r = proc_maps_parse(text, ret, e);
	return r < 0 ? error_prefix(e, "process %d", pid) : 0;
}

void proc_maps_deinit(struct proc_maps *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->v[i].path);
	free(m->v);
	memset(m, 0, sizeof(*m));
}
