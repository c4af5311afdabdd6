#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ferryd as a service: metrics, the journal, sockets that are handed over, watchdog, reload:   daemon.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

# ferryd_in HOST OPTION...
ferryd_in() {
	local host=$1
	shift
	host_run "$host" "$bin/ferryd" "$@" </dev/null >>"$dir/ferryd.$host" 2>&1 &
	within 10 host_run "$host" sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen in $host: $(tail -n 1 "$dir/ferryd.$host")"
}

pair() {
	host_up B 20000 && host_link A B || fail "no second host"
	ferryd_in A --insecure --listen 192.0.2.1 --metrics 127.0.0.1:9471
	ferryd_in B --insecure --listen 192.0.2.2 --metrics 127.0.0.1:9471
}

# http HOST REQUEST-LINE: the whole answer into $dir/scrape.HOST
http() {
	host_run "$1" timeout 10 bash -c 'exec 3<>/dev/tcp/127.0.0.1/9471 && printf "%s\r\nHost: localhost\r\n\r\n" "$0" >&3 && cat <&3' "$2" >"$dir/scrape.$1" 2>"$dir/scrape.err"
}

# has HOST REGEX: a line of the metrics; value HOST NAME-WITH-LABELS
has() { http "$1" 'GET /metrics HTTP/1.1' && grep -qE "^$2" "$dir/scrape.$1"; }
value() { http "$1" 'GET /metrics HTTP/1.1' && sed -n "s/^$2 //p" "$dir/scrape.$1"; }

# Every line is a comment or a sample, every name has its type before it, and no sample comes twice.
well_formed() {
	awk 'NR == FNR && /^\r?$/ { start = FNR; next } FNR != NR && FNR > start' "$dir/scrape.$1" "$dir/scrape.$1" >"$dir/body"
	[ -s "$dir/body" ] || fail "no body"
	! grep -vE '^# (HELP|TYPE) ferry_[a-z_]+ .+$|^ferry_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.e]+$' "$dir/body" >"$dir/odd" || fail "not a metric: $(head -n 1 "$dir/odd")"
	[ -z "$(grep -v '^#' "$dir/body" | sed 's/ [^ ]*$//' | sort | uniq -d)" ] || fail "a sample comes twice"
	grep -v '^#' "$dir/body" | sed -E 's/[{ ].*//; s/_(bucket|sum|count)$//' | sort -u >"$dir/names"
	sed -n 's/^# TYPE \([a-z_]*\) .*/\1/p' "$dir/body" | sort -u | comm -13 - "$dir/names" >"$dir/untyped"
	[ ! -s "$dir/untyped" ] || fail "no type: $(cat "$dir/untyped")"
}

case_metrics() {
	local job
	pair
	has A 'ferry_jobs\{verb="migrate"\} 0' || fail "no metrics: $(head -n 3 "$dir/scrape.A" "$dir/scrape.err")"
	grep -q '^HTTP/1.0 200 OK' "$dir/scrape.A" || fail "the answer is $(head -n 1 "$dir/scrape.A")"
	well_formed A
	start hot
	# It stays frozen until we have looked
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != network-lock ] || until [ -e %s/looked ]; do sleep 0.05; done\n' "$dir" >"$dir/script"
	chmod +x "$dir/script"
	host_run A timeout -k 2 80 "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --json --on-stall stop --compress none --max-bandwidth 60M --max-rounds 3 \
		--action-script "$dir/script" >"$dir/out" 2>&1 &
	job=$!
	# At work: at both sides
	within 20 has A 'ferry_jobs\{verb="migrate"\} 1' || fail "the source does not count it"
	within 20 has B 'ferry_jobs\{verb="receive"\} 1' || fail "the destination does not count it"
	within 20 has A "ferry_job_rounds\{verb=\"migrate\",pid=\"$pid\",migration=\"[0-9a-f]{8}\"\} [1-9]" || fail "no rounds while it runs: $(grep ferry_job_ "$dir/scrape.A")"
	within 20 has A "ferry_job_dirty_bytes_per_second\{.*\} [1-9]" || fail "it seems not to write"
	has A 'ferry_rounds_total\{verb="migrate"\} [1-9]' || fail "its rounds are not counted"
	well_formed A
	: >"$dir/looked"
	wait $job || fail "it did not move: $(tail -n 1 "$dir/out")"
	# And afterwards
	within 10 has A 'ferry_jobs_total\{verb="migrate",outcome="done"\} 1' || fail "its end is not counted at the source"
	within 10 has B 'ferry_jobs_total\{verb="receive",outcome="done"\} 1' || fail "its end is not counted at the destination"
	within 10 has A 'ferry_jobs\{verb="migrate"\} 0' || fail "it is still at work"
	[ "$(value A 'ferry_rounds_total{verb="migrate"}')" = "$(grep -c '"event":"round"' "$dir/out")" ] || fail "another number of rounds"
	has A 'ferry_downtime_seconds_count\{verb="migrate"\} 1' || fail "its downtime is not counted"
	has A 'ferry_downtime_seconds_bucket\{verb="migrate",le="\+Inf"\} 1' || fail "its downtime is in no bucket"
	has A 'ferry_stream_bytes_total\{verb="migrate"\} [1-9]' || fail "its bytes are not counted"
	well_formed A
	# One that fails: by phase
	finish B
	start mixture
	must_fail 'cannot connect' "$ferry" migrate "$pid" --to 192.0.2.2:9 --insecure
	within 10 has A 'ferry_jobs_total\{verb="migrate",outcome="failed"\} 1' || fail "the failure is not counted"
	has A 'ferry_failures_total\{verb="migrate",phase="connect"\} 1' || fail "its phase: $(grep failures "$dir/scrape.A")"
	: >"$test/go"
	within 30 test -e "$test/result" && [ "$(cat "$test/result")" = pass ] || fail "mixture: $(cat "$test/result")"
}

