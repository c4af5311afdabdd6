/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An entry is a text file. Its first line has the state in a field of fixed width, in the first sector: a
 * change of state is one small write over what is there already, which a full disk does not hinder.
 * Everything else is written to a new file that takes the place of the old one.
 *
 *	ferry-journal 1 committing
 *	owner 4711
 *	life 6ff8...-1234
 *	to 192.0.2.2 insecure
 *	there 0c1d...-99
 *	left 5120
 *	process 1001 3456789 runs
 *	address 192.0.2.10 192.0.2.9
 */
#include "migrate/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/util.h"
#include "procfs/procfs.h"

#define MAGIC       "ferry-journal 1 "
#define STATE_WIDTH 12

bool journal_uuid_ok(const char *uuid)
{
	return strlen(uuid) == 36 && strspn(uuid, "0123456789abcdefABCDEF-") == 36;
}

char *journal_life(void)
{
	cleanup_free char *boot = NULL;
	struct proc_stat init = {0};
	struct error e = ERROR_INIT;

	if (read_file("/proc/sys/kernel/random/boot_id", &boot) < 0)
		boot = xstrdup("?");
	boot[strcspn(boot, "\n")] = 0;
	proc_stat_read(1, 0, &init, &e);
	return xasprintf("%s-%llu", boot, (unsigned long long)init.start_time);
}

/* --- in memory ------------------------------------------------------------------------------------- */

static char *side_dir(const char *dir, enum migration_side side)
{
	return xasprintf("%s/journal/%s", dir, side == SIDE_SOURCE ? "out" : "in");
}

struct journal *journal_new(const char *dir, enum migration_side side, const char *uuid)
{
	struct journal *j = xcalloc(1, sizeof(*j));

	snprintf(j->uuid, sizeof(j->uuid), "%s", uuid);
	j->side = side;
	j->state = MIGRATION_NO_STATE;
	j->dir = side_dir(dir, side);
	j->fd = -1;
	j->changed = true;
	return j;
}

void journal_free(struct journal *j)
{
	if (!j)
		return;
	if (j->fd >= 0)
		close(j->fd);
	free(j->dir);
	free(j->to);
	free(j->there);
	free(j->procs);
	free(j->addresses);
	free(j);
}

void journal_add_process(struct journal *j, pid_t pid, uint64_t start, bool runs)
{
	j->procs = xrealloc(j->procs, (j->n_procs + 1) * sizeof(*j->procs));
	j->procs[j->n_procs++] = (struct journal_process){pid, start, runs};
	j->changed = true;
}

void journal_clear_processes(struct journal *j)
{
	j->n_procs = 0;
	j->changed = true;
}

void journal_add_address(struct journal *j, const char *local, const char *peer)
{
	struct journal_address a;

	for (size_t i = 0; i < j->n_addresses; i++)
		if (!strcmp(j->addresses[i].local, local))
			return;
	snprintf(a.local, sizeof(a.local), "%s", local);
	snprintf(a.peer, sizeof(a.peer), "%s", peer);
	j->addresses = xrealloc(j->addresses, (j->n_addresses + 1) * sizeof(a));
	j->addresses[j->n_addresses++] = a;
	j->changed = true;
}

void journal_set(struct journal *j, const char *to, bool insecure, const char *there)
{
	free(j->to);
	free(j->there);
	j->to = to ? xstrdup(to) : NULL;
	j->there = there && *there ? xstrdup(there) : NULL;
	j->insecure = insecure;
	j->changed = true;
}

void journal_set_left(struct journal *j, uint64_t pages)
{
	j->left = pages;
	j->changed = true;
}

/* --- writing --------------------------------------------------------------------------------------- */

/* The run directory, journal/ in it, and the side's. */
static int make_dirs(const char *leaf, struct error *e)
{
	for (int up = 2; up >= 0; up--) {
		cleanup_free char *part = xstrdup(leaf);

		for (int i = 0; i < up; i++)
			*strrchr(part, '/') = 0;
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return error_set(e, errno, "make %s", part);
	}
	return 0;
}

