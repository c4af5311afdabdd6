/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Control groups (--manage-cgroups): in which group of each mounted hierarchy every process is, relative to
 * the nearest group that holds all of the tree, and how the groups from there on are set.
 *
 * A skeleton is put where it belongs when it is made, while the target still runs: a move into a cgroup takes
 * the kernel some milliseconds, and the memory that comes is charged to where it shall be.  Limits are set
 * last, as skeletons need more than what they become.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"
#include "proto/cgroups.pb-c.h"
#include "state/kind.h"

extern const struct state_kind kind_cgroups;

/* "", for soft, or a name. */
int cgroup_mode_parse(const char *name, enum cgroup_mode *ret, struct error *e);
const char *cgroup_mode_name(enum cgroup_mode mode);
/* "[CONTROLLERS:]/PATH" becomes a line of @list (NULL or malloc'ed). */
int cgroup_root_add(const char *text, char **list, struct error *e);
/* The path of that list for a hierarchy, malloc'ed; NULL: none was named. */
char *cgroup_root_of(const char *list, const char *controllers);

/* --- for the engine ----------------------------------------------------------------------------------- */
void cgroups_capture_free(struct capture *c);
/* A skeleton was just made. */
int cgroups_place(struct rebuild *r, pid_t pid, struct error *e);
/* It is about to run: the end of this process does not undo anything any more. */
void cgroups_keep(struct rebuild *r);
/* @started: the tree runs; otherwise what was made or set here goes back, some of it perhaps a moment later.
 * NULL-safe. */
void cgroups_rebuild_free(struct rebuild *r, bool started);

/* --- within state/cgroups ------------------------------------------------------------------------------- */
/* A path that leads nowhere else: absolute, without "." and "..", not "//". */
bool cgroup_path_ok(const char *path);

/* seen.c: the directory of a group; NULL: its hierarchy is not mounted here. */
const char *cgroup_seen_dir(struct capture *c, const char *controllers, const char *path);

/* properties.c: what is read and set. Nothing else of a record is ever written to a file. */
struct cgroup_property {
	const char *name, *otherwise; /* its value in a new group; NULL: the parent's */
	bool v2;
	bool early; /* a group without it takes no process */
	bool list;  /* of CPUs or memory nodes: what is named must be there */
};
extern const struct cgroup_property cgroup_properties[];
extern const size_t cgroup_n_properties;
const struct cgroup_property *cgroup_property_find(const char *name, bool v2);
bool cgroup_property_is_default(const struct cgroup_property *p, const char *value);
/* Length of the part of a name that is the controller's: "cpu" of "cpu.max". */
size_t cgroup_controller_length(const char *name);
/* The first line of a file in the group's directory, malloc'ed; NULL: not there, or not to be read. */
char *cgroup_read(const char *dir, const char *name);
/* -errno */
int cgroup_write(const char *dir, const char *name, const char *value);
/* Is each number of the list @a ("0-3,8") in @b? */
bool cgroup_list_within(const char *a, const char *b);

/* undo.c: a process of its own that undoes what was done here when we die, unless it is told to keep it. */
struct cgroup_undo;
int cgroup_undo_new(struct cgroup_undo **ret, struct error *e);
/* Before it is done. */
int cgroup_undo_made(struct cgroup_undo *u, const char *dir, struct error *e);
int cgroup_undo_value(struct cgroup_undo *u, const char *dir, const char *name, const char *was,
		      struct error *e);
/* The step just told was not taken. */
int cgroup_undo_not(struct cgroup_undo *u, struct error *e);
bool cgroup_undo_has_made(const struct cgroup_undo *u, const char *dir);
void cgroup_undo_keep(struct cgroup_undo *u);
/* Waits for it for two seconds: a group goes when the last of its processes is dead. NULL-safe. */
void cgroup_undo_free(struct cgroup_undo *u, bool undo);

/* plan.c: a record seen from here. */
struct cgroup_place {
	const Ferry__CgroupGroup *group;
	char *path, *dir;
	bool made; /* by us */
};
struct cgroup_tree {
	const Ferry__CgroupHierarchy *hierarchy;
	bool v2;
	char *root;                  /* the directory of "/" here */
	char *base;                  /* path of groups[0] here */
	struct cgroup_place *places; /* of each group */
};
struct cgroup_plan {
	Ferry__Cgroups *record; /* a copy */
	struct cgroup_tree *trees;
	struct cgroup_undo *undo; /* NULL: nothing was done yet */
};
/* The record that the snapshot has now. *ret NULL: none, or it does not matter. The rebuild keeps it. */
int cgroup_plan_get(struct rebuild *r, struct cgroup_plan **ret, struct error *e);
bool cgroup_sets(enum cgroup_mode mode, const struct cgroup_place *p);
/* rebuild.c: the kind's */
int cgroups_check(struct rebuild *r, int32_t pid, int32_t tid, const ProtobufCMessage *m, struct error *e);
int cgroups_prepare(struct rebuild *r, const ProtobufCMessage *m, struct error *e);
/* check.c */
int cgroup_plan_check(const struct cgroup_plan *plan, enum cgroup_mode mode, struct error *e);
