/* SPDX-License-Identifier: Apache-2.0 */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "service/journald.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <syslog.h>
#include <systemd/sd-journal.h>

#include "base/util.h"

bool journald_is_stderr(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(2, &st) == 0 &&
	       st.st_dev == dev && st.st_ino == ino;
}

void journald_write(int level, const char *text, const struct log_about *about)
{
	static const int priorities[] = {LOG_ERR, LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
	char *field[6];
	struct iovec v[ARRAY_SIZE(field)];
	int n = 0;

	field[n++] = xasprintf("MESSAGE=%s", text);
	field[n++] = xasprintf("PRIORITY=%d", priorities[level < 0 || level > 4 ? 4 : level]);
	field[n++] = xstrdup("SYSLOG_IDENTIFIER=ferryd");
	if (about->peer && *about->peer)
		field[n++] = xasprintf("PEER=%s", about->peer);
	if (about->migration && *about->migration)
		field[n++] = xasprintf("MIGRATION_ID=%s", about->migration);
	if (about->pid)
		field[n++] = xasprintf("PID=%d", about->pid);
	for (int i = 0; i < n; i++)
		v[i] = (struct iovec){field[i], strlen(field[i])};
	sd_journal_sendv(v, n);
	for (int i = 0; i < n; i++)
		free(field[i]);
}
