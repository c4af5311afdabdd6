/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/util.h"
#include "service/metrics.h"
#include "service/scrape.h"

static struct metrics m;

static int reset(void **state)
{
	(void)state;
	metrics_init(&m);
	return 0;
}

static void event(struct job_status *s, json_t *e)
{
	metrics_event(&m, s, e);
	status_event(s, e);
	json_decref(e);
}

static char *text(const struct metrics_now *now)
{
	static const struct metrics_now nothing;
	char *p = NULL;
	size_t n;
	FILE *f = open_memstream(&p, &n);

	metrics_print(&m, now ? now : &nothing, f);
	fclose(f);
	return p;
}

static void assert_line(const char *line)
{
	cleanup_free char *all = text(NULL), *whole = xasprintf("\n%s\n", line);

	if (!strstr(all, whole))
		fail_msg("no line \"%s\" in %s", line, all);
}

static void rounds(void **state)
{
	struct job_status s;

	(void)state;
	status_init(&s, "migrate", 7);
	metrics_start(&m, "migrate");
	event(&s, json_pack("{s:s,s:i,s:i,s:i}", "event", "round", "n", 1, "pages", 10, "bytes", 40960));
	event(&s, json_pack("{s:s,s:i,s:i,s:i}", "event", "round", "n", 2, "pages", 2, "bytes", 8192));
	event(&s, json_pack("{s:s}", "event", "throttle"));
	assert_line("ferry_jobs_started_total{verb=\"migrate\"} 1");
	assert_line("ferry_rounds_total{verb=\"migrate\"} 2");
	assert_line("ferry_round_pages_total{verb=\"migrate\"} 12");
	assert_line("ferry_round_bytes_total{verb=\"migrate\"} 49152");
	assert_line("ferry_throttled_total{verb=\"migrate\"} 1");
	assert_line("ferry_rounds_total{verb=\"receive\"} 0");
}

/* Buckets hold all that is not longer; one on the bound is in. */
static void downtime(void **state)
{
	static const double ms[] = {0.5, 10, 10.5, 70000};
	struct job_status s;

	(void)state;
	status_init(&s, "migrate", 7);
	for (size_t i = 0; i < ARRAY_SIZE(ms); i++)
		event(&s, json_pack("{s:s,s:f,s:i}", "event", "done", "downtime_ms", ms[i], "bytes", 100));
	assert_line("ferry_downtime_seconds_bucket{verb=\"migrate\",le=\"0.001\"} 1");
	assert_line("ferry_downtime_seconds_bucket{verb=\"migrate\",le=\"0.005\"} 1");
	assert_line("ferry_downtime_seconds_bucket{verb=\"migrate\",le=\"0.01\"} 2");
	assert_line("ferry_downtime_seconds_bucket{verb=\"migrate\",le=\"0.02\"} 3");
	assert_line("ferry_downtime_seconds_bucket{verb=\"migrate\",le=\"10\"} 3");
	assert_line("ferry_downtime_seconds_bucket{verb=\"migrate\",le=\"+Inf\"} 4");
	assert_line("ferry_downtime_seconds_count{verb=\"migrate\"} 4");
	assert_line("ferry_downtime_seconds_sum{verb=\"migrate\"} 70.021");
	assert_line("ferry_stream_bytes_total{verb=\"migrate\"} 400");
}

/* The events tell totals of their job. */
static void faults(void **state)
{
	struct job_status a, b;

	(void)state;
	status_init(&a, "receive", 7);
	status_init(&b, "receive", 8);
	event(&a, json_pack("{s:s,s:i,s:i,s:i,s:i}", "event", "fetch", "total", 90, "left", 80, "arrived", 10,
			    "faults", 3));
	event(&b, json_pack("{s:s,s:i,s:i,s:i,s:i}", "event", "fetch", "total", 50, "left", 49, "arrived", 1,
			    "faults", 1));
	event(&a, json_pack("{s:s,s:b}", "event", "fetch", "link", 0));
	event(&a, json_pack("{s:s,s:i,s:i,s:i,s:i}", "event", "fetch", "total", 90, "left", 0, "arrived", 90,
			    "faults", 5));
	assert_line("ferry_postcopy_pages_total{verb=\"receive\"} 91");
	assert_line("ferry_postcopy_faults_total{verb=\"receive\"} 6");
	assert_line("ferry_postcopy_faults_total{verb=\"migrate\"} 0");
}

