/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll sets.  An entry is a pair of file and number, and the number is that of the process which added it:
 * rebuilt by the host it would carry the host's numbers, and the owner could not change or remove it.  So
 * each entry is added by a process that has both descriptors, when all are in place.
 *
 * An edge-triggered entry may wake once more than it would have, and a one-shot entry that has fired may
 * report a hang-up once: the kernel has no way to say "already seen".
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "state/files/files.h"

struct params { /* struct epoll_params of Linux 6.9 */
	uint32_t busy_poll_usecs;
	uint16_t busy_poll_budget;
	uint8_t prefer_busy_poll, pad;
};
#define SET_PARAMS _IOW(0x8A, 0x01, struct params)
#define GET_PARAMS _IOR(0x8A, 0x02, struct params)

struct watch { /* one line of fdinfo */
	int fd;
	uint32_t events;
	uint64_t data, ino;
};

static bool epoll_match(const struct fd_facts *f)
{
	return !strcmp(f->link, "anon_inode:[eventpoll]");
}

/* Lines "tfd: 5 events: 19 data: 5  pos:0 ino:9a61 sdev:9", in the order that kcmp counts them. */
static struct watch *parse(const char *text, size_t *ret_n)
{
	struct watch *w = NULL;
	size_t cap = 0;

	*ret_n = 0;
	for (const char *line = text; line && *line;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		unsigned long long data, ino;
		long long pos;
		struct watch one;

		if (sscanf(line, "tfd: %d events: %x data: %llx pos:%lli ino:%llx", &one.fd, &one.events,
			   &data, &pos, &ino) != 5)
			continue;
		one.data = data;
		one.ino = ino;
		FILES_GROW(w, *ret_n, cap);
		w[(*ret_n)++] = one;
	}
	return w;
}

static const struct fd_slot *find_number(const struct fd_table *t, int fd)
{
	size_t low = 0, high = t->n;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (t->fds[mid].fd == fd)
			return &t->fds[mid];
		if (t->fds[mid].fd < fd)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

struct holder {
	const struct fd_table *table;
	int epoll_fd;
};

/* Processes that have the description, each with its first number. */
static struct holder *find_holders(const struct files_capture *f, uint32_t ofd, size_t *ret_n)
{
	struct holder *h = NULL;
	size_t cap = 0;

	*ret_n = 0;
	for (size_t i = 0; i < f->n_tables; i++) {
		const struct fd_table *t = &f->tables[i];

		for (size_t k = 0; k < t->n && !t->shared_with; k++) {
			if (t->fds[k].ofd != ofd)
				continue;
			FILES_GROW(h, *ret_n, cap);
			h[(*ret_n)++] = (struct holder){t, t->fds[k].fd};
			break;
		}
	}
	return h;
}

/* Is number w->fd of the holder the file that is watched? @nth: of the lines with this number. */
static bool is_watched(const struct files_capture *f, const struct holder *h, const struct watch *w,
		       unsigned nth)
{
	const struct fd_slot *s = find_number(h->table, w->fd);

	if (!s || f->ofds[s->ofd].st.st_ino != w->ino)
		return false;
	/* A socket's inode has one description; others may share theirs. The kernel walks the set for this
	 * one. */
	if (S_ISSOCK(f->ofds[s->ofd].st.st_mode))
		return true;
	struct kcmp_epoll_slot slot = {.efd = h->epoll_fd, .tfd = w->fd, .toff = nth};

	return sys_kcmp(h->table->living, h->table->living, KCMP_EPOLL_TFD, w->fd, (unsigned long)&slot) == 0;
}

static void add_entry(Ferry__Epoll *m, size_t *cap, pid_t pid, const struct watch *w)
{
	Ferry__EpollEntry *entry = xmalloc(sizeof(*entry));

	ferry__epoll_entry__init(entry);
	entry->pid = pid;
	entry->fd = w->fd;
	entry->events = w->events;
	entry->data = w->data;
	FILES_GROW(m->entries, m->n_entries, *cap);
	m->entries[m->n_entries++] = entry;
}

static int take_entries(struct capture *c, const struct fd_facts *f, const char *info, Ferry__Epoll *m,
			struct error *e)
{
	struct files_capture *fc = files_capture_of(c);
	size_t n_watches, n_holders, cap = 0;
	cleanup_free struct watch *w = parse(info, &n_watches);
	cleanup_free struct holder *h = n_watches ? find_holders(fc, f->id - 1, &n_holders) : NULL;

	for (size_t i = 0; i < n_watches; i++) {
		unsigned nth = 0;
		size_t k = 0;

		for (size_t j = i; j-- > 0 && w[j].fd == w[i].fd;)
			nth++;
		while (k < n_holders && !is_watched(fc, &h[k], &w[i], nth))
			k++;
		if (k < n_holders)
			add_entry(m, &cap, h[k].table->pid, &w[i]);
		else if (f->frozen)
			return error_say(e, ENOTSUP,
					 "pid %d fd %d: its epoll set watches a file as number %d that no "
					 "process holding the set "
					 "has open under this number any more, which is not supported",
					 f->pid, f->fd, w[i].fd);
	}
	return 0;
}

static int epoll_capture(struct capture *c, struct fd_facts *f, FileDescription *m, struct error *e)
{
	const char *info = fd_facts_info(f, e);
	struct params params = {0};

	if (!info)
		return -e->code;
	m->epoll = xmalloc(sizeof(*m->epoll));
	ferry__epoll__init(m->epoll);
	if (ioctl(f->copy, GET_PARAMS, &params) == 0 &&
	    (params.busy_poll_usecs || params.busy_poll_budget || params.prefer_busy_poll)) {
		m->epoll->has_params = true;
		m->epoll->busy_poll_usecs = params.busy_poll_usecs;
		m->epoll->busy_poll_budget = params.busy_poll_budget;
		m->epoll->prefer_busy_poll = params.prefer_busy_poll;
	}
	return take_entries(c, f, info, m->epoll, e);
}

static int epoll_open(struct rebuild *r, const FileDescription *m, int *ret_fd, struct error *e)
{
	(void)r;
	if (!m->epoll)
		return error_say(e, EPROTO, "the image says nothing of epoll set %llu",
				 (unsigned long long)m->id);
	cleanup_close int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "pid %d fd %d: making an epoll set", m->pid, m->fd);
	struct params params = {m->epoll->busy_poll_usecs, m->epoll->busy_poll_budget,
				m->epoll->prefer_busy_poll, 0};

	if (m->epoll->has_params && ioctl(fd, SET_PARAMS, &params) < 0)
		return error_set(e, errno, "pid %d fd %d: setting busy polling of an epoll set", m->pid,
				 m->fd);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int epoll_place(struct rebuild *r, const FileDescription *m, struct process *p, int fd,
		       struct batch *b, struct error *e)
{
	(void)r;
	(void)e;
	for (size_t i = 0; i < m->epoll->n_entries; i++) {
		const Ferry__EpollEntry *entry = m->epoll->entries[i];
		struct epoll_event event = {.events = entry->events, .data.u64 = entry->data};

		if (entry->pid != p->pid)
			continue;
		batch_call(b, "add to an epoll set", SYS_epoll_ctl, ARG(fd), ARG(EPOLL_CTL_ADD),
			   ARG(entry->fd), ARG_PUT(b, &event, sizeof(event)));
	}
	return 0;
}

const struct fd_type fd_epoll = {
	.name = "epoll",
	.kind = FILE_KIND(EPOLL),
	.match = epoll_match,
	.capture = epoll_capture,
	.open = epoll_open,
	.place = epoll_place,
};
