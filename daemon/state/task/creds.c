/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials of a thread: ids, groups, capability sets, securebits, no_new_privs; and the two things that
 * a change of credentials resets, the parent-death signal and the dumpable flag.
 *
 * The order of rebuild, each step needing something that a later one takes away:
 *
 *	groups, inheritable set     the inheritable set may hold what the bounding set no longer allows
 *	bounding set                needs CAP_SETPCAP
 *	securebits for the change   no fix-up of capabilities by the changes of ids
 *	gids, uids, fsgid, fsuid
 *	ambient set                 needs permitted and inheritable; final securebits may forbid it
 *	final securebits            needs CAP_SETPCAP; sets or clears KEEP_CAPS
 *	capset                      the rest of the privilege goes
 *	no_new_privs
 *	pdeathsig, dumpable         both reset by most of the above
 *
 * dumpable belongs to the memory, which threads share; any thread's change of ids resets it, and their
 * batches run at the same time.  So each thread sets it after its own changes: the last one leaves it right.
 *
 * A kernel keyring of a thread or process cannot be moved; session and user keyrings are those of the
 * daemon, as after a start by a service manager.
 */
#include "state/task/task.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "procfs/procfs.h"
#include "proto/task.pb-c.h"
#include "state/task/message.h"

#define CAPS_MAX 64

/* --- capture ------------------------------------------------------------------------------------------- */
static uint32_t *copy_ids(const uint32_t *ids, size_t n)
{
	return n ? xmemdup(ids, n * sizeof(*ids)) : NULL;
}

static int creds_from_status(pid_t pid, pid_t tid, Ferry__Creds **ret, struct error *e)
{
	struct proc_status s;
	int r = proc_status_read(pid, tid, &s, e);

	if (r < 0)
		return r;
	Ferry__Creds *m = MESSAGE_NEW(Ferry__Creds, ferry__creds);

	m->uid = copy_ids(s.uid, 4);
	m->n_uid = 4;
	m->gid = copy_ids(s.gid, 4);
	m->n_gid = 4;
	m->groups = copy_ids(s.groups, s.n_groups);
	m->n_groups = s.n_groups;
	m->inheritable = s.cap_inh;
	m->permitted = s.cap_prm;
	m->effective = s.cap_eff;
	m->bounding = s.cap_bnd;
	m->ambient = s.cap_amb;
	m->no_new_privs = s.no_new_privs > 0;
	m->seccomp_strict = s.seccomp == SECCOMP_MODE_STRICT;
	proc_status_deinit(&s);
	*ret = m;
	return 0;
}

static int creds_take_warm(struct capture *c, struct process *p, struct thread *t, struct error *e)
{
	Ferry__Creds *m;

	if (t != p->threads[0])
		return 0; /* threads rarely differ: one is enough for a check */

	int r = creds_from_status(p->pid, t->task.tid, &m, e);

	if (r < 0)
		return r;
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_CREDS, p->pid, t->task.tid, &m->base);
	return 0;
}

struct creds_asked {
	unsigned securebits, dumpable, thread_keyring, process_keyring; /* entries */
	size_t pdeathsig;                                               /* data offset */
};

static int creds_ask(struct capture *c, struct process *p, struct thread *t, struct batch *b,
		     void **ret_state, struct error *e)
{
	struct creds_asked *a = xcalloc(1, sizeof(*a));

	(void)c;
	(void)p;
	(void)t;
	(void)e;
	a->pdeathsig = batch_reserve(b, sizeof(int));
	batch_call(b, "get parent-death signal", SYS_prctl, ARG(PR_GET_PDEATHSIG), ARG_DATA(a->pdeathsig));
	a->securebits = batch_call(b, "get securebits", SYS_prctl, ARG(PR_GET_SECUREBITS));
	a->dumpable = batch_call(b, "get dumpable", SYS_prctl, ARG(PR_GET_DUMPABLE));
	a->thread_keyring = batch_call(b, "get thread keyring", SYS_keyctl, ARG(KEYCTL_GET_KEYRING_ID),
				       ARG(KEY_SPEC_THREAD_KEYRING), ARG(0));
	batch_accept_any(b, a->thread_keyring);
	a->process_keyring = batch_call(b, "get process keyring", SYS_keyctl, ARG(KEYCTL_GET_KEYRING_ID),
					ARG(KEY_SPEC_PROCESS_KEYRING), ARG(0));
	batch_accept_any(b, a->process_keyring);
	*ret_state = a;
	return 0;
}