# Off by default; only for this machine; and whoever asks for something else, or nothing, is in nobody's way.
case_metrics_manners() {
	local n
	host_up B 20000 && host_link A B || fail "no second host"
	ferryd_in A --insecure --listen 192.0.2.1
	[ "$(host_run A grep -c ' 0A ' /proc/net/tcp)" = 1 ] || fail "something else listens without --metrics"
	host_run B timeout 10 "$bin/ferryd" --metrics 192.0.2.2:9471 >"$dir/refused" 2>&1 && fail "served beyond loopback"
	grep -q 'Error: metrics are served at a loopback address' "$dir/refused" || fail "$(cat "$dir/refused")"
	host_run B "$bin/ferryd" --check-config --metrics 192.0.2.2:9471 >"$dir/refused" 2>&1 && fail "the check finds nothing wrong with 192.0.2.2"
	ferryd_in B --insecure --listen 192.0.2.2 --metrics 127.0.0.1:9471
	http B 'GET /other HTTP/1.1'
	grep -q '^HTTP/1.0 404' "$dir/scrape.B" || fail "another path: $(head -n 1 "$dir/scrape.B")"
	http B 'DELETE /metrics HTTP/1.1'
	grep -q '^HTTP/1.0 405' "$dir/scrape.B" || fail "another method: $(head -n 1 "$dir/scrape.B")"
	http B 'what is this'
	grep -q '^HTTP/1.0 400' "$dir/scrape.B" || fail "no HTTP: $(head -n 1 "$dir/scrape.B")"
	# More silent ones than are kept: the next one is served all the same
	for n in $(seq 12); do
		host_run B timeout 20 bash -c 'exec 3<>/dev/tcp/127.0.0.1/9471 && printf "GET /met" >&3 && echo there && sleep 15' >>"$dir/silent" 2>/dev/null &
	done
	within 10 eval '[ "$(wc -l <"$dir/silent")" = 12 ]' || fail "the silent ones are not there"
	has B 'ferry_jobs' || fail "silent ones keep others out"
	start mixture
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	finish B
}

