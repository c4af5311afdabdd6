#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Migrations over several connections (ferry migrate --streams):   streams.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

pair() {
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	start "$1"
}
move() { must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --json --on-stall stop "$@"; }
# How many connections to ferryd there are, as host A sees them
connections() { host_run A ss -Htn state established dst 192.0.2.2 2>/dev/null | wc -l; }
no_ferry() { ! host_run "$1" sh -c 'cat /proc/[0-9]*/comm' 2>/dev/null | grep -qx "$2"; }

case_four() {
	pair mem-private
	move --streams 4
	within 10 no_ferry A ferry || fail "a process of ferry is left at the source"
	finish B
}

case_with_packing() {
	pair same-again
	move --streams 3 --compress zstd
	finish B
}

case_are_used() {
	pair hot
	host_run A timeout -k 2 60 "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --on-stall stop --streams 5 --compress none --max-bandwidth 10M --max-rounds 2 >"$dir/out" 2>&1 &
	migration=$!
	within 20 eval '[ "$(connections)" = 5 ]' || fail "$(connections) connections"
	# Data goes over each of them
	within 20 eval '[ "$(host_run A ss -Htni state established dst 192.0.2.2 | grep -oE "bytes_acked:[0-9]+" | awk -F: "\$2 > 500000" | wc -l)" = 5 ]' || fail "not all are used"
	wait $migration || fail "$(tail -n 1 "$dir/out")"
	finish B
}

# One of five is cut: all end, and the program runs on where it was
case_one_cut() {
	pair hot
	take_snapshot proc.before
	host_run A timeout -k 2 60 "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --on-stall stop --streams 5 --compress none --max-bandwidth 1M --max-rounds 20 >"$dir/out" 2>&1 &
	migration=$!
	within 20 eval '[ "$(connections)" = 5 ]' || fail "$(connections) connections"
	sleep 0.5
	port=$(host_run A ss -Htn state established dst 192.0.2.2 | awk 'NR == 3 { sub(".*:", "", $3); print $3 }')
	host_run A ss -K dst 192.0.2.2 sport = ":$port" >/dev/null 2>&1
	[ "$(connections)" -lt 5 ] || skip "this kernel cuts no connections (ss -K)"
	wait $migration
	rc=$?
	said_error 'connection|ended|reset|broken' migrate
	within 10 eval '! alive B' || fail "something is left at the destination"
	untouched 10
	finish A
}

case_post_copy() {
	pair hot-spot
	move --streams 3 --backend none --post-copy 1
	grep -q '"event":"running"' "$dir/out" || fail "no page stayed behind: the case proves nothing"
	finish B
}

case_refused_number() {
	pair mem-private
	take_snapshot proc.before
	must_fail 'streams takes a number from 1 to 16' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --streams 17
	untouched
	finish A
}

case_over_tls() {
	host_up B 20000 && host_link A B || fail "no second host"
	host_run A "$ferry" keys init --keys "$dir/ka" >"$dir/ka.out" 2>&1 && host_run B "$ferry" keys init --keys "$dir/kb" >"$dir/kb.out" 2>&1 || fail "no keys"
	fa=$(host_run A "$ferry" keys show --keys "$dir/ka" | grep -oE 'SHA256:[A-Za-z0-9+/]+')
	fb=$(host_run B "$ferry" keys show --keys "$dir/kb" | grep -oE 'SHA256:[A-Za-z0-9+/]+')
	host_run A "$ferry" keys trust 192.0.2.2 --keys "$dir/ka" --fingerprint "$fb" >/dev/null && host_run B "$ferry" keys trust 192.0.2.1 --keys "$dir/kb" --fingerprint "$fa" >/dev/null || fail "no trust"
	host_run B "$bin/ferryd" --keys "$dir/kb" --listen 192.0.2.2 </dev/null >>"$dir/ferryd.out" 2>&1 &
	within 10 host_run B sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen"
	start mem-private
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --keys "$dir/ka" --streams 4
	within 10 no_ferry A ferry || fail "a process of ferry is left at the source"
	finish B
}

run_cases "four with-packing are-used one-cut post-copy refused-number over-tls" "$@"