static int creds_take(struct capture *c, struct process *p, struct thread *t, struct batch *b, void *state,
		      struct error *e)
{
	const struct creds_asked *a = state;
	pid_t tid = t->task.tid;
	Ferry__Creds *m;

	if (batch_result(b, a->thread_keyring) > 0)
		return error_say(e, EOPNOTSUPP, "tid %d: has a thread keyring, which cannot be moved yet",
				 tid);
	if (batch_result(b, a->process_keyring) > 0)
		return error_say(e, EOPNOTSUPP, "pid %d: has a process keyring, which cannot be moved yet",
				 p->pid);

	int r = creds_from_status(p->pid, tid, &m, e);

	if (r < 0)
		return r;
	m->securebits = batch_result(b, a->securebits);
	m->dumpable = batch_result(b, a->dumpable);
	memcpy(&m->pdeathsig, batch_data(b, a->pdeathsig), sizeof(int));
	/* Made again by its parent's first thread, it would get the signal when that ends. */
	if (m->pdeathsig && p->parent && p->parent->living) {
		ferry__creds__free_unpacked(m, NULL);
		return error_say(e, ENOTSUP,
				 "pid %d: has asked for a signal when its parent's thread ends "
				 "(PR_SET_PDEATHSIG), and the "
				 "main thread of that, pid %d, has ended, which is not supported",
				 p->pid, p->parent->pid);
	}
	snapshot_put(c->snapshot, FERRY__RECORD_TYPE__RECORD_CREDS, p->pid, tid, &m->base);
	return 0;
}

/* --- rebuild ------------------------------------------------------------------------------------------- */
struct caps {
	uint64_t effective, permitted, inheritable;
};

static int read_caps(pid_t tid, struct caps *ret)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = tid};
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d) < 0)
		return -errno;
	ret->effective = d[0].effective | (uint64_t)d[1].effective << 32;
	ret->permitted = d[0].permitted | (uint64_t)d[1].permitted << 32;
	ret->inheritable = d[0].inheritable | (uint64_t)d[1].inheritable << 32;
	return 0;
}

static bool has_cap(uint64_t set, int cap)
{
	return set >> cap & 1;
}

/* Bounding set of the caller, and the capabilities this kernel knows at all. */
static uint64_t own_bounding(uint64_t *ret_known)
{
	uint64_t set = 0, known = 0;

	for (int cap = 0; cap < CAPS_MAX; cap++) {
		int r = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (r < 0)
			break;
		known |= 1ull << cap;
		if (r)
			set |= 1ull << cap;
	}
	*ret_known = known;
	return set;
}

static int refuse_cap(int32_t pid, int32_t tid, uint64_t missing, const char *which, struct error *e)
{
	int cap = __builtin_ctzll(missing);
	char *name = cap_to_name(cap);
	int r = error_say(e, EPERM, "pid %d, tid %d: has %s in its %s set, which this program does not have",
			  pid, tid, name ? name : "a capability", which);

	cap_free(name);
	return r;
}

static int creds_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *msg,
		       struct error *e)
{
	const Ferry__Creds *m = (const Ferry__Creds *)msg;
	uint64_t known, bounding = own_bounding(&known);
	struct caps own = {0};
	int err = read_caps(0, &own);

