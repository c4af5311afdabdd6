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

#include "followed.h"

struct dirty_session {
	struct followed f;
};

static int probe(char *why, size_t why_size)
{
	(void)why;
	(void)why_size;
	return 0;
}

static void detach(struct dirty_session *s)
{
	if (s)
		followed_close(&s->f);
	free(s);
}

static int attach(const struct dirty_target *t, struct dirty_session **ret, char *why, size_t why_size)
{
	struct dirty_session *s = calloc(1, sizeof(*s));
	int r = s ? followed_open(&s->f, t->pid, why, why_size) : -ENOMEM;

	if (r < 0) {
		detach(s);
		return r;
	}
	*ret = s;
	return 0;
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
	if (!stands(s->f.pid)) {
		fprintf(stderr, "process %d runs although it must not\n", s->f.pid);
		abort();
	}
	return followed_alive(&s->f, why, why_size);
}

static int arm(struct dirty_session *s, const struct dirty_vma *v, char *why, size_t why_size)
{
	(void)v;
	return followed_alive(&s->f, why, why_size);
}

static ssize_t collect(struct dirty_session *s, const struct dirty_vma *v, enum dirty_collect_mode mode,
		       const struct dirty_range **ret_ranges, char *why, size_t why_size)
{
	struct followed *f = &s->f;
	struct populated p = {.pagemap = f->pagemap,
			      .private_map = v->kind == DIRTY_VMA_PRIVATE_FILE,
			      .present = &f->present};
	int r = pass(s, mode, why, why_size);

	if (r < 0)
		return r;
	followed_clear(f);
	r = pages_populated(&p, v->start, v->end);
	if (r == 0)
		r = ranges_add(&f->written, v->start, v->end, DIRTY_WRITTEN | DIRTY_UNSURE);
	if (r == 0)
		r = pages_answer(&f->written, &f->present, true, &f->answer);
	return followed_answer(f, v, r, &f->answer, ret_ranges, why, why_size);
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
