/* SPDX-License-Identifier: Apache-2.0 */
#include "service/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "service/msg.h"

static const char *const verb_names[METRICS_VERBS] = {"migrate", "receive", "dump", "pre-dump", "other"};
static const char *const outcome_names[OUTCOMES] = {"done", "failed", "cancelled", "lost"};
static const char *const refusal_names[REFUSALS] = {"silent", "crowded", "peer"};
static const double bounds[METRICS_BUCKETS] = {.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10};

static enum metrics_verb verb_of(const char *name)
{
	enum metrics_verb v = METRICS_MIGRATE;

	while (v < METRICS_OTHER && strcmp(verb_names[v], name) != 0)
		v++;
	return v;
}

void metrics_init(struct metrics *m)
{
	*m = (struct metrics){.start_time = (double)time(NULL)};
}

void metrics_start(struct metrics *m, const char *verb)
{
	m->job[verb_of(verb)].started++;
}

static void add_downtime(struct metrics_job *j, double seconds)
{
	size_t i = 0;

	while (i < METRICS_BUCKETS && seconds > bounds[i])
		i++;
	j->downtime[i]++;
	j->downtime_sum += seconds;
}

static uint64_t growth(int64_t now, int64_t before)
{
	return now > before ? (uint64_t)(now - before) : 0;
}

void metrics_event(struct metrics *m, const struct job_status *before, const json_t *event)
{
	struct metrics_job *j = &m->job[verb_of(before->verb)];
	const char *name = msg_str(event, "event", "");

	if (!strcmp(name, "round")) {
		j->rounds++;
		j->pages += growth(msg_int(event, "pages", 0), 0);
		j->bytes += growth(msg_int(event, "bytes", 0), 0);
	} else if (!strcmp(name, "throttle")) {
		j->throttled++;
	} else if (!strcmp(name, "fetch")) { /* these numbers are of the whole job so far */
		j->faults += growth(msg_int(event, "faults", before->faults), before->faults);
		j->fetched += growth(msg_int(event, "arrived", before->arrived), before->arrived);
	} else if (!strcmp(name, "done")) {
		j->stream_bytes += growth(msg_int(event, "bytes", 0), 0);
		if (json_object_get(event, "downtime_ms"))
			add_downtime(j, msg_num(event, "downtime_ms", 0) / 1e3);
	}
}

static struct metrics_failure *failure(struct metrics *m, enum metrics_verb verb, const char *phase)
{
	size_t n = strcspn(phase, "0123456789"), i = 0; /* "round 7" */

	while (n && phase[n - 1] == ' ')
		n--;
	for (;; phase = "other", n = 5) {
		for (i = 0; i < m->n_failures; i++)
			if (m->failures[i].verb == verb && strlen(m->failures[i].phase) == n &&
			    !strncmp(m->failures[i].phase, phase, n))
				return &m->failures[i];
		if (m->n_failures < METRICS_FAILURES || (n == 5 && !strncmp(phase, "other", n)))
			break;
	}
	struct metrics_failure *f = &m->failures[m->n_failures++];

	f->verb = verb;
	snprintf(f->phase, sizeof(f->phase), "%.*s", (int)n, phase);
	return f;
}

void metrics_end(struct metrics *m, const char *verb, int code, const char *phase)
{
	enum metrics_verb v = verb_of(verb);
	enum metrics_outcome o = code == 0           ? OUTCOME_DONE
				 : code == ECANCELED ? OUTCOME_CANCELLED
				 : code < 0          ? OUTCOME_LOST
						     : OUTCOME_FAILED;

	m->job[v].outcome[o]++;
	if (o == OUTCOME_FAILED)
		failure(m, v, phase)->n++;
}

/* --- as text --------------------------------------------------------------------------------------- */

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void counter(const struct metrics *m, const char *name, const char *help, size_t offset, FILE *f)
{
	head(f, name, "counter", help);
	for (int v = 0; v < METRICS_VERBS; v++)
		fprintf(f, "%s{verb=\"%s\"} %" PRIu64 "\n", name, verb_names[v],
			*(const uint64_t *)((const char *)&m->job[v] + offset));
}

/* A phase comes from our own code, but perhaps over a socket. */
static void label(const char *text, FILE *f)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			fputc('\\', f);
		fputc(*text == '\n' ? ' ' : *text, f);
	}
}

static void print_outcomes(const struct metrics *m, FILE *f)
{
	head(f, "ferry_jobs_total", "counter", "Jobs that have ended.");
	for (int v = 0; v < METRICS_VERBS; v++)
		for (int o = 0; o < OUTCOMES; o++)
			fprintf(f, "ferry_jobs_total{verb=\"%s\",outcome=\"%s\"} %" PRIu64 "\n",
				verb_names[v], outcome_names[o], m->job[v].outcome[o]);
	head(f, "ferry_failures_total", "counter", "Jobs that have failed, by phase.");
	for (size_t i = 0; i < m->n_failures; i++) {
		fprintf(f, "ferry_failures_total{verb=\"%s\",phase=\"", verb_names[m->failures[i].verb]);
		label(m->failures[i].phase, f);
		fprintf(f, "\"} %" PRIu64 "\n", m->failures[i].n);
	}
}

