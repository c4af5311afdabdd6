/* SPDX-License-Identifier: Apache-2.0 */
#include "procfs/text.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 99;
}

bool text_u64(const char **p, int base, uint64_t *ret)
{
	const char *s = *p;
	uint64_t v = 0;

	if (digit(*s) >= base)
		return false;
	for (; digit(*s) < base; s++)
		if (__builtin_mul_overflow(v, (uint64_t)base, &v) ||
		    __builtin_add_overflow(v, (uint64_t)digit(*s), &v))
			return false;
	*p = s;
	*ret = v;
	return true;
}

bool text_i64(const char **p, int64_t *ret)
{
	const char *s = *p;
	bool minus = *s == '-';
	uint64_t v;

	s += minus;
	if (!text_u64(&s, 10, &v) || v > (uint64_t)INT64_MAX)
		return false;
	*p = s;
	*ret = minus ? -(int64_t)v : (int64_t)v;
	return true;
}

bool text_skip(const char **p, const char *s)
{
	size_t n = strlen(s);

	if (strncmp(*p, s, n) != 0)
		return false;
	*p += n;
	return true;
}

void text_blanks(const char **p)
{
	while (**p == ' ' || **p == '\t')
		++*p;
}

const char *text_next_line(const char *p)
{
	p = strchrnul(p, '\n');
	return *p ? p + 1 : p;
}

const char *proc_field(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *p = text; *p; p = text_next_line(p)) {
		if (strncmp(p, key, n) != 0 || p[n] != ':')
			continue;
		p += n + 1;
		text_blanks(&p);
		return p;
	}
	return NULL;
}

bool proc_field_u64(const char *text, const char *key, int base, uint64_t *ret)
{
	const char *p = proc_field(text, key);

	if (!p)
		return false;
	if ((base == 16 || base == 0) && p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		p += 2;
		base = 16;
	}
	return text_u64(&p, base ? base : 10, ret);
}

int proc_file_read(pid_t pid, pid_t tid, const char *name, char **ret, struct error *e)
{
	char path[64];

	if (tid)
		snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, name);
	else
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	ssize_t n = read_file(path, ret);

	if (n >= 0)
		return 0;
	if (n == -ENOENT || n == -ESRCH)
		return error_say(e, -n, "process %d: %s cannot be read, the task is gone", pid, path);
	return error_set(e, -n, "process %d: cannot read %s", pid, path);
}

static int compare_int(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

int proc_dir_numbers(const char *path, int **ret, size_t *ret_n)
{
	cleanup_closedir DIR *d = opendir(path);

	if (!d)
		return -errno;
	cleanup_free int *v = NULL;
	size_t n = 0, cap = 0;

	for (;;) {
		errno = 0;
		struct dirent *ent = readdir(d);

		if (!ent && errno)
			return -errno;
		if (!ent)
			break;
		const char *p = ent->d_name;
		uint64_t num;

		if (!text_u64(&p, 10, &num) || *p || num > INT_MAX)
			continue;
		if (n == cap) {
			cap = cap ? cap * 2 : 32;
			v = xrealloc(v, cap * sizeof(*v));
		}
		v[n++] = num;
	}
	if (n)
		qsort(v, n, sizeof(*v), compare_int);
	*ret = v ? TAKE_PTR(v) : xcalloc(1, sizeof(int));
	*ret_n = n;
	return 0;
}
