/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/display.h"

#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "service/msg.h"

void display_init(struct display *d, FILE *out, bool json)
{
	const char *term = getenv("TERM");

	*d = (struct display){.out = out, .json = json, .verb = "done"};
	d->terminal = !json && isatty(fileno(out)) && (!term || strcmp(term, "dumb"));
}

const char *display_bytes(double bytes, char *buf)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t u = 0;

	for (; bytes >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
		bytes /= 1024;
	snprintf(buf, 32,
		 bytes < 10 && u    ? "%.2f %s"
		 : bytes < 100 && u ? "%.1f %s"
				    : "%.0f %s",
		 bytes, units[u]);
	return buf;
}

const char *display_ms(double ms, char *buf)
{
	if (ms < 1000)
		snprintf(buf, 32, ms < 10 ? "%.2f ms" : "%.0f ms", ms);
	else
		snprintf(buf, 32, ms < 10000 ? "%.2f s" : "%.0f s", ms / 1000);
	return buf;
}

void display_end(struct display *d)
{
	if (d->live)
		fputs("\r\033[K", d->out);
	d->live = false;
	fflush(d->out);
}

static void live(struct display *d, const char *text)
{
	if (!d->terminal)
		return;
	display_end(d);
	fprintf(d->out, "  %s", text);
	fflush(d->out);
	d->live = true;
}

/* "redis-server (pid 17)" */
void display_target(struct display *d, pid_t pid)
{
	cleanup_free char *path = xasprintf("/proc/%d/comm", pid);
	cleanup_free char *comm = NULL;

	if (read_file(path, &comm) > 0) {
		comm[strcspn(comm, "\n")] = 0;
		for (char *c = comm; *c; c++)
			if ((unsigned char)*c < ' ' || *c == 127)
				*c = '?'; /* a name is the target's: nothing for the terminal to obey */
		snprintf(d->program, sizeof(d->program), "%s (pid %d)", comm, pid);
	} else {
		snprintf(d->program, sizeof(d->program), "process %d", pid);
	}
}

static void count(struct display *d, const json_t *ev, const char *key, const char *one, const char *many)
{
	long long n = msg_int(ev, key, -1);

	if (n >= 0)
		fprintf(d->out, "%lld %s, ", n, n == 1 ? one : many);
}

static void start(struct display *d, const json_t *ev)
{
	char b[32];

	if (!*d->program)
		display_target(d, (pid_t)msg_int(ev, "pid", 0));
	fprintf(d->out, "%s: ", d->program);
	count(d, ev, "processes", "process", "processes");
	count(d, ev, "threads", "thread", "threads");
	if (json_object_get(ev, "bytes"))
		fprintf(d->out, "%s, ", display_bytes(msg_num(ev, "bytes", 0), b));
	fprintf(d->out, "tracked by %s\n", msg_str(ev, "backend", "none"));
	live(d, strcmp(d->verb, "tracked") ? "round 1 ..." : "first look ...");
}

static void one_round(struct display *d, const json_t *ev)
{
	char b[32], dirty[32] = "-", left[32], next[40];

	/* How fast it writes is known from the second round on. */
	if (++d->rounds > 1)
		display_bytes(msg_num(ev, "dirty_mib_s", 0) * 1048576, dirty);
	fprintf(d->out, "  round %-2lld %9lld pages  %10s  %6.0f MiB/s  dirty %8s%s  left %s\n",
		(long long)msg_int(ev, "n", d->rounds), (long long)msg_int(ev, "pages", 0),
		display_bytes(msg_num(ev, "bytes", 0), b), msg_num(ev, "mib_s", 0), dirty,
		d->rounds > 1 ? "/s" : "  ", display_ms(msg_num(ev, "left_ms", 0), left));
	snprintf(next, sizeof(next), "round %d ...", d->rounds + 1);
	live(d, next);
}

/* "freeze 0.4 ms, state 3.1 ms": the phases of the downtime, in order. */
static void phases(struct display *d, json_t *all)
{
	const char *key, *sep = "  ";
	json_t *v;
	char b[32];

	json_object_foreach(all, key, v)
	{
		size_t n = strlen(key);

		if (n > 3 && !strcmp(key + n - 3, "_ms"))
			n -= 3;
		fprintf(d->out, "%s%.*s %s", sep, (int)n, key, display_ms(json_number_value(v), b));
		sep = ", ";
	}
}

static void predicted(struct display *d, const json_t *ev)
{
	char a[32], b[32], c[32];
	long long rounds = msg_int(ev, "rounds", 0);

	fputs("the destination has what it needs; a migration now\n", d->out);
	fprintf(d->out, "  memory    %s in %lld round%s, in %s at %.0f MiB/s\n",
		display_bytes(msg_num(ev, "bytes", 0), a), rounds, rounds == 1 ? "" : "s",
		display_ms(msg_num(ev, "ms", 0), b), msg_num(ev, "mib_s", 0));
	fprintf(d->out, "  downtime  %s%s\n", display_ms(msg_num(ev, "downtime_ms", 0), c),
		json_is_true(json_object_get(ev, "converges"))
			? ""
			: ", more than wanted (--downtime, --on-stall)");
}