static void ends(void **state)
{
	(void)state;
	metrics_end(&m, "migrate", 0, "");
	metrics_end(&m, "migrate", EIO, "round 3");
	metrics_end(&m, "migrate", EIO, "round 14");
	metrics_end(&m, "migrate", EIO, "wait for \"ready\"");
	metrics_end(&m, "migrate", ECANCELED, "round 3");
	metrics_end(&m, "track", -1, "");
	assert_line("ferry_jobs_total{verb=\"migrate\",outcome=\"done\"} 1");
	assert_line("ferry_jobs_total{verb=\"migrate\",outcome=\"failed\"} 3");
	assert_line("ferry_jobs_total{verb=\"migrate\",outcome=\"cancelled\"} 1");
	assert_line("ferry_jobs_total{verb=\"other\",outcome=\"lost\"} 1");
	assert_line("ferry_failures_total{verb=\"migrate\",phase=\"round\"} 2");
	assert_line("ferry_failures_total{verb=\"migrate\",phase=\"wait for \\\"ready\\\"\"} 1");
}

/* Phases that somebody makes up do not fill the memory. */
static void many_phases(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++) {
		char phase[8] = {(char)('a' + i % 26), (char)('a' + i / 26 % 26), (char)('a' + i / 676)};

		metrics_end(&m, i & 1 ? "dump" : "migrate", EIO, phase);
	}
	assert_true(m.n_failures <= METRICS_FAILURES + METRICS_VERBS);
	assert_line("ferry_failures_total{verb=\"dump\",phase=\"other\"} 468");
	assert_line("ferry_failures_total{verb=\"migrate\",phase=\"other\"} 468");
}

static void now(void **state)
{
	struct job_status s;
	const struct job_status *jobs[] = {&s};
	const struct metrics_now n = {jobs, 1, 3};

	(void)state;
	status_init(&s, "migrate", 4711);
	strcpy(s.uuid, "0123456789abcdef");
	s.rounds = 2;
	s.dirty_mib_s = 1.5;
	cleanup_free char *all = text(&n);

	assert_non_null(strstr(all, "\nferry_jobs{verb=\"migrate\"} 1\n"));
	assert_non_null(
		strstr(all, "\nferry_job_rounds{verb=\"migrate\",pid=\"4711\",migration=\"01234567\"} 2\n"));
	assert_non_null(strstr(all,
			       "ferry_job_dirty_bytes_per_second{verb=\"migrate\",pid=\"4711\",migration="
			       "\"01234567\"} 1572864\n"));
	assert_null(strstr(all, "ferry_job_postcopy_pages_left{"));
	assert_non_null(strstr(all, "\nferry_queued 3\n"));
}

static enum scrape_request parse(const char *request)
{
	return scrape_parse(request, strlen(request));
}

static void requests(void **state)
{
	char big[SCRAPE_MAX];

	(void)state;
	assert_int_equal(parse("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), SCRAPE_OK);
	assert_int_equal(parse("GET /metrics HTTP/1.0\n\n"), SCRAPE_OK);
	assert_int_equal(parse("GET /metrics?a=b HTTP/1.0\r\n\r\n"), SCRAPE_OK);
	assert_int_equal(parse("GET /metricsx HTTP/1.0\r\n\r\n"), SCRAPE_PATH);
	assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n"), SCRAPE_PATH);
	assert_int_equal(parse("GET /metrics"), SCRAPE_MORE);
	assert_int_equal(parse("GET /metrics HTTP/1.1\r\nHost: x\r\n"), SCRAPE_MORE);
	assert_int_equal(parse(""), SCRAPE_MORE);
	assert_int_equal(parse("POST /metrics HTTP/1.0\r\n\r\n"), SCRAPE_METHOD);
	assert_int_equal(parse("GET /metrics\r\n\r\n"), SCRAPE_BAD);
	assert_int_equal(parse("\n\n"), SCRAPE_BAD);
	assert_int_equal(scrape_parse("GET /\0metrics HTTP/1.0\r\n\r\n", 26), SCRAPE_BAD);
	memset(big, 'x', sizeof(big));
	assert_int_equal(scrape_parse(big, sizeof(big) - 1), SCRAPE_MORE);
	assert_int_equal(scrape_parse(big, sizeof(big)), SCRAPE_BAD);
}

static void answers(void **state)
{
	size_t n;
	cleanup_free char *ok = scrape_answer(SCRAPE_OK, "a 1\n", &n);

	(void)state;
	assert_int_equal(n, strlen(ok));
	assert_non_null(strstr(ok, "HTTP/1.0 200 OK\r\n"));
	assert_non_null(strstr(ok, "Content-Length: 4\r\n"));
	assert_string_equal(ok + n - 8, "\r\n\r\na 1\n");
	cleanup_free char *no = scrape_answer(SCRAPE_METHOD, NULL, &n);

	assert_non_null(strstr(no, "HTTP/1.0 405 "));
	assert_non_null(strstr(no, "Allow: GET\r\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(rounds, reset),
		cmocka_unit_test_setup(downtime, reset),
		cmocka_unit_test_setup(faults, reset),
		cmocka_unit_test_setup(ends, reset),
		cmocka_unit_test_setup(many_phases, reset),
		cmocka_unit_test_setup(now, reset),
		cmocka_unit_test(requests),
		cmocka_unit_test(answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