static void print_downtime(const struct metrics *m, FILE *f)
{
	head(f, "ferry_downtime_seconds", "histogram", "From the freeze until the target ran again.");
	for (int v = 0; v < METRICS_VERBS; v++) {
		const struct metrics_job *j = &m->job[v];
		uint64_t sum = 0;

		for (size_t i = 0; i < METRICS_BUCKETS; i++) {
			sum += j->downtime[i];
			fprintf(f, "ferry_downtime_seconds_bucket{verb=\"%s\",le=\"%g\"} %" PRIu64 "\n",
				verb_names[v], bounds[i], sum);
		}
		sum += j->downtime[METRICS_BUCKETS];
		fprintf(f,
			"ferry_downtime_seconds_bucket{verb=\"%s\",le=\"+Inf\"} %" PRIu64
			"\nferry_downtime_seconds_sum{verb=\"%s\"} %.9g"
			"\nferry_downtime_seconds_count{verb=\"%s\"} %" PRIu64 "\n",
			verb_names[v], sum, verb_names[v], j->downtime_sum, verb_names[v], sum);
	}
}

enum gauge { GAUGE_ROUNDS, GAUGE_BYTES, GAUGE_DIRTY, GAUGE_LEFT };

static double gauge_of(const struct job_status *s, enum gauge g)
{
	switch (g) {
	case GAUGE_ROUNDS:
		return (double)s->rounds;
	case GAUGE_BYTES:
		return (double)s->bytes;
	case GAUGE_DIRTY:
		return s->dirty_mib_s * 1048576;
	default:
		return (double)s->left;
	}
}

static void print_gauge(const struct metrics_now *now, enum gauge g, const char *name, const char *help,
			FILE *f)
{
	head(f, name, "gauge", help);
	for (size_t i = 0; i < now->n_jobs; i++) {
		const struct job_status *s = now->jobs[i];

		if (g == GAUGE_LEFT && !s->missing)
			continue;
		char id[9];

		snprintf(id, sizeof(id), "%.8s", s->uuid);
		fprintf(f, "%s{verb=\"%s\",pid=\"%d\",migration=\"", name, verb_names[verb_of(s->verb)],
			s->target);
		label(id, f);
		fprintf(f, "\"} %.15g\n", gauge_of(s, g));
	}
}

static void print_now(const struct metrics_now *now, FILE *f)
{
	head(f, "ferry_jobs", "gauge", "Jobs at work.");
	for (int v = 0; v < METRICS_VERBS; v++) {
		unsigned n = 0;

		for (size_t i = 0; i < now->n_jobs; i++)
			n += (int)verb_of(now->jobs[i]->verb) == v;
		fprintf(f, "ferry_jobs{verb=\"%s\"} %u\n", verb_names[v], n);
	}
	print_gauge(now, GAUGE_ROUNDS, "ferry_job_rounds", "Rounds of a job so far.", f);
	print_gauge(now, GAUGE_BYTES, "ferry_job_bytes", "Bytes copied by a job so far.", f);
	print_gauge(now, GAUGE_DIRTY, "ferry_job_dirty_bytes_per_second",
		    "How fast the target of a job wrote in its last round.", f);
	print_gauge(now, GAUGE_LEFT, "ferry_job_postcopy_pages_left", "Pages that are still missing.", f);
	head(f, "ferry_queued", "gauge", "Migrations that wait to be let in.");
	fprintf(f, "ferry_queued %u\n", now->queued);
}

#define AT(member) offsetof(struct metrics_job, member)

void metrics_print(const struct metrics *m, const struct metrics_now *now, FILE *f)
{
	counter(m, "ferry_jobs_started_total", "Jobs that have begun.", AT(started), f);
	print_outcomes(m, f);
	counter(m, "ferry_rounds_total", "Rounds that have ended.", AT(rounds), f);
	counter(m, "ferry_round_pages_total", "Pages copied in rounds.", AT(pages), f);
	counter(m, "ferry_round_bytes_total", "Bytes copied in rounds.", AT(bytes), f);
	counter(m, "ferry_stream_bytes_total", "Bytes of the streams of jobs that are done.",
		AT(stream_bytes), f);
	counter(m, "ferry_throttled_total", "Steps by which targets were slowed down.", AT(throttled), f);
	print_downtime(m, f);
	counter(m, "ferry_postcopy_pages_total", "Pages that came after the start.", AT(fetched), f);
	counter(m, "ferry_postcopy_faults_total", "Faults that waited for a page.", AT(faults), f);
	print_now(now, f);
	head(f, "ferry_connections_total", "counter", "Connections of peers.");
	fprintf(f, "ferry_connections_total %" PRIu64 "\n", m->connections);
	head(f, "ferry_connections_refused_total", "counter", "Connections of peers that were turned away.");
	for (int i = 0; i < REFUSALS; i++)
		fprintf(f, "ferry_connections_refused_total{reason=\"%s\"} %" PRIu64 "\n", refusal_names[i],
			m->refused[i]);
	head(f, "ferry_start_time_seconds", "gauge", "When ferryd started, since 1970.");
	fprintf(f, "ferry_start_time_seconds %.0f\n", m->start_time);
}