	if (err < 0)
		return error_set(e, -err, "read own capabilities");
	if (m->n_uid != 4 || m->n_gid != 4)
		return error_say(e, EPROTO, "pid %d, tid %d: the image has %zu user and %zu group ids, not 4",
				 pid, tid, m->n_uid, m->n_gid);
	/* A capability of a newer kernel means nothing here. */
	if ((m->permitted | m->bounding) & ~known)
		events_log(r->events, 2, "pid %d, tid %d: capabilities %#llx are not known to this kernel",
			   pid, tid, (unsigned long long)((m->permitted | m->bounding) & ~known));
	if (m->permitted & known & ~own.permitted)
		return refuse_cap(pid, tid, m->permitted & known & ~own.permitted, "permitted", e);
	if (m->bounding & known & ~bounding)
		return refuse_cap(pid, tid, m->bounding & known & ~bounding, "bounding", e);
	if (m->inheritable & known & ~(own.inheritable | bounding))
		return refuse_cap(pid, tid, m->inheritable & known & ~(own.inheritable | bounding),
				  "inheritable", e);
	return 0;
}

static void put_capset(struct batch *b, const char *label, const struct caps *c)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {
		{(uint32_t)c->effective, (uint32_t)c->permitted, (uint32_t)c->inheritable},
		{c->effective >> 32, c->permitted >> 32, c->inheritable >> 32},
	};

	batch_call(b, label, SYS_capset, ARG_PUT(b, &h, sizeof(h)), ARG_PUT(b, d, sizeof(d)));
}

static void put_ids(struct batch *b, const Ferry__Creds *m)
{
	batch_call(b, "set gids", SYS_setresgid, ARG(m->gid[0]), ARG(m->gid[1]), ARG(m->gid[2]));
	batch_call(b, "set uids", SYS_setresuid, ARG(m->uid[0]), ARG(m->uid[1]), ARG(m->uid[2]));
	/* These two return the previous id whatever happens: ask again. */
	if (m->gid[3] != m->gid[1]) {
		batch_accept_any(b, batch_call(b, "set fsgid", SYS_setfsgid, ARG(m->gid[3])));
		batch_accept_equal(b, batch_call(b, "set fsgid", SYS_setfsgid, ARG(-1)), m->gid[3]);
	}
	if (m->uid[3] != m->uid[1]) {
		batch_accept_any(b, batch_call(b, "set fsuid", SYS_setfsuid, ARG(m->uid[3])));
		batch_accept_equal(b, batch_call(b, "set fsuid", SYS_setfsuid, ARG(-1)), m->uid[3]);
	}
}

static void put_credentials(struct batch *b, const Ferry__Creds *m, const struct caps *now,
			    uint64_t now_bounding, uint64_t known)
{
	struct caps all = {now->permitted, now->permitted, m->inheritable & known};
	struct caps final = {m->effective & known, m->permitted & known, m->inheritable & known};

	batch_call(b, "set groups", SYS_setgroups, ARG(m->n_groups),
		   ARG_PUT(b, m->groups, m->n_groups * sizeof(m->groups[0])));
	put_capset(b, "set inheritable capabilities", &all);
	for (int cap = 0; cap < CAPS_MAX; cap++) {
		if (has_cap(now_bounding & ~m->bounding, cap))
			batch_call(b, "drop from bounding set", SYS_prctl, ARG(PR_CAPBSET_DROP), ARG(cap));
	}
	batch_call(b, "set securebits for the change", SYS_prctl, ARG(PR_SET_SECUREBITS),
		   ARG(SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS));
	put_ids(b, m);
	batch_accept_any(b, batch_call(b, "clear ambient set", SYS_prctl, ARG(PR_CAP_AMBIENT),
				       ARG(PR_CAP_AMBIENT_CLEAR_ALL), ARG(0), ARG(0), ARG(0)));
	for (int cap = 0; cap < CAPS_MAX; cap++) {
		if (has_cap(m->ambient & known, cap))
			batch_call(b, "raise ambient capability", SYS_prctl, ARG(PR_CAP_AMBIENT),
				   ARG(PR_CAP_AMBIENT_RAISE), ARG(cap), ARG(0), ARG(0));
	}
	batch_call(b, "set securebits", SYS_prctl, ARG(PR_SET_SECUREBITS), ARG(m->securebits));
	put_capset(b, "set capabilities", &final);
}