/* "(predicted: ...)" behind a number of the summary. */
static void beside(struct display *d, const json_t *ev, const char *key, const char *(*show)(double, char *))
{
	const json_t *p = json_object_get(ev, "predicted");
	char b[32];

	if (p)
		fprintf(d->out, "  (predicted %s)", show(msg_num(p, key, 0), b));
}

void display_fetched(struct display *d)
{
	char p50[32], p99[32], max[32];

	fprintf(d->out, "  fetched   %lld pages; %lld faults: median %s, p99 %s, longest %s\n",
		(long long)d->fetched, (long long)d->faults, display_ms(d->p50_us / 1000, p50),
		display_ms(d->p99_us / 1000, p99), display_ms(d->max_us / 1000, max));
}

static void summary(struct display *d, const json_t *ev)
{
	long long rounds = msg_int(ev, "rounds", d->rounds);
	char a[32], b[32];

	if (*d->program)
		fprintf(d->out, "%s %s%s%s\n", d->program, d->verb, d->where ? " " : "",
			d->where ? d->where : "");
	fprintf(d->out, "  memory    %s in %lld round%s (%lld pages)",
		display_bytes(msg_num(ev, "bytes", 0), a), rounds, rounds == 1 ? "" : "s",
		(long long)msg_int(ev, "pages", 0));
	beside(d, ev, "bytes", display_bytes);
	fputc('\n', d->out);
	if (json_object_get(ev, "wire_bytes"))
		fprintf(d->out, "  packed    %s of pages went as %s, mostly with %s\n",
			display_bytes(msg_num(ev, "page_bytes", 0), a),
			display_bytes(msg_num(ev, "wire_bytes", 0), b), msg_str(ev, "compress", "?"));
	if (msg_int(ev, "copied", 0))
		fprintf(d->out, "  copied    %lld pages were there already, at another address\n",
			(long long)msg_int(ev, "copied", 0));
	if (msg_int(ev, "same", 0))
		fprintf(d->out, "  unchanged %lld pages that were written did not go again\n",
			(long long)msg_int(ev, "same", 0));
	/* A pre-dump stops nothing. */
	if (json_object_get(ev, "downtime_ms") && strcmp(msg_str(ev, "verb", ""), "pre-dump")) {
		fprintf(d->out, "  downtime  %s", display_ms(msg_num(ev, "downtime_ms", 0), a));
		phases(d, json_object_get(ev, "phases"));
		beside(d, ev, "downtime_ms", display_ms);
		fputc('\n', d->out);
	}
	if (d->fetched)
		display_fetched(d);
	if (d->serving)
		fputs("  served    all pages that were kept have been fetched\n", d->out);
	fprintf(d->out, "  in all    %s", display_ms(msg_num(ev, "total_ms", 0), b));
	beside(d, ev, "ms", display_ms);
	fputc('\n', d->out);
}

/* One line per interval; the head again after a screen of them. */
static void sample(struct display *d, const json_t *ev)
{
	const json_t *m = json_object_get(ev, "migration");
	char memory[32], dirty[32], set[32], down[32], time[32];
	double bandwidth = msg_num(m, "mib_s", 0);

	if (!d->rounds)
		fprintf(d->out, "  a migration is predicted for %.0f MiB/s, %s\n", bandwidth,
			strcmp(msg_str(m, "bandwidth", ""), "measured")
				? "as given"
				: "measured over the loopback of this machine (--max-bandwidth: another)");
	if (d->rounds++ % 40 == 0)
		fprintf(d->out, "  %9s  %10s  %12s  %11s  %6s  %10s\n", "time", "memory", "dirty",
			"working set", "rounds", "downtime");
	fprintf(d->out, "  %9s  %10s  %10s/s  %11s  %6lld  %10s%s\n",
		display_ms(msg_num(ev, "seconds", 0) * 1000, time),
		display_bytes(msg_num(ev, "memory", 0), memory),
		display_bytes(msg_num(ev, "dirty_mib_s", 0) * 1048576, dirty),
		display_bytes(msg_num(ev, "working_set", 0), set), (long long)msg_int(m, "rounds", 0),
		display_ms(msg_num(m, "downtime_ms", 0), down),
		json_is_true(json_object_get(m, "converges")) ? "" : "  more than wanted");
}

static void tracked(struct display *d, const json_t *ev)
{
	char a[32], b[32], c[32];

	fprintf(d->out, "%s %s for %s%s\n", d->program, d->verb, display_ms(msg_num(ev, "total_ms", 0), a),
		json_is_true(json_object_get(ev, "ended")) ? ", to its end" : "");
	fprintf(d->out, "  written     %s/s, at most %s/s\n",
		display_bytes(msg_num(ev, "dirty_mib_s", 0) * 1048576, a),
		display_bytes(msg_num(ev, "dirty_mib_s_max", 0) * 1048576, b));
	fprintf(d->out, "  working set %s of %s\n", display_bytes(msg_num(ev, "working_set", 0), b),
		display_bytes(msg_num(ev, "memory", 0), c));
}

