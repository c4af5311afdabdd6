/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plugin is code of others: everything about it is checked before it is used, and each defect is told with
 * the file's name.  The ELF headers are looked at first, because the dynamic linker maps a file that was cut
 * short as if it were whole, and the first access behind its end would kill this program.  What else its code
 * may do when it is loaded and probed, it does in a child first, which has some seconds for it.
 */
#include "track/backend.h"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "track/calls.h"
#include "track/trial.h"

#define SUFFIX ".so"

static int check_segments(int fd, const Elf64_Ehdr *h, uint64_t size, const char *path, struct error *e)
{
	for (unsigned i = 0; i < h->e_phnum; i++) {
		Elf64_Phdr p;
		uint64_t at = h->e_phoff + i * sizeof(p), end;

		if (at < h->e_phoff || at > size || pread_full(fd, &p, sizeof(p), (off_t)at) < 0 ||
		    __builtin_add_overflow(p.p_offset, p.p_filesz, &end) || end > size)
			return error_say(e, ENOEXEC,
					 "backend %s is cut short: its program header %u points "
					 "behind the end of the file",
					 path, i);
	}
	return 0;
}

static int check_file(const char *path, struct error *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	Elf64_Ehdr h;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(e, errno, "backend %s cannot be opened", path);
	if (!S_ISREG(st.st_mode))
		return error_say(e, ENOEXEC, "backend %s is not a regular file", path);
	if (pread_full(fd, &h, sizeof(h), 0) < 0 || memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 ||
	    h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_type != ET_DYN || h.e_phentsize != sizeof(Elf64_Phdr))
		return error_say(e, ENOEXEC, "backend %s is not a shared object", path);
	return check_segments(fd, &h, st.st_size, path, e);
}

/* Why @ops cannot be used, or NULL. */
static const char *defect_of(const struct dirty_backend_ops *ops, const char *name)
{
	if (!ops)
		return "ferry_dirty_backend() returned NULL";
	if (ops->abi_version != FERRY_DIRTY_BACKEND_ABI)
		return "it was built for another version of the interface";
	if (ops->size < sizeof(*ops))
		return "its table of operations is too small";
	if (!ops->name || !ops->summary)
		return "it has no name or summary";
	if (strcmp(ops->name, name) != 0)
		return "its name is not that of its file";
	if (!ops->kinds)
		return "it tracks no kind of memory";
	if (!ops->probe)
		return "it has no probe()";
	if (!ops->attach)
		return "it has no attach()";
	if (!ops->begin)
		return "it has no begin()";
	if (!ops->arm)
		return "it has no arm()";
	if (!ops->collect)
		return "it has no collect()";
	if (!ops->end)
		return "it has no end()";
	if (!ops->detach)
		return "it has no detach()";
	return NULL;
}

static int load(const char *dir, const char *name, struct backend *ret, struct error *e)
{
	cleanup_free char *path = xasprintf("%s/%s" SUFFIX, dir, name);
	int r = check_file(path, e);

	if (r < 0)
		return r;
	trial_calls("its loading");
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!handle) {
		const char *why = dlerror();

		return error_say(e, ENOEXEC, "backend %s cannot be loaded: %s", path,
				 why ? why : "no reason given");
	}
	const struct dirty_backend_ops *(*get)(void);

	*(void **)&get = dlsym(handle, "ferry_dirty_backend");
	trial_calls("ferry_dirty_backend()");
	const struct dirty_backend_ops *ops = get ? get() : NULL;
	const char *why = get ? defect_of(ops, name) : "it does not export ferry_dirty_backend()";

	if (why) {
		r = ops && ops->abi_version != FERRY_DIRTY_BACKEND_ABI
			    ? error_say(e, ENOEXEC, "backend %s cannot be used: %s (%u, need %u)", path, why,
					ops->abi_version, FERRY_DIRTY_BACKEND_ABI)
			    : error_say(e, ENOEXEC, "backend %s cannot be used: %s", path, why);
		dlclose(handle);
		return r;
	}
	*ret = (struct backend){.ops = ops, .handle = handle, .path = TAKE_PTR(path)};
	return 0;
}

void backend_close(struct backend *b)
{
	call_watch_free(b->watch);
	if (b->handle)
		dlclose(b->handle);
	free(b->path);
	memset(b, 0, sizeof(*b));
}

/* 0 or -errno with a reason in @why. */
static int probe(const struct backend *b, char *why, size_t size)
{
	why[0] = 0;
	trial_calls("probe()");
	int r = b->ops->probe(why, size);

	why[size - 1] = 0;
	if (r > 0) {
		snprintf(why, size, "its probe() returned %d, which means nothing", r);
		return -ENOEXEC;
	}
	if (r < 0 && !why[0])
		snprintf(why, size, "%s", strerror(-r));
	return r;
}

static int directory(const char *dir, char **ret, struct error *e)
{
	if (!dir)
		return paths_find("backends", ret, e);
	*ret = xstrdup(dir);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct backend_info *)a)->name, ((const struct backend_info *)b)->name);
}

