/* SPDX-License-Identifier: Apache-2.0 */
#include "service/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "service/msg.h"

void chain_request_init(struct chain_request *r)
{
	*r = (struct chain_request){.dirfd = -1, .page_server = -1, .log_level = 2};
	session_options_init(&r->session);
}

/* A string member that may be missing. */
static void put_str(json_t *m, const char *key, const char *value)
{
	if (value)
		json_object_set_new(m, key, json_string(value));
}

json_t *chain_request_pack(const struct chain_request *r)
{
	const struct session_options *s = &r->session;
	const struct state_options *o = &s->state;
	json_t *m = json_pack(
		"{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:I,s:i,s:b,s:b,s:b,s:b,s:b,s:b,s:I,s:b}", "op",
		r->op == CHAIN_DUMP ? "dump" : "pre-dump", "pid", (int)s->pid, "freeze_timeout_ms",
		s->freeze_timeout_ms, "max_rounds", (int)s->max_rounds, "downtime_ms", (int)s->downtime_ms,
		"max_downtime_ms", (int)s->max_downtime_ms, "on_stall", (int)s->on_stall, "end", (int)r->end,
		"max_bandwidth", (json_int_t)s->max_bandwidth, "log_level", r->log_level, "tcp_close",
		o->tcp_close, "tcp_established", o->tcp_established, "shell_job", o->shell_job, "ext_unix_sk",
		o->ext_unix_sk, "file_locks", o->file_locks, "link_remap", o->link_remap, "ghost_limit",
		(json_int_t)o->ghost_limit, "page_server", r->page_server >= 0);

	json_object_set_new(m, "lazy", json_boolean(r->lazy));
	json_object_set_new(m, "owner", json_integer(s->owner));

	json_object_set_new(m, "insecure", json_boolean(r->link.insecure));
	put_str(m, "keys", r->link.keys_dir);
	json_object_set_new(m, "tls", json_boolean(r->link.tls));
	put_str(m, "tls_ca", r->link.files.ca);
	put_str(m, "tls_certificate", r->link.files.certificate);
	put_str(m, "tls_key", r->link.files.key);
	json_object_set_new(m, "tls_any_name", json_boolean(r->link.files.any_name));
	put_str(m, "backend", s->backend);
	put_str(m, "backend_dir", s->backend_dir);
	put_str(m, "freeze_cgroup", s->freeze_cgroup);
	put_str(m, "root", o->root);
	put_str(m, "external", o->externals);
	json_object_set_new(m, "cgroups", json_integer(o->cgroups));
	put_str(m, "cgroup_base", o->cgroup_base);
	put_str(m, "parent", r->parent);
	put_str(m, "script", r->script.path);
	put_str(m, "images_dir", r->script.images_dir);
	return m;
}

static bool flag(const json_t *m, const char *key)
{
	return json_is_true(json_object_get(m, key));
}

