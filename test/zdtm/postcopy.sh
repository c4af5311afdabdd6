#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs that start at the destination before all of their memory is there:   postcopy.sh [CASE]...
# The link between the hosts is slow (tbf), so that there is time to break things while pages are on their way. The programs check every
# page they touch. In the end exactly one copy runs, and nothing is left of the other, of journals or of helpers.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

slow() { host_run A tc qdisc add dev eth0 root tbf rate "$1" burst 64k latency 50ms 2>/dev/null || skip "no tbf in this kernel"; }

pair() {
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	start "$1"
}

# Where the daemon of the source is to pick up what is left
daemon_a() {
	host_run A "$bin/ferryd" --insecure --listen 192.0.2.1 </dev/null >>"$dir/ferryd-a.out" 2>&1 &
	within 10 host_run A sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd of A does not listen"
}

# In the background; $migration
migrate() {
	note "migrate $*"
	host_run A timeout -k 2 100 "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --json -v4 -o "$dir/migrate.log" "$@" >"$dir/out" 2>&1 &
	migration=$!
}

fetching() { grep -q '"event":"running"' "$dir/out"; }
some_fetched() { [ "$(value fetch arrived)" -gt "${1:-100}" ] 2>/dev/null; }
value() { sed -n "s/.*\"event\":\"$1\".*\"$2\":\([0-9.]*\).*/\1/p" "$dir/out" | tail -n 1; }
begin() {
	migrate "$@"
	within 60 fetching || fail "it does not run at the destination: $(tail -n 1 "$dir/out")"
	within 30 some_fetched || fail "no pages come"
}

journals_empty() {
	[ -z "$(host_run A sh -c 'ls /run/ferry/journal/out' 2>/dev/null)" ] &&
		[ -z "$(host_run B sh -c 'ls /run/ferry/journal/in | grep -E "pages|sock"; head -qn 1 /run/ferry/journal/in/* 2>/dev/null | grep -v " running "' 2>/dev/null)" ]
}
no_holder() { ! host_run B sh -c 'cat /proc/[0-9]*/comm' 2>/dev/null | grep -q ferry-hold; }

# It is in B alone, with all of its pages, and goes on
over() {
	within 60 journals_empty || fail "something is left: $(host_run A sh -c 'head -n 1 /run/ferry/journal/out/*' 2>&1) $(host_run B sh -c 'ls /run/ferry/journal/in; head -n 1 /run/ferry/journal/in/*' 2>&1 | tr '\n' ' ')"
	! alive A || fail "a copy is left at the source"
	within 5 no_holder || fail "the holder is left"
	finish B
}

ended() {
	wait $migration
	rc=$?
	[ $rc = 0 ] || fail "ferry migrate failed ($rc): $(tail -n 1 "$dir/out")"
}

counts() {
	local total=$(value fetch total) arrived=$(value fetch arrived) again=$(value fetch again)
	echo "$total pages, $(value fetch faults) faults, p50 $(value fetch p50_us) us, down $(value running downtime_ms) ms" >"$dir/summary"
	[ "$total" -gt 200 ] || fail "only $total pages were missing: that proves nothing"
	[ "$(value fetch left)" = 0 ] || fail "$(value fetch left) pages are left"
	# What was there is not fetched: all that came was missing, or was asked for once more while it was on its way.
	[ $((arrived - again)) -le "$total" ] || fail "$arrived pages came ($again of them twice), only $total were missing"
}

# A program that gives nothing back: each missing page comes, and only what was written since the last round is missing.
case_only_what_was_dirty() {
	pair hot-spot
	migrate --post-copy 2
	ended
	counts
	[ $(($(value fetch arrived) - $(value fetch again))) = "$(value fetch total)" ] || fail "$(value fetch arrived) pages came ($(value fetch again) twice), not $(value fetch total)"
	[ "$(value fetch total)" -le 1100 ] || fail "$(value fetch total) pages were missing, 1024 are written at all"
	over
}

case_restless() {
	pair restless
	slow 200mbit
	begin --post-copy 1
	ended
	counts
	over
}

# No tracking at all: everything is missing.
case_everything() {
	pair restless
	slow 200mbit
	begin --backend none --post-copy 1
	ended
	counts
	over
}

# When rounds do not get smaller
case_on_stall() {
	pair hot
	slow 200mbit
	begin --on-stall postcopy --downtime 20
	ended
	counts
	[ "$(grep -c '"event":"round"' "$dir/out")" -ge 3 ] || fail "it did not try"
	over
}

case_link_cut() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_net B ip link set eth0 down
	sleep 3
	alive B || fail "it has ended without its pages"
	host_net B ip link set eth0 up
	ended
	counts
	over
}

# The processes of ferry in host A, the command first; of ferryd in B
ferries() { host_run "$1" sh -c 'for p in /proc/[0-9]*; do case "$(cat $p/comm 2>/dev/null)" in ferry|ferryd) echo ${p#/proc/} ;; esac; done' | sort -n; }

case_kill_source_worker() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run A kill -9 "$(ferries A | sed -n 2p)"
	ended
	over
}

# Nobody is left at the source but the stopped original and its journal: whoever comes serves the rest.
case_kill_source() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run A kill -9 $(ferries A)
	wait $migration
	sleep 2
	host_run A "$ferry" status >"$dir/status" 2>&1
	grep -q serving "$dir/status" || fail "ferry status does not show it: $(tail -n 1 "$dir/status")"
	daemon_a
	over
}

case_resume() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run A kill -9 $(ferries A)
	wait $migration
	uuid=$(host_run A ls /run/ferry/journal/out)
	must_fail 'has run at' "$ferry" resume "$uuid" --here
	must_fail 'only here, and would be lost' "$ferry" resume "$uuid" --there
	must_work "$ferry" resume "$uuid" --insecure
	over
}

case_cancel() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	must_work "$ferry" cancel "$pid"
	wait $migration && fail "a cancelled migration reports success"
	grep -q 'pages of it are still here' "$dir/out" || fail "it does not say what is missing: $(tail -n 1 "$dir/out")"
	alive A || fail "the pages are gone"
	must_work "$ferry" resume --insecure
	over
}

# The worker at the destination: the holder keeps what is missing missing.
case_kill_destination_worker() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run B kill -9 "$(ferries B | sed -n 2p)"
	ended
	over
}

case_kill_destination() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	kill_ferryd
	sleep 2
	alive B || fail "it has ended without its pages"
	start_ferryd
	ended
	over
}

# In order: it lets go, and the next one goes on.
case_restart_destination() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run B kill "$(ferries B | head -n 1)"
	within 10 no_ferryd || fail "ferryd does not end"
	alive B || fail "it has ended without its pages"
	start_ferryd
	ended
	over
}
no_ferryd() { [ -z "$(ferries B)" ]; }

# Twice, and with the one that holds them killed before: another one is there by then.
case_kill_holder() {
	pair restless
	slow 100mbit
	begin --backend none --post-copy 1
	host_run B sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = ferry-hold ] && kill -9 ${p#/proc/}; done'
	within 5 has_holder || fail "no other holder comes"
	sleep 0.5
	host_run B kill -9 "$(ferries B | sed -n 2p)"
	within 10 some_fetched $(($(value fetch arrived) + 500)) || sleep 1
	ended
	over
}
has_holder() { ! no_holder; }

run_cases "only_what_was_dirty restless everything on_stall link_cut kill_source_worker kill_source resume cancel kill_destination_worker kill_destination restart_destination kill_holder" "$@"