/* Names of the plugins in @dir, into otherwise empty rows. */
static int names(const char *dir, struct backend_info **ret, size_t *ret_n, struct error *e)
{
	cleanup_closedir DIR *d = opendir(dir);
	struct backend_info *v = NULL;
	size_t n = 0;

	if (!d)
		return error_set(e, errno, "cannot list the backends in %s", dir);
	for (struct dirent *ent = readdir(d); ent; ent = readdir(d)) {
		size_t len = strlen(ent->d_name), base = len - strlen(SUFFIX);

		if (len <= strlen(SUFFIX) || ent->d_name[0] == '.' ||
		    strcmp(ent->d_name + base, SUFFIX) != 0 || base >= sizeof(v->name))
			continue;
		v = xrealloc(v, (n + 1) * sizeof(*v));
		memset(&v[n], 0, sizeof(*v));
		memcpy(v[n].name, ent->d_name, base);
		snprintf(v[n].path, sizeof(v[n].path), "%s/%s", dir, ent->d_name);
		n++;
	}
	if (n)
		qsort(v, n, sizeof(*v), by_name);
	*ret = v ? v : xcalloc(1, sizeof(*v));
	*ret_n = n;
	return 0;
}

struct candidate {
	const char *dir;
	struct backend_info info;
};

static void examine_here(void *object)
{
	struct candidate *c = object;
	struct backend_info *info = &c->info;
	struct backend b = {0};
	struct error e = ERROR_INIT;

	info->usable = load(c->dir, info->name, &b, &e);
	if (info->usable < 0) {
		snprintf(info->why, sizeof(info->why), "%.255s", e.text);
		return;
	}
	info->caps = b.ops->caps;
	info->kinds = b.ops->kinds;
	info->priority = b.ops->priority;
	snprintf(info->summary, sizeof(info->summary), "%s", b.ops->summary);
	info->usable = probe(&b, info->why, sizeof(info->why));
	backend_close(&b);
}

/* Fills in all but the name and path. 0, or -ENOEXEC when it does not even let itself be examined. */
static int examine(const char *dir, struct backend_info *info)
{
	struct candidate c = {dir, *info};
	char how[128];
	int r = trial_run(examine_here, &c, sizeof(c), TRIAL_LIMIT_MS, how, sizeof(how));

	if (r == 0)
		*info = c.info;
	else
		snprintf(info->why, sizeof(info->why), "backend %.120s %.100s", info->path, how);
	if (r < 0)
		info->usable = r;
	return r;
}

int backend_list(const char *dir, struct backend_info **ret, size_t *ret_n, struct error *e)
{
	cleanup_free char *path = NULL;
	int r = directory(dir, &path, e);

	if (r == 0)
		r = names(path, ret, ret_n, e);
	for (size_t i = 0; r == 0 && i < *ret_n; i++)
		examine(path, &(*ret)[i]);
	return r;
}

static void add_why(char **all, const char *name, const char *why)
{
	char *old = *all;

	*all = old ? xasprintf("%s; %s: %s", old, name, why) : xasprintf("%s: %s", name, why);
	free(old);
}

static int open_here(const char *dir, const char *name, struct backend *ret, struct error *e)
{
	struct backend b = {0};
	char why[256];
	int r = load(dir, name, &b, e);

	if (r < 0)
		return r;
	r = probe(&b, why, sizeof(why));
	if (r < 0) {
		error_say(e, -r, "backend %s does not work here: %s", b.path, why);
		backend_close(&b);
		return r;
	}
	*ret = b;
	return 0;
}

/* The best one that works, or 1. */
static int choose(const char *dir, struct backend *ret, char **ret_why, struct error *e)
{
	cleanup_free struct backend_info *v = NULL;
	cleanup_free char *all = NULL;
	const struct backend_info *best = NULL;
	size_t n = 0;
	int r = names(dir, &v, &n, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		examine(dir, &v[i]);
		if (v[i].usable < 0)
			add_why(&all, v[i].name, v[i].why);
		else if (!best || v[i].priority > best->priority)
			best = &v[i];
	}
	if (best)
		return open_here(dir, best->name, ret, e);
	if (ret_why)
		*ret_why = all ? TAKE_PTR(all) : xasprintf("there is no backend in %s", dir);
	return 1;
}

int backend_open(const char *name, const char *dir, struct backend *ret, char **ret_why, struct error *e)
{
	cleanup_free char *path = NULL;
	struct backend_info info = {0};

	if (ret_why)
		*ret_why = NULL;
	if (strcmp(name, "none") == 0) {
		if (ret_why)
			*ret_why = xstrdup("dirty tracking is switched off");
		return 1;
	}
	if (!*name || *name == '.' || strchr(name, '/') || strlen(name) >= sizeof(info.name))
		return error_say(e, EINVAL, "\"%s\" is not the name of a backend", name);
	int r = directory(dir, &path, e);

	if (r < 0)
		return r;
	if (strcmp(name, "auto") == 0)
		return choose(path, ret, ret_why, e);
	snprintf(info.name, sizeof(info.name), "%s", name);
	snprintf(info.path, sizeof(info.path), "%s/%s" SUFFIX, path, name);
	r = examine(path, &info);
	return r < 0 ? error_say(e, -r, "%s", info.why) : open_here(path, name, ret, e);
}