manager() {
	host_run B mkdir -p /run/systemd/journal /run/ferry
	host_run B "$programs/helpers/service-manager" "$dir" "$@" </dev/null >>"$dir/ferryd.B" 2>&1 &
	manager=$!
}
told() { grep -q "$1" "$dir/notify"; }
ferryd_pid() { host_run B sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = ferryd ] && echo ${p#/proc/}; done' | sort -n | head -n 1; }

# entry FIELD=VALUE...: one entry of the journal has all these
entry() {
	awk -v want="$(printf '%s\n' "$@")" 'BEGIN { RS = ""; n = split(want, w, "\n") }
		{ ok = 1; for (i = 1; i <= n; i++) if (("\n" $0 "\n") !~ ("\n" w[i])) ok = 0; if (ok) found = 1 } END { exit !found }' "$dir/journal"
}

case_sockets_of_systemd() {
	local id
	host_up B 20000 && host_link A B || fail "no second host"
	mkdir -p "$dir/run" && chmod 700 "$dir/run"
	manager -j -l 7471 -c /run/ferry/ferryd.sock "$bin/ferryd" -v4 --insecure
	within 10 told READY=1 || fail "it never said that it is ready: $(cat "$dir/stderr")"
	host_run B "$ferry" status --json >"$dir/out" 2>&1 || fail "the control socket does not answer: $(cat "$dir/out")"
	# The port is loopback's: within host B, to itself
	host_run B mkdir -p "$dir/test.b"
	grep -q 'MESSAGE=listening' "$dir/journal" && fail "it listens elsewhere too"
	host_run B "$programs/mixture" --dir "$dir/test.b" </dev/null >"$dir/start.out" 2>&1 || fail "mixture did not start"
	within 20 test -e "$dir/test.b/pid" || fail "mixture was never ready"
	pid=$(cat "$dir/test.b/pid")
	host_run B "$ferry" migrate "$pid" --to 127.0.0.1 --dry-run --duration 1 >"$dir/out" 2>&1
	within 10 entry 'MESSAGE=127.0.0.1 port .*' 'PRIORITY=6' 'SYSLOG_IDENTIFIER=ferryd' || fail "no entry in the journal: $(tail -n 5 "$dir/journal")"
	host_run B kill -TERM "$(ferryd_pid)"
	wait $manager || fail "ferryd ended with $?"
	told STOPPING=1 || fail "it did not say that it stops"
	host_run B test -e /run/ferry/ferryd.sock || fail "it removed a socket that is not its own"
	: >"$dir/test.b/go"
}

# Who, which migration and which process are fields of their own.
case_journal() {
	local id
	host_up B 20000 && host_link A B || fail "no second host"
	manager -j "$bin/ferryd" -v4 --insecure --listen 192.0.2.2
	within 10 told READY=1 || fail "it never said that it is ready: $(cat "$dir/stderr")"
	start mixture
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --json
	id=$(grep -o '"uuid":"[^"]*"' "$dir/out" | head -n 1 | cut -d '"' -f 4)
	within 10 entry "MIGRATION_ID=$id" 'PEER=192.0.2.1 port [0-9]+' "PID=$pid" || fail "no entry with MIGRATION_ID, PEER and PID: $(grep -A 9 MIGRATION "$dir/journal" | head)"
	[ ! -s "$dir/stderr" ] || fail "it also writes to the standard error output: $(head -n 1 "$dir/stderr")"
	finish B
}

quiet_for_a_second() {
	local n
	n=$(grep -c WATCHDOG=1 "$dir/notify")
	sleep 1
	[ "$(grep -c WATCHDOG=1 "$dir/notify")" = "$n" ]
}

case_watchdog() {
	local n
	host_up B 20000 && host_link A B || fail "no second host"
	manager -w 600000 "$bin/ferryd" --insecure --listen 192.0.2.2
	within 10 told READY=1 || fail "it never said that it is ready"
	within 20 eval '[ "$(grep -c WATCHDOG=1 "$dir/notify")" -ge 5 ]' || fail "it is not heard of: $(cat "$dir/notify")"
	# Stopped, it says nothing
	host_run B kill -STOP "$(ferryd_pid)"
	within 5 host_run B grep -q '^State:.T' "/proc/$(ferryd_pid)/status" || fail "it is not stopped"
	within 20 quiet_for_a_second || fail "somebody else says that it lives"
	n=$(grep -c WATCHDOG=1 "$dir/notify")
	host_run B kill -CONT "$(ferryd_pid)"
	within 10 eval '[ "$(grep -c WATCHDOG=1 "$dir/notify")" -gt "$n" ]' || fail "it is not heard of any more"
}

case_reload() {
	host_up B 20000 && host_link A B || fail "no second host"
	printf 'insecure\nlisten 192.0.2.2\nfirst-byte 3600\nverbosity 3\n' >"$dir/conf"
	manager "$bin/ferryd" --config "$dir/conf"
	within 10 told READY=1 || fail "it never said that it is ready"
	host_run A bash -c 'exec 3<>/dev/tcp/192.0.2.2/7471 && sleep 60' &
	within 10 grep -q 'connected' "$dir/ferryd.B" || fail "nobody has connected"
	sed -i 's/3600/1/' "$dir/conf"
	host_run B kill -HUP "$(ferryd_pid)"
	within 10 told RELOADING=1 || fail "it does not say that it reads its configuration"
	within 10 eval '[ "$(grep -c READY=1 "$dir/notify")" = 2 ]' || fail "it does not say that it is ready again"
	within 10 grep -q 'said nothing for 1000 ms' "$dir/ferryd.B" || fail "the old time limit still holds"
	# What makes no sense changes nothing
	echo 'nonsense 1' >>"$dir/conf"
	host_run B kill -HUP "$(ferryd_pid)"
	within 10 grep -q 'stays as it was.*conf, line 5' "$dir/ferryd.B" || fail "the mistake is not named: $(tail -n 1 "$dir/ferryd.B")"
	start mixture
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	finish B
}

run_cases "metrics metrics-manners sockets-of-systemd journal watchdog reload" "$@"
