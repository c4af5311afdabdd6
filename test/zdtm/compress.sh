#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Migrations whose pages are packed, or not sent because the other side has them:   compress.sh [CASE]...
# The link is slow by order (--max-bandwidth) or by itself (tbf). The programs check all of their memory.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

pair() {
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	start "$1"
}
move() { must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --json --on-stall stop "$@"; }
value() { sed -n "s/.*\"event\":\"$1\".*\"$2\":\"\{0,1\}\([0-9.a-z]*\).*/\1/p" "$dir/out" | tail -n 1; }
packed() {
	[ "$(value done compress)" = "$1" ] || fail "packed with '$(value done compress)'"
	[ $(($(value done wire_bytes) * 2)) -lt "$(value done page_bytes)" ] || fail "$(value done page_bytes) bytes went as $(value done wire_bytes)"
	echo "$(value done page_bytes) bytes as $(value done wire_bytes)" >"$dir/summary"
}

# An order needs no slow link.
case_lz4() {
	pair same-again
	move --compress lz4
	packed lz4
	finish B
}

case_zstd() {
	pair same-again
	move --compress zstd
	packed zstd
	finish B
}

case_none() {
	pair mem-private
	move --compress none --max-bandwidth 100M
	[ -z "$(value done compress)" ] || fail "packed with '$(value done compress)'"
	finish B
}

case_other_names() {
	pair mem-private
	must_fail 'none, lz4, zstd or auto' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --compress gzip
	take_snapshot proc.before
	untouched
	finish A
}

# By order, and as the link itself is
case_auto_limited() {
	pair same-again
	move --max-bandwidth 30M --max-rounds 6
	[ -n "$(value done compress)" ] || fail "nothing was packed"
	finish B
}

case_auto_slow_link() {
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	host_run A tc qdisc add dev eth0 root tbf rate 200mbit burst 64k latency 50ms 2>/dev/null || skip "no tbf in this kernel"
	start same-again
	move --max-rounds 6 --downtime 1
	[ -n "$(value done compress)" ] || fail "nothing was packed"
	echo "$(value done compress): $(value done page_bytes) bytes as $(value done wire_bytes), down $(value done downtime_ms) ms" >"$dir/summary"
	finish B
}

# What is written again as it was does not go again, and equal pages go as copies.
case_same_again() {
	pair same-again
	move --compress none --max-bandwidth 20M --max-rounds 12 --downtime 1
	[ "$(value done same)" -gt 0 ] 2>/dev/null || fail "no page was known"
	[ "$(value done copied)" -gt 100 ] 2>/dev/null || fail "only '$(value done copied)' pages went as copies"
	echo "$(value done pages) pages, $(value done copied) of them copies; $(value done same) unchanged" >"$dir/summary"
	finish B
}

case_same_again_often() {
	local i
	for i in 1 2 3 4 5 6; do
		case_same_again_once
		host_down
		rm -rf "$dir"/test.*
		host_up A 1000 || fail "no test host"
	done
}
case_same_again_once() {
	pair same-again
	move --max-bandwidth 20M --max-rounds 20 --downtime 1
	finish B
}

run_cases "lz4 zstd none other-names auto-limited auto-slow-link same-again same-again-often" "$@"