static bool same_ids(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b)
{
	return n_a == n_b && (n_a == 0 || memcmp(a, b, n_a * sizeof(*a)) == 0);
}

/* Nothing to change? Then it also works for a program without privilege. */
static bool already_so(const struct thread *t, const Ferry__Creds *m)
{
	struct error ignored = ERROR_INIT;
	cleanup_message Ferry__Creds *now = NULL;

	return creds_from_status(t->task.pid, t->task.tid, &now, &ignored) == 0 &&
	       same_ids(now->uid, now->n_uid, m->uid, m->n_uid) &&
	       same_ids(now->gid, now->n_gid, m->gid, m->n_gid) &&
	       same_ids(now->groups, now->n_groups, m->groups, m->n_groups) &&
	       now->inheritable == m->inheritable && now->permitted == m->permitted &&
	       now->effective == m->effective && now->bounding == m->bounding && now->ambient == m->ambient &&
	       (uint32_t)prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) == m->securebits;
}

static void put_dumpable(struct rebuild *r, struct process *p, struct thread *t, const Ferry__Creds *m,
			 struct batch *b)
{
	int value = m->dumpable;

	/* 2 (readable by root only) comes from fs.suid_dumpable and cannot be asked for. */
	if (value != 0 && value != 1) {
		if (t->task.tid == p->pid)
			events_log(r->events, 2, "pid %d: dumpable flag %d cannot be set, 0 is", p->pid,
				   value);
		value = 0;
	}
	batch_call(b, "set dumpable", SYS_prctl, ARG(PR_SET_DUMPABLE), ARG(value));
}

static int creds_build(struct rebuild *r, struct process *p, struct thread *t, const ProtobufCMessage *msg,
		       struct batch *b, struct error *e)
{
	const Ferry__Creds *m = (const Ferry__Creds *)msg;
	const uint64_t needed = 1ull << CAP_SETPCAP | 1ull << CAP_SETUID | 1ull << CAP_SETGID;
	uint64_t known, bounding = own_bounding(&known);
	struct caps now = {0};
	int err = read_caps(t->task.tid, &now);

	if (err < 0)
		return error_set(e, -err, "tid %d: read capabilities", t->task.tid);
	if (m->n_uid != 4 || m->n_gid != 4)
		return error_say(e, EPROTO, "tid %d: the image has %zu user and %zu group ids, not 4",
				 t->task.tid, m->n_uid, m->n_gid);
	if ((now.effective & needed) == needed || !already_so(t, m))
		put_credentials(b, m, &now, bounding, known);
	if (m->no_new_privs)
		batch_call(b, "set no_new_privs", SYS_prctl, ARG(PR_SET_NO_NEW_PRIVS), ARG(1), ARG(0), ARG(0),
			   ARG(0));
	batch_call(b, "set parent-death signal", SYS_prctl, ARG(PR_SET_PDEATHSIG), ARG(m->pdeathsig));
	put_dumpable(r, p, t, m, b);
	/* The very last: suspended, as filters are, until the thread is let go. */
	if (m->seccomp_strict)
		batch_call(b, "enter seccomp's strict mode", SYS_prctl, ARG(PR_SET_SECCOMP),
			   ARG(SECCOMP_MODE_STRICT), ARG(0), ARG(0), ARG(0));
	return 0;
}

const struct state_kind kind_creds = {
	.name = "task/creds",
	.type = FERRY__RECORD_TYPE__RECORD_CREDS,
	.scope = KIND_THREAD,
	.descriptor = &ferry__creds__descriptor,
	.take_warm = creds_take_warm,
	.ask = creds_ask,
	.take = creds_take,
	.check = creds_check,
	.build = creds_build,
};
