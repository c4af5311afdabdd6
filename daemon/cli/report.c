/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/report.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "service/msg.h"

struct report {
	json_t *j, *events;
	uint64_t begin;
	char id[64];
};

struct report *report_new(const char *program, pid_t pid, const char *to)
{
	struct report *r = xcalloc(1, sizeof(*r));
	time_t now = time(NULL);
	struct tm tm;

	r->begin = now_ns();
	snprintf(r->id + strftime(r->id, sizeof(r->id), "%Y%m%d-%H%M%S", gmtime_r(&now, &tm)), 16, "-%d",
		 pid);
	r->events = json_array();
	r->j = json_pack("{s:i,s:s,s:s,s:s,s:i,s:s,s:I,s:O}", "version", 1, "id", r->id, "verb", "migrate",
			 "program", program, "pid", (int)pid, "to", to, "time", (json_int_t)now, "events",
			 r->events);
	return r;
}

/* Of the log only warnings and errors. */
void report_event(struct report *r, const json_t *event)
{
	if (!strcmp(msg_str(event, "event", ""), "log") && msg_int(event, "level", 3) > 2)
		return;
	json_t *ev = json_deep_copy(event);

	json_object_set_new(ev, "t_ms", json_real((now_ns() - r->begin) / 1e6));
	json_array_append_new(r->events, ev);
}

void report_free(struct report *r)
{
	if (!r)
		return;
	json_decref(r->events);
	json_decref(r->j);
	free(r);
}

/* --- the directory --------------------------------------------------------------------------------- */

static bool is_id(const char *s, size_t n)
{
	return n >= 17 && n < 64 && strspn(s, "0123456789-") >= n && s[8] == '-' && s[15] == '-';
}

static int newest_first(const void *a, const void *b)
{
	return strcmp(json_string_value(*(json_t *const *)b), json_string_value(*(json_t *const *)a));
}

json_t *report_list(const char *dir)
{
	json_t *list = json_array();
	DIR *d = opendir(dir);
	struct dirent *entry;
	size_t n = 0;

	while (d && (entry = readdir(d))) {
		size_t length = strlen(entry->d_name);

		if (length > 5 && !strcmp(entry->d_name + length - 5, ".json") &&
		    is_id(entry->d_name, length - 5))
			json_array_append_new(list, json_stringn(entry->d_name, length - 5));
	}
	if (d)
		closedir(d);
	n = json_array_size(list);
	cleanup_free json_t **v = xcalloc(n + 1, sizeof(json_t *));

	for (size_t i = 0; i < n; i++)
		v[i] = json_incref(json_array_get(list, i));
	qsort(v, n, sizeof(json_t *), newest_first);
	json_array_clear(list);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, v[i]);
	return list;
}

static void remove_old(int dirfd, const char *dir)
{
	json_t *list = report_list(dir);

	for (size_t i = REPORT_KEEP; i < json_array_size(list); i++) {
		cleanup_free char *name = xasprintf("%s.json", json_string_value(json_array_get(list, i)));

		unlinkat(dirfd, name, 0);
	}
	json_decref(list);
}

/* And the directories above it that are missing, for root alone. */
static int make_dir(const char *dir)
{
	cleanup_free char *path = xstrdup(dir);

	for (char *p = path + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int report_write(struct report *r, const char *dir, const char *failure, const char **ret_id, struct error *e)
{
	cleanup_free char *name = xasprintf("%s.json", r->id), *part = xasprintf("%s.part", r->id);
	int x = make_dir(dir);
	cleanup_close int dirfd = x < 0 ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (x < 0 || dirfd < 0)
		return error_set(e, x < 0 ? -x : errno, "directory of reports %s", dir);
	json_object_set_new(r->j, "moved", json_boolean(!failure));
	if (failure)
		json_object_set_new(r->j, "failure", json_string(failure));
	cleanup_close int fd =
		openat(dirfd, part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_set(e, errno, "write report %s/%s", dir, part);
	cleanup_free char *text = json_dumps(r->j, JSON_COMPACT | JSON_REAL_PRECISION(9));

	x = text ? write_full(fd, text, strlen(text)) : -ENOMEM;
	if (x >= 0 && renameat(dirfd, part, dirfd, name) < 0)
		x = -errno;
	if (x < 0) {
		unlinkat(dirfd, part, 0);
		return error_set(e, -x, "write report %s/%s", dir, name);
	}
	remove_old(dirfd, dir);
	*ret_id = r->id;
	return 0;
}

json_t *report_read(const char *dir, const char *id, struct error *e)
{
	cleanup_free char *path = xasprintf("%s/%s.json", dir, id);
	json_error_t why;

	if (!is_id(id, strlen(id))) {
		error_say(e, EINVAL, "%s is not the id of a report (\"ferry report\" lists them)", id);
		return NULL;
	}
	if (access(path, R_OK) < 0) {
		error_set(e, errno, "read report %s", path);
		return NULL;
	}
	json_t *j = json_load_file(path, 0, &why);

	if (!j || !json_is_array(json_object_get(j, "events")) || msg_int(j, "version", 0) != 1) {
		error_say(e, EINVAL, "%s is no report: %s", path,
			  j ? "it has no events of version 1" : why.text);
		json_decref(j);
		return NULL;
	}
	return j;
}
