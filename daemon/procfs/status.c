/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/task/TID/status: "Key:\tvalue" lines. The name is escaped there, so no line can be forged. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "procfs/procfs.h"
#include "procfs/text.h"

static bool get(const char *text, const char *key, int base, uint64_t *ret)
{
	return proc_field_u64(text, key, base, ret);
}

static int get_int(const char *text, const char *key, int otherwise)
{
	uint64_t v;

	return get(text, key, 10, &v) ? (int)v : otherwise;
}

static bool four(const char *text, const char *key, uint32_t v[4])
{
	const char *p = proc_field(text, key);

	for (int i = 0; p && i < 4; i++) {
		uint64_t n;

		text_blanks(&p);
		if (!text_u64(&p, 10, &n) || n > UINT32_MAX)
			return false;
		v[i] = n;
	}
	return p != NULL;
}

static bool groups(const char *text, struct proc_status *s)
{
	const char *p = proc_field(text, "Groups");
	size_t cap = 0;

	if (!p)
		return false;
	for (;;) {
		uint64_t n;

		text_blanks(&p);
		if (*p == '\n' || *p == 0)
			return true;
		if (!text_u64(&p, 10, &n) || n > UINT32_MAX)
			return false;
		if (s->n_groups == cap) {
			cap = cap ? cap * 2 : 16;
			s->groups = xrealloc(s->groups, cap * sizeof(*s->groups));
		}
		s->groups[s->n_groups++] = n;
	}
}

static bool ns_pids(const char *text, struct proc_status *s)
{
	const char *p = proc_field(text, "NSpid");

	while (p) { /* the line is missing on kernels without pid namespaces */
		uint64_t n;

		text_blanks(&p);
		if (*p == '\n' || *p == 0)
			break;
		if (!text_u64(&p, 10, &n) || n > INT32_MAX || s->n_ns_pid == (int)ARRAY_SIZE(s->ns_pid))
			return false;
		s->ns_pid[s->n_ns_pid++] = n;
	}
	return true;
}

static const char *signals_and_caps(const char *text, struct proc_status *s)
{
	const struct {
		const char *key;
		uint64_t *to;
	} masks[] = {
		{"SigPnd", &s->sig_pnd}, {"ShdPnd", &s->shd_pnd}, {"SigBlk", &s->sig_blk},
		{"SigIgn", &s->sig_ign}, {"SigCgt", &s->sig_cgt}, {"CapInh", &s->cap_inh},
		{"CapPrm", &s->cap_prm}, {"CapEff", &s->cap_eff}, {"CapBnd", &s->cap_bnd},
		{"CapAmb", &s->cap_amb},
	};

	for (size_t i = 0; i < ARRAY_SIZE(masks); i++)
		if (!get(text, masks[i].key, 16, masks[i].to))
			return masks[i].key;
	return NULL;
}

/* Returns the key that is missing or malformed, or NULL. */
static const char *parse(const char *text, struct proc_status *s)
{
	const struct {
		const char *key;
		pid_t *to;
	} pids[] = {{"Tgid", &s->tgid}, {"PPid", &s->ppid}, {"TracerPid", &s->tracer}};
	uint64_t v;

	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		if (!get(text, pids[i].key, 10, &v) || v > INT32_MAX)
			return pids[i].key;
		*pids[i].to = v;
	}
	s->has_umask = get(text, "Umask", 8, &v);
	if (s->has_umask)
		s->umask = v;
	if (!four(text, "Uid", s->uid))
		return "Uid";
	if (!four(text, "Gid", s->gid))
		return "Gid";
	if (!groups(text, s))
		return "Groups";
	if (!ns_pids(text, s))
		return "NSpid";
	s->no_new_privs = get_int(text, "NoNewPrivs", 0);
	s->seccomp = get_int(text, "Seccomp", 0);
	s->seccomp_filters = get_int(text, "Seccomp_filters", 0);
	s->thp_enabled = get_int(text, "THP_enabled", -1);
	get(text, "VmPin", 10, &s->vm_pin_kb);
	get(text, "RssAnon", 10, &s->rss_anon_kb);
	get(text, "RssShmem", 10, &s->rss_shmem_kb);
	get(text, "VmSwap", 10, &s->swap_kb);
	return signals_and_caps(text, s);
}

int proc_status_parse(const char *text, struct proc_status *ret, struct error *e)
{
	struct proc_status s = {0};
	const char *bad = parse(text, &s);

	if (bad) {
		proc_status_deinit(&s);
		return error_say(e, EINVAL, "a status file of /proc has no valid %s line", bad);
	}
	*ret = s;
	return 0;
}

int proc_status_read(pid_t pid, pid_t tid, struct proc_status *ret, struct error *e)
{
	cleanup_free char *text = NULL;
	int r = proc_file_read(pid, tid, "status", &text, e);

	if (r < 0)
		return r;
	r = proc_status_parse(text, ret, e);
	return r < 0 ? error_prefix(e, "process %d", pid) : 0;
}

void proc_status_deinit(struct proc_status *s)
{
	free(s->groups);
	s->groups = NULL;
	s->n_groups = 0;
}
