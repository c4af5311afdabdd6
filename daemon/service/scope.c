/* SPDX-License-Identifier: Apache-2.0 */
#include "service/scope.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#include "base/util.h"

#define CALL_US 5000000u
#define WAIT_MS 3000

/* Pids are numbers: they mean something else to a systemd of another pid namespace, from where who is at the
 * other end has no number here. */
static int check_namespace(sd_bus *bus)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	int fd = sd_bus_get_fd(bus);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
		return fd < 0 ? fd : -errno;
	return who.pid > 0 ? 0 : -EXDEV;
}

static int put_pids(sd_bus_message *m, const pid_t *pids, size_t n)
{
	int r = sd_bus_message_open_container(m, 'r', "sv");

	if (r >= 0)
		r = sd_bus_message_append(m, "s", "PIDs");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "au");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "u");
	for (size_t i = 0; i < n && r >= 0; i++)
		r = sd_bus_message_append(m, "u", (uint32_t)pids[i]);
	for (int i = 0; i < 3 && r >= 0; i++)
		r = sd_bus_message_close_container(m);
	return r;
}

/* Delegate: a program that manages cgroups of its own goes on doing so. */
static int ask(sd_bus *bus, const char *name, const char *uuid, const pid_t *pids, size_t n,
	       sd_bus_error *why)
{
	cleanup_free char *about = xasprintf("Program that ferryd received (migration %s)", uuid);
	sd_bus_message *m = NULL;
	int r = sd_bus_message_new_method_call(bus, &m, "org.freedesktop.systemd1",
					       "/org/freedesktop/systemd1",
					       "org.freedesktop.systemd1.Manager", "StartTransientUnit");

	if (r >= 0)
		r = sd_bus_message_append(m, "ss", name, "fail");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "(sv)");
	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)", "Description", "s", about, "Delegate", "b", 1);
	if (r >= 0)
		r = put_pids(m, pids, n);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		r = sd_bus_message_append(m, "a(sa(sv))", 0);
	if (r >= 0)
		r = sd_bus_call(bus, m, CALL_US, why, NULL);
	sd_bus_message_unref(m);
	return r;
}

static bool is_in(pid_t pid, const char *name)
{
	cleanup_free char *path = xasprintf("/proc/%d/cgroup", pid), *text = NULL;

	return read_file(path, &text) > 0 && strstr(text, name);
}

void scope_make(const char *uuid, const pid_t *pids, size_t n, const struct events *ev)
{
	cleanup_free char *name = xasprintf("ferry-%s.scope", uuid);
	sd_bus_error why = SD_BUS_ERROR_NULL;
	sd_bus *bus = NULL;

	if (!n || sd_booted() <= 0)
		return;
	int r = sd_bus_open_system(&bus);

	if (r >= 0)
		r = check_namespace(bus);
	if (r >= 0)
		r = ask(bus, name, uuid, pids, n, &why);
	/* It is done by a job of systemd's. */
	for (int ms = 0; r >= 0 && !is_in(pids[0], name); ms += 5) {
		if (ms > WAIT_MS || job_aborted())
			r = -ETIMEDOUT;
		usleep(5000);
	}
	if (r < 0)
		events_log(ev, 2,
			   "no scope of its own for what arrives: %s; it stays in the cgroup of ferryd",
			   why.message ? why.message : strerror(-r));
	else
		events_log(ev, 3, "it arrives in %s", name);
	sd_bus_error_free(&why);
	sd_bus_flush_close_unref(bus);
}
