/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simplest backend there can be, and one that wants its target stopped: all that is tracked may be dirty,
 * all the time.  With it the live tests see what the engine does around a collect on any kernel:
 *
 *	FERRY_DUMP_OPTS="--backend stopping --backend-dir build/test-backends" test/zdtm/run -m dump memory
 *
 * It looks that the target does stand still from begin to end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pages.h"

struct dirty_session {
	pid_t pid;
	int pagemap;
	struct ranges all, present, answer;
};

static int probe(char *why, size_t why_size)
{
	(void)why;
	(void)why_size;
	return 0;
}

static int attach(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size)
{
	struct dirty_session *s = calloc(1, sizeof(*s));
	char path[64];

	if (!s)
		return -ENOMEM;
	s->pid = t->pid;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", t->pid);
	s->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (s->pagemap < 0) {
		snprintf(why, why_size, "cannot open %s", path);
		free(s);
		return -ESRCH;
	}
	*ret = s;
	return 0;
}

/* The memory is still there; exec gives the process another. */
static int alive(const struct dirty_session *s, char *why, size_t why_size)
{
	return pages_alive(s->pagemap) ? 0 : refuse(why, why_size, ESRCH, "process %d is gone", s->pid);
}

/* 't' traced and stopped, 'T' stopped, 'Z' and 'X' dead: any other thread may run. */
static bool stands(pid_t pid)
{
	char path[300], text[512];
	bool yes = true;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *d = opendir(path);

	for (struct dirent *ent = d ? readdir(d) : NULL; ent && yes; ent = readdir(d)) {
		if (ent->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", pid, ent->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

		if (fd >= 0)
			close(fd);
		text[n > 0 ? n : 0] = 0;
		const char *state = strrchr(text, ')');

		yes = !state || strchr("tTZX", state[2]);
	}
	if (d)
		closedir(d);
	return yes;
}

static int pass(struct dirty_session *s, enum dirty_collect_mode mode, char *why, size_t why_size)
{
	(void)mode;
	if (!stands(s->pid)) {
		fprintf(stderr, "process %d runs although it must not\n", s->pid);
		abort();
	}
	return alive(s, why, why_size);
}

static int arm(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size)
{
	(void)v;
	return alive(s, why, why_size);
}

static ssize_t collect(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		       const struct dirty_range **ret_ranges, char *why, size_t why_size)
{
	int r = pass(s, mode, why, why_size);

	if (r < 0)
		return r;
	struct populated p = {.pagemap = s->pagemap,
			      .private_map = v->kind == DIRTY_VMA_PRIVATE_FILE,
			      .present = &s->present};

	s->all.n = s->present.n = s->answer.n = 0;
	r = pages_populated(&p, v->start, v->end);
	if (r == 0)
		r = ranges_add(&s->all, v->start, v->end, DIRTY_WRITTEN | DIRTY_UNSURE);
	if (r == 0)
		r = pages_answer(&s->all, &s->present, true, &s->answer);
	*ret_ranges = s->answer.v;
	return r < 0 ? r : (ssize_t)s->answer.n;
}

static void detach(struct dirty_session *s)
{
	if (!s)
		return;
	close(s->pagemap);
	ranges_free(&s->all);
	ranges_free(&s->present);
	ranges_free(&s->answer);
	free(s);
}

static const struct dirty_backend_ops ops = {
	.abi_version = FERRY_DIRTY_BACKEND_ABI,
	.size = sizeof(ops),
	.name = "stopping",
	.summary = "everything may be dirty, and the program stands meanwhile",
	.caps = DIRTY_CAP_UNSURE | DIRTY_CAP_KEEPS_THP,
	.priority = 1,
	.kinds = DIRTY_KIND(DIRTY_VMA_ANON) | DIRTY_KIND(DIRTY_VMA_PRIVATE_FILE) |
		 DIRTY_KIND(DIRTY_VMA_SHARED),
	.probe = probe,
	.attach = attach,
	.begin = pass,
	.arm = arm,
	.collect = collect,
	.end = pass,
	.detach = detach,
};

const struct dirty_backend_ops *ferry_dirty_backend(void)
{
	return &ops;
}
