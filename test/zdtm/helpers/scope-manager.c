/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What systemd does for who asks it for a scope, over a D-Bus connection without a bus:
 *   scope-manager SOCKET CGROUP LOG [refuse]
 * StartTransientUnit makes the cgroup CGROUP/NAME and puts the processes there, and says so in LOG.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

static const char *cgroup, *log_path;
static int refuses;

static void say(const char *text)
{
	FILE *f = fopen(log_path, "ae");

	if (f)
		fprintf(f, "%s\n", text);
	if (f)
		fclose(f);
}

static int move(const char *name, uint32_t pid)
{
	char path[600], text[16];
	int n = snprintf(text, sizeof(text), "%u", pid);

	snprintf(path, sizeof(path), "%s/%s", cgroup, name);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return -errno;
	strcat(path, "/cgroup.procs");
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 || write(fd, text, (size_t)n) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return r;
}

/* The array "PIDs" among the properties. */
static int properties(sd_bus_message *m, const char *name)
{
	const char *key;
	int r = sd_bus_message_enter_container(m, 'a', "(sv)");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'r', "sv")) > 0) {
		uint32_t pid;

		r = sd_bus_message_read(m, "s", &key);
		if (r >= 0 && strcmp(key, "PIDs") != 0) {
			r = sd_bus_message_skip(m, "v");
		} else if (r >= 0) {
			r = sd_bus_message_enter_container(m, 'v', "au");
			if (r >= 0)
				r = sd_bus_message_enter_container(m, 'a', "u");
			while (r >= 0 && (r = sd_bus_message_read(m, "u", &pid)) > 0)
				r = move(name, pid);
			for (int i = 0; i < 2 && r >= 0; i++)
				r = sd_bus_message_exit_container(m);
		}
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int on_message(sd_bus_message *m, void *data, sd_bus_error *e)
{
	const char *name, *mode;
	char text[300];

	(void)data;
	(void)e;
	if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus", "Hello"))
		return sd_bus_reply_method_return(m, "s", ":1.1");
	if (!sd_bus_message_is_method_call(m, "org.freedesktop.systemd1.Manager", "StartTransientUnit"))
		return 0;
	int r = sd_bus_message_read(m, "ss", &name, &mode);

	if (r >= 0 && refuses) {
		say("refused");
		return sd_bus_reply_method_errorf(m, SD_BUS_ERROR_ACCESS_DENIED, "no scopes today");
	}
	if (r >= 0)
		r = properties(m, name);
	snprintf(text, sizeof(text), r < 0 ? "failed: %s" : "made %s", r < 0 ? strerror(-r) : name);
	say(text);
	return r < 0 ? sd_bus_reply_method_errno(m, r, NULL)
		     : sd_bus_reply_method_return(m, "o", "/org/freedesktop/systemd1/job/1");
}

static int serve(int sock)
{
	sd_id128_t id;
	sd_bus *bus = NULL;
	int r = sd_bus_new(&bus);

	if (r >= 0)
		r = sd_bus_set_fd(bus, sock, sock);
	if (r >= 0)
		r = sd_id128_randomize(&id);
	if (r >= 0)
		r = sd_bus_set_server(bus, 1, id);
	if (r >= 0)
		r = sd_bus_add_filter(bus, NULL, on_message, NULL);
	if (r >= 0)
		r = sd_bus_start(bus);
	while (r >= 0) {
		r = sd_bus_process(bus, NULL);
		if (r == 0)
			r = sd_bus_wait(bus, UINT64_MAX);
	}
	sd_bus_close_unref(bus);
	return r;
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc < 4)
		return 2;
	cgroup = argv[2];
	log_path = argv[3];
	refuses = argc > 4;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", argv[1]);
	if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 8) < 0) {
		perror(argv[1]);
		return 2;
	}
	for (;;) {
		int sock = accept4(s, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (sock >= 0)
			serve(sock);
	}
}
