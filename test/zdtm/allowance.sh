#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a peer may take here, in memory and processes (docs/trust.md):   allowance.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

# pair PROGRAM OPTION...: it runs in A, and B has a ferryd with these options
pair() {
	local name=$1
	shift
	host_up B 20000 && host_link A B || fail "no second host"
	: >"$dir/ferryd.out"
	host_run B "$bin/ferryd" --insecure --listen 192.0.2.2 -v4 "$@" </dev/null >"$dir/ferryd.out" 2>&1 &
	within 10 host_run B sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen: $(cat "$dir/ferryd.out")"
	start "$name"
	take_snapshot proc.before
}
move() { "$1" ${2:+"$2"} "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --json "${@:3}"; }
# Both sides know why, and the program has not moved.
refused() {
	move must_fail "$1" "${@:2}"
	untouched
	! alive B || fail "it is in B, too"
	within 5 grep -qE "$1" "$dir/ferryd.out" || fail "ferryd does not say it"
	within 5 in_b_only_ferryd || fail "something is left in B"
}
in_b_only_ferryd() { [ "$(host_run B sh -c 'cat /proc/[0-9]*/comm' 2>/dev/null | grep -vcE '^(ferryd|sh|sleep|cat|unshare)$')" = 0 ]; }

case_announced() {
	pair mem-private --max-peer-memory 2M
	refused 'the program has [0-9]+ MiB of memory, and this host takes 2 MiB from a peer'
	grep -q 'gave up at: hello' "$dir/out" || fail "not at once: $(tail -n 1 "$dir/out")"
	# A rehearsal tells it, too
	must_fail 'takes 2 MiB from a peer' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --dry-run --duration 1s
	finish A
}

# Next to nothing of its 24 MiB is seen from outside before they are sent.
case_counted() {
	pair memfd-unmapped --max-peer-memory 12M
	refused 'the program already has [0-9]+ MiB of memory, and this host takes 12 MiB'
	[ "$(sed -n 's/.*"event":"start".*"bytes":\([0-9]*\).*/\1/p' "$dir/out")" -lt 12000000 ] || fail "it was announced: nothing is tested"
	finish A
}

case_enough() {
	pair memfd-unmapped --max-peer-memory 64M --max-peer-processes 4
	move must_work ""
	! alive A && alive B || fail "it did not move"
	finish B
}

case_processes() {
	pair threads --max-peer-processes 5
	refused 'the program has 9 processes and threads, and this host takes 5 from a peer'
	finish A
}

# What the limits are is read anew.
case_reload() {
	printf 'max-peer-processes 5\n' >"$dir/conf"
	pair threads --config "$dir/conf"
	refused 'takes 5 from a peer'
	printf 'max-peer-processes 9\n' >"$dir/conf"
	host_run B sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = ferryd ] && kill -HUP ${p#/proc/}; done; :' 2>/dev/null
	within 10 grep -q 'configuration was read again' "$dir/ferryd.out" || fail "it was not read again"
	move must_work ""
	finish B
}

# Two at a time share what one peer may take: the first one stands still until it may go on.
case_sum() {
	local first first_pid first_test
	pair threads --max-peer-processes 12 # of which it has 9
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != network-lock ] || { : >"%s/stands"; while [ ! -e "%s/on" ]; do sleep 0.05; done; }\n' "$dir" "$dir" >"$dir/hold"
	chmod +x "$dir/hold"
	first_pid=$pid first_test=$test
	host_run A timeout -k 2 80 "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --action-script "$dir/hold" </dev/null >"$dir/first.out" 2>&1 &
	first=$!
	within 60 test -e "$dir/stands" || fail "the first one never stands: $(tail -n 1 "$dir/first.out")"
	start mixture
	# Without the first one there would be room
	must_fail 'has [0-9]+ processes and threads beside 9 of what else comes from this peer, and this host takes 12' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	alive A || fail "the second one has gone"
	: >"$dir/on"
	wait $first || fail "the first one did not move: $(tail -n 1 "$dir/first.out")"
	within 10 only_the_daemon || fail "its worker does not end"
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	finish B
	pid=$first_pid test=$first_test
	finish B
}
only_the_daemon() { [ "$(host_run B sh -c 'cat /proc/[0-9]*/comm' 2>/dev/null | grep -c '^ferryd$')" = 1 ]; }

run_cases "announced counted enough processes reload sum" "$@"