static int sync_dir(const char *dir)
{
	cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int print(const struct journal *j, enum migration_state s, FILE *f)
{
	cleanup_free char *life = journal_life();

	fprintf(f, MAGIC "%-*s\nowner %d\nlife %s\n", STATE_WIDTH, migration_state_name(s), getpid(), life);
	if (j->to)
		fprintf(f, "to %s %s\n", j->to, j->insecure ? "insecure" : "secure");
	if (j->there)
		fprintf(f, "there %s\n", j->there);
	if (j->left)
		fprintf(f, "left %llu\n", (unsigned long long)j->left);
	for (size_t i = 0; i < j->n_procs; i++)
		fprintf(f, "process %d %llu %s\n", j->procs[i].pid, (unsigned long long)j->procs[i].start,
			j->procs[i].runs ? "runs" : "stopped");
	for (size_t i = 0; i < j->n_addresses; i++)
		fprintf(f, "address %s %s\n", j->addresses[i].local, j->addresses[i].peer);
	return fflush(f) || ferror(f) ? -(errno ? errno : EIO) : 0;
}

/* The new file is locked before it has its name: there is no moment in which it seems to be without owner. */
static int write_anew(struct journal *j, enum migration_state s, struct error *e)
{
	cleanup_free char *path = xasprintf("%s/%s", j->dir, j->uuid);
	cleanup_free char *tmp = xasprintf("%s.tmp", path);
	int r = make_dirs(j->dir, e);

	if (r < 0)
		return r;
	cleanup_close int fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(e, errno, "open the journal %s", tmp);
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	cleanup_fclose FILE *f = copy < 0 ? NULL : fdopen(copy, "w");

	r = f ? print(j, s, f) : -errno;
	if (r >= 0 && fdatasync(fd) < 0)
		r = -errno;
	if (r >= 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r >= 0)
		r = sync_dir(j->dir);
	if (r < 0) {
		unlink(tmp);
		return error_set(e, -r, "write the journal %s", path);
	}
	if (j->fd >= 0)
		close(j->fd);
	j->fd = TAKE_FD(fd);
	j->changed = false;
	j->state = s;
	return 0;
}

int journal_state(struct journal *j, enum migration_state s, struct error *e)
{
	char field[STATE_WIDTH + 1];

	if (j->changed || j->fd < 0)
		return write_anew(j, s, e);
	snprintf(field, sizeof(field), "%-*s", STATE_WIDTH, migration_state_name(s));
	int r = pwrite_full(j->fd, field, STATE_WIDTH, sizeof(MAGIC) - 1);

	if (r >= 0 && fdatasync(j->fd) < 0)
		r = -errno;
	if (r < 0)
		return error_set(e, -r, "write state \"%s\" to the journal of %s", migration_state_name(s),
				 j->uuid);
	j->state = s;
	return 0;
}

void journal_remove(struct journal *j)
{
	cleanup_free char *path = xasprintf("%s/%s", j->dir, j->uuid);

	if (j->fd < 0)
		return;
	unlink(path);
	close(TAKE_FD(j->fd));
}

/* --- reading --------------------------------------------------------------------------------------- */

static void parse_line(struct journal *j, char *line)
{
	char word[16], text[280], local[64], peer[64];
	unsigned long long start;
	int pid;

	if (sscanf(line, "left %llu", &start) == 1) {
		j->left = start;
	} else if (sscanf(line, "owner %d", &pid) == 1) {
		j->owner = pid;
	} else if (sscanf(line, "to %279s %15s", text, word) == 2) {
		free(j->to);
		j->to = xstrdup(text);
		j->insecure = !strcmp(word, "insecure");
	} else if (sscanf(line, "there %279s", text) == 1) {
		free(j->there);
		j->there = xstrdup(text);
	} else if (sscanf(line, "process %d %llu %15s", &pid, &start, word) == 3) {
		journal_add_process(j, pid, start, !strcmp(word, "runs"));
	} else if (sscanf(line, "address %63s %63s", local, peer) == 2) {
		journal_add_address(j, local, peer);
	}
}

static int parse(struct journal *j, char *text, struct error *e)
{
	char state[STATE_WIDTH + 1] = "", *save = NULL;

	if (strncmp(text, MAGIC, sizeof(MAGIC) - 1) || sscanf(text + sizeof(MAGIC) - 1, "%12s", state) != 1 ||
	    (j->state = migration_state_find(j->side, state)) == MIGRATION_NO_STATE)
		return error_say(e, EBADMSG, "%s/%s is no journal of this version", j->dir, j->uuid);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		parse_line(j, line);
	j->changed = false;
	return 0;
}

/* Locked, and still the file of that name: it may have been replaced while we came. 1: locked, 0: somebody
 * else is at work, -EAGAIN: look again. */
static int lock_entry(int fd, const char *path)
{
	struct stat ours, named;

	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? 0 : -errno;
	if (fstat(fd, &ours) < 0 || stat(path, &named) < 0 || ours.st_ino != named.st_ino)
		return -EAGAIN;
	return 1;
}

/* Open and, if nobody else has it, locked. */
static int open_entry(const char *path, int *ret_fd, int *ret_locked, struct error *e)
{
	for (;;) {
		cleanup_close int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

		if (fd < 0)
			return error_set(e, errno, "open the journal %s", path);
		int locked = lock_entry(fd, path);

		if (locked == -EAGAIN)
			continue;
		*ret_fd = TAKE_FD(fd);
		*ret_locked = locked == 1;
		return 0;
	}
}

int journal_open(struct journal **ret, const char *dir, enum migration_side side, const char *uuid,
		 struct error *e)
{
	cleanup_free char *sub = side_dir(dir, side), *path = xasprintf("%s/%s", sub, uuid), *text = NULL;
	cleanup_close int fd = -1;
	struct stat st;
	int locked = 0;

	if (!journal_uuid_ok(uuid))
		return error_say(e, EINVAL, "\"%s\" is no migration id", uuid);
	int r = open_entry(path, &fd, &locked, e);

	if (r < 0)
		return r;
	struct journal *j = journal_new(dir, side, uuid);

	r = (int)read_file(path, &text);
	if (r < 0)
		error_set(e, -r, "read the journal %s", path);
	else
		r = parse(j, text, e);
	if (r < 0) {
		journal_free(j);
		return r;
	}
	if (fstat(fd, &st) == 0)
		j->time = st.st_mtime;
	if (locked)
		j->fd = TAKE_FD(fd);
	*ret = j;
	return 0;
}

int journal_each(const char *dir, enum migration_side side,
		 int (*each)(void *ctx, const char *dir, const char *uuid), void *ctx)
{
	cleanup_free char *sub = side_dir(dir, side);
	cleanup_closedir DIR *d = opendir(sub);
	struct dirent *entry;
	int r = 0;

	while (d && r == 0 && (entry = readdir(d)))
		if (journal_uuid_ok(entry->d_name))
			r = each(ctx, dir, entry->d_name);
	return r;
}

/* --- life time ------------------------------------------------------------------------------------- */

struct old {
	char uuid[37];
	int64_t time;
};

struct sweep {
	enum migration_side side;
	struct old *final;
	size_t n;
};

static int note_final(void *ctx, const char *dir, const char *uuid)
{
	struct sweep *s = ctx;
	struct journal *j;
	struct error ignore = ERROR_INIT;

	if (journal_open(&j, dir, s->side, uuid, &ignore) < 0)
		return 0;
	if (j->fd >= 0 && (j->state == DEST_RUNNING || j->state == DEST_ABORTED)) {
		s->final = xrealloc(s->final, (s->n + 1) * sizeof(*s->final));
		s->final[s->n].time = j->time;
		memcpy(s->final[s->n++].uuid, j->uuid, sizeof(j->uuid));
	}
	journal_free(j);
	return 0;
}

static int newest_first(const void *a, const void *b)
{
	const struct old *x = a, *y = b;

	return x->time < y->time ? 1 : x->time > y->time ? -1 : 0;
}

static void remove_entry(const char *dir, enum migration_side side, const char *uuid)
{
	struct journal *j;
	struct error ignore = ERROR_INIT;

	if (journal_open(&j, dir, side, uuid, &ignore) < 0)
		return;
	journal_remove(j);
	journal_free(j);
}

void journal_sweep(const char *dir, enum migration_side side)
{
	struct sweep s = {.side = side};
	int64_t now = time(NULL);

	journal_each(dir, side, note_final, &s);
	if (s.n)
		qsort(s.final, s.n, sizeof(*s.final), newest_first);
	for (size_t i = 0; i < s.n; i++)
		if (i >= JOURNAL_KEEP_FILES || now - s.final[i].time >= JOURNAL_KEEP_SECS)
			remove_entry(dir, side, s.final[i].uuid);
	free(s.final);
}