static void restored(struct display *d, const json_t *ev)
{
	char a[32], b[32];

	fprintf(d->out, "process %lld restored: ", (long long)msg_int(ev, "pid", 0));
	count(d, ev, "processes", "process", "processes");
	fprintf(d->out, "%s in %s\n", display_bytes(msg_num(ev, "bytes", 0), a),
		display_ms(msg_num(ev, "total_ms", 0), b));
}

static void throttled(struct display *d, const json_t *ev)
{
	const char *how = strcmp(msg_str(ev, "by", ""), "freezer") ? "" : ", frozen in turns";

	fprintf(d->out, "  slowed down to %.0f %% (%.2f CPUs%s)\n", msg_num(ev, "percent", 100),
		msg_num(ev, "cpus", 0), how);
}

static void settled(struct display *d, const json_t *ev)
{
	fprintf(d->out, "%s %s\n", d->program,
		json_is_true(json_object_get(ev, "moved")) ? "has moved; its copy here has ended"
							   : "runs on here");
}

static void queued(struct display *d, const json_t *ev)
{
	char text[64];

	snprintf(text, sizeof(text), "number %lld in the queue of the destination ...",
		 (long long)msg_int(ev, "position", 0));
	live(d, text);
}

/* Post-copy: it runs there, pages follow. */
static void running(struct display *d, const json_t *ev)
{
	char down[32], left[32];

	fprintf(d->out, "  runs there after %s; %s of its memory follow\n",
		display_ms(msg_num(ev, "downtime_ms", 0), down),
		display_bytes(msg_num(ev, "left", 0) * 4096, left));
}

/* Dump --lazy-pages: the image is there, but for these. */
static void serving(struct display *d, const json_t *ev)
{
	char left[32];

	d->serving = true;
	fprintf(d->out, "  stopped; %s of its memory are served to who restores it\n",
		display_bytes(msg_num(ev, "left", 0) * 4096, left));
}

static void fetch(struct display *d, const json_t *ev)
{
	char text[96], left[32], p50[32];

	if (!json_is_true(json_object_get(ev, "link"))) {
		live(d, "the link is broken: threads there may wait ...");
		return;
	}
	display_bytes(msg_num(ev, "left", 0) * 4096, left);
	display_ms(msg_num(ev, "p50_us", 0) / 1000, p50);
	snprintf(text, sizeof(text), "%s left, %lld faults, median %s ...", left,
		 (long long)msg_int(ev, "faults", 0), p50);
	live(d, text);
	d->fetched = msg_int(ev, "arrived", 0);
	d->faults = msg_int(ev, "faults", 0);
	d->p50_us = msg_num(ev, "p50_us", 0);
	d->p99_us = msg_num(ev, "p99_us", 0);
	d->max_us = msg_num(ev, "max_us", 0);
}

void display_event(struct display *d, const json_t *ev)
{
	const char *name = msg_str(ev, "event", "");

	if (d->json) {
		json_dumpf(ev, d->out, JSON_COMPACT | JSON_REAL_PRECISION(9));
		fputc('\n', d->out);
		fflush(d->out);
		return;
	}
	if (!strcmp(name, "log"))
		return;
	display_end(d);
	if (!strcmp(name, "start"))
		start(d, ev);
	else if (!strcmp(name, "round"))
		one_round(d, ev);
	else if (!strcmp(name, "freeze"))
		live(d, "stopping the tree ...");
	else if (!strcmp(name, "frozen"))
		live(d, "stopped; everything is sent ...");
	else if (!strcmp(name, "commit"))
		live(d, "handing over ...");
	else if (!strcmp(name, "running"))
		running(d, ev);
	else if (!strcmp(name, "serving"))
		serving(d, ev);
	else if (!strcmp(name, "fetch"))
		fetch(d, ev);
	else if (!strcmp(name, "restored"))
		restored(d, ev);
	else if (!strcmp(name, "queued"))
		queued(d, ev);
	else if (!strcmp(name, "throttle"))
		throttled(d, ev);
	else if (!strcmp(name, "settled"))
		settled(d, ev);
	else if (!strcmp(name, "sample"))
		sample(d, ev);
	else if (!strcmp(name, "prediction"))
		predicted(d, ev);
	else if (!strcmp(name, "done"))
		!strcmp(msg_str(ev, "verb", ""), "track") ? tracked(d, ev) : summary(d, ev);
	else if (!strcmp(name, "cancel") && strcmp(d->verb, "tracked"))
		fputs("  cancelling ...\n", d->out);
	fflush(d->out);
}
