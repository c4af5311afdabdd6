/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/mountinfo ("36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda1 rw"), with octal
 * escapes for blanks, tabs, newlines and backslashes in names. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "procfs/text.h"

static bool is_octal(const char *p)
{
	return p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' && p[3] >= '0' &&
	       p[3] <= '7';
}

static bool name(const char **p, char **ret)
{
	size_t n = strcspn(*p, " \n"), k = 0;

	if (!n || (*p)[n] != ' ')
		return false;
	char *s = xmalloc(n + 1);

	for (size_t i = 0; i < n; k++)
		if (n - i >= 4 && is_octal(*p + i)) {
			s[k] = (char)((((*p)[i + 1] - '0') << 6) + (((*p)[i + 2] - '0') << 3) +
				      ((*p)[i + 3] - '0'));
			i += 4;
		} else {
			s[k] = (*p)[i++];
		}
	s[k] = 0;
	*ret = s;
	*p += n;
	text_blanks(p);
	return true;
}

static bool number(const char **p, uint64_t max, uint64_t *ret)
{
	return text_u64(p, 10, ret) && *ret <= max;
}

/* Behind any number of optional fields: "- type source options". */
static bool file_system(const char *p, struct proc_mount *m)
{
	const char *end = text_next_line(p), *dash = memmem(p, (size_t)(end - p), "- ", 2);

	while (dash && dash > p && dash[-1] != ' ')
		dash = memmem(dash + 1, (size_t)(end - dash - 1), "- ", 2);
	if (!dash)
		return false;
	p = dash + 2;

	cleanup_free char *source = NULL;

	if (!name(&p, &m->type) || !name(&p, &source))
		return false;
	size_t n = strcspn(p, "\n");

	m->options = xmalloc(n + 1);
	memcpy(m->options, p, n);
	m->options[n] = 0;
	return true;
}

static bool mount(const char *p, struct proc_mount *m)
{
	uint64_t id, parent, major, minor;

	if (!number(&p, INT32_MAX, &id) || !text_skip(&p, " ") || !number(&p, INT32_MAX, &parent) ||
	    !text_skip(&p, " ") || !number(&p, UINT32_MAX, &major) || !text_skip(&p, ":") ||
	    !number(&p, UINT32_MAX, &minor) || !text_skip(&p, " "))
		return false;
	m->id = (int)id;
	m->major = major;
	m->minor = minor;
	return name(&p, &m->root) && name(&p, &m->point) && file_system(p, m);
}

int proc_mounts_parse(const char *text, struct proc_mounts *ret, struct error *e)
{
	size_t cap = 0;

	*ret = (struct proc_mounts){0};
	for (const char *p = text; *p; p = text_next_line(p)) {
		if (ret->n == cap) {
			cap = cap ? cap * 2 : 32;
			ret->v = xrealloc(ret->v, cap * sizeof(*ret->v));
		}
		struct proc_mount *m = &ret->v[ret->n++];

		*m = (struct proc_mount){0};
		if (mount(p, m))
			continue;
		proc_mounts_deinit(ret);
		return error_say(e, EINVAL, "a line of mountinfo is malformed: %.*s",
				 (int)MIN(strcspn(p, "\n"), 120ul), p);
	}
	return 0;
}

int proc_mounts_read(struct proc_mounts *ret, struct error *e)
{
	cleanup_free char *text = NULL;
	ssize_t n = read_file("/proc/self/mountinfo", &text);

	*ret = (struct proc_mounts){0};
	return n < 0 ? error_set(e, -n, "reading /proc/self/mountinfo") : proc_mounts_parse(text, ret, e);
}

void proc_mounts_deinit(struct proc_mounts *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->v[i].root);
		free(m->v[i].point);
		free(m->v[i].type);
		free(m->v[i].options);
	}
	free(m->v);
	*m = (struct proc_mounts){0};
}
