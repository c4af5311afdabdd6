/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/prediction.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/util.h"
#include "procfs/procfs.h"
#include "service/msg.h"
#include "service/rundir.h"

static char *path_of(pid_t pid)
{
	return xasprintf("%s/predictions/%d", rundir_path(), pid);
}

static json_int_t start_time(pid_t pid)
{
	struct error ignore = ERROR_INIT;
	struct proc_stat st;

	return proc_stat_read(pid, 0, &st, &ignore) == 0 ? (json_int_t)st.start_time : 0;
}

void prediction_save(pid_t pid, const json_t *prediction)
{
	cleanup_free char *dir = xasprintf("%s/predictions", rundir_path()), *path = path_of(pid);
	json_t *j = json_deep_copy(prediction);

	json_object_set_new(j, "start_time", json_integer(start_time(pid)));
	mkdir(dir, 0700);
	json_dump_file(j, path, JSON_COMPACT | JSON_REAL_PRECISION(9));
	json_decref(j);
}

json_t *prediction_find(pid_t pid)
{
	cleanup_free char *path = path_of(pid);
	json_t *j = json_load_file(path, 0, NULL);

	if (j && json_is_object(j) && msg_int(j, "start_time", 0) == start_time(pid)) {
		json_object_del(j, "start_time");
		json_object_del(j, "event");
		return j;
	}
	json_decref(j);
	return NULL;
}

void prediction_forget(pid_t pid)
{
	cleanup_free char *path = path_of(pid);

	unlink(path);
}