int chain_request_unpack(const json_t *m, struct chain_request *ret, struct error *e)
{
	const char *op = msg_str(m, "op", "");
	struct session_options *s = &ret->session;

	if (strcmp(op, "dump") && strcmp(op, "pre-dump"))
		return error_say(e, EPROTO, "the request \"%s\" is unknown", op);
	chain_request_init(ret);
	ret->op = strcmp(op, "dump") ? CHAIN_PREDUMP : CHAIN_DUMP;
	s->pid = (pid_t)msg_int(m, "pid", 0);
	s->freeze_timeout_ms = (int)msg_int(m, "freeze_timeout_ms", s->freeze_timeout_ms);
	s->max_rounds = (unsigned)msg_int(m, "max_rounds", s->max_rounds);
	s->downtime_ms = (unsigned)msg_int(m, "downtime_ms", s->downtime_ms);
	s->max_downtime_ms = (unsigned)msg_int(m, "max_downtime_ms", 0);
	s->owner = msg_int(m, "owner", -1);
	s->on_stall = (enum on_stall)msg_int(m, "on_stall", ON_STALL_STOP);
	s->max_bandwidth = (uint64_t)msg_int(m, "max_bandwidth", 0);
	s->backend = msg_str(m, "backend", s->backend);
	s->backend_dir = msg_str(m, "backend_dir", NULL);
	s->freeze_cgroup = msg_str(m, "freeze_cgroup", NULL);
	s->state.tcp_close = flag(m, "tcp_close");
	s->state.tcp_established = flag(m, "tcp_established");
	s->state.shell_job = flag(m, "shell_job");
	s->state.ext_unix_sk = flag(m, "ext_unix_sk");
	s->state.file_locks = flag(m, "file_locks");
	s->state.link_remap = flag(m, "link_remap");
	s->state.ghost_limit = (uint64_t)msg_int(m, "ghost_limit", (int64_t)s->state.ghost_limit);
	s->state.root = msg_str(m, "root", NULL);
	s->state.externals = msg_str(m, "external", NULL);
	s->state.cgroups = (enum cgroup_mode)msg_int(m, "cgroups", CGROUPS_IGNORE);
	s->state.cgroup_base = msg_str(m, "cgroup_base", NULL);
	ret->link.insecure = flag(m, "insecure");
	ret->link.keys_dir = msg_str(m, "keys", NULL);
	ret->link.tls = flag(m, "tls");
	ret->link.files = (struct link_files){msg_str(m, "tls_ca", NULL), msg_str(m, "tls_certificate", NULL),
					      msg_str(m, "tls_key", NULL), flag(m, "tls_any_name")};
	ret->lazy = flag(m, "lazy");
	ret->parent = msg_str(m, "parent", NULL);
	ret->end = (enum session_end)msg_int(m, "end", SESSION_KILL);
	ret->script.path = msg_str(m, "script", NULL);
	ret->script.images_dir = msg_str(m, "images_dir", "");
	ret->log_level = (int)msg_int(m, "log_level", 2);
	return 0;
}

/* Is the directory that @r names as its parent the one of the chain's last image? */
static bool continues(const struct chain *c, const struct chain_request *r)
{
	struct stat st;

	return c->session && r->parent && fstatat(r->dirfd, r->parent, &st, 0) == 0 && st.st_dev == c->dev &&
	       st.st_ino == c->ino;
}

static int begin(struct chain *c, const struct chain_request *r, const struct events *ev, bool *ret_anew,
		 struct error *e)
{
	struct session_options o = r->session;

	c->script = r->script;
	c->hooks = script_hooks(&c->script);
	o.hooks = c->script.path ? &c->hooks : NULL;
	*ret_anew = false;
	if (continues(c, r)) {
		c->ops->set_options(c->session, &o);
		return 0;
	}
	if (r->parent) {
		*ret_anew = true;
		events_emit(ev, json_pack("{s:s,s:s}", "event", "chain-anew", "parent", r->parent));
		events_log(
			ev, 2,
			"writes to process %d since the image in %s are not known: this image is a full one",
			o.pid, r->parent);
	}
	chain_close(c);
	return c->ops->open(&c->session, &o, ev, e);
}

int chain_run(struct chain *c, const struct chain_request *r, const struct events *ev, bool *ret_anew,
	      struct error *e)
{
	struct stat st;
	int code = begin(c, r, ev, ret_anew, e);
	const char *parent = *ret_anew ? NULL : r->parent;

	if (code == 0 && fstat(r->dirfd, &st) < 0)
		code = error_set(e, errno, "cannot look at the images directory");
	if (code == 0 && r->op == CHAIN_DUMP)
		code = c->ops->dump(c->session, r, parent, e);
	else if (code == 0)
		code = c->ops->predump(c->session, r, parent, e);
	if (code < 0 || r->op == CHAIN_DUMP) {
		chain_close(c);
		return MIN(code, 0);
	}
	c->dev = st.st_dev;
	c->ino = st.st_ino;
	return 0;
}

void chain_close(struct chain *c)
{
	if (c->session)
		c->ops->close(TAKE_PTR(c->session));
}
