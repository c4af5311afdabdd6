#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What arrives gets a scope of its own, where systemd manages services (here: who makes the same calls work):   scope.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

# pair PROGRAM [refuse]: with a systemd in B, as far as scopes go
pair() {
	cgroups=/sys/fs/cgroup/memory/ferry-scopes-$BASHPID # not local: for the trap
	[ -d /sys/fs/cgroup/memory ] || cgroups=/sys/fs/cgroup/ferry-scopes-$BASHPID
	mkdir "$cgroups" 2>/dev/null || skip "no cgroups here"
	trap 'host_down; within 10 clear_cgroups' EXIT
	host_up B 20000 && host_link A B || fail "no second host"
	mkdir -p "$dir/bus"
	: >"$dir/calls" >"$dir/ferryd.out"
	host_run B mkdir -p /run/systemd/system
	host_run B "$programs/helpers/scope-manager" "$dir/bus/socket" "$cgroups" "$dir/calls" ${2:-} </dev/null >"$dir/manager.log" 2>&1 &
	within 10 test -S "$dir/bus/socket" || fail "nobody answers for systemd: $(cat "$dir/manager.log")"
	host_run B env DBUS_SYSTEM_BUS_ADDRESS=unix:path="$dir/bus/socket" "$bin/ferryd" --insecure --listen 192.0.2.2 -v4 </dev/null >"$dir/ferryd.out" 2>&1 &
	within 10 host_run B sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen: $(cat "$dir/ferryd.out")"
	start "$1"
}
clear_cgroups() {
	rmdir "$cgroups"/*/ 2>/dev/null
	rmdir "$cgroups"
}
scope_of() { host_run B sed -n 's/.*\(ferry-[0-9a-f-]*\.scope\).*/\1/p' "/proc/$1/cgroup" | head -n 1; }
ferryd_pids() { host_run B sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = ferryd ] && echo ${p#/proc/}; done'; }

case_scope() {
	local id p
	pair tree
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --json
	id=$(grep -o '"uuid":"[^"]*"' "$dir/out" | head -n 1 | cut -d '"' -f 4)
	[ "$(cat "$dir/calls")" = "made ferry-$id.scope" ] || fail "asked for: $(cat "$dir/calls" "$dir/ferryd.out")"
	for p in $tree; do
		[ "$(scope_of "$p")" = "ferry-$id.scope" ] || fail "process $p is in $(host_run B cat "/proc/$p/cgroup" | tr '\n' ' ')"
	done
	[ "$(wc -w <<<"$tree")" -gt 3 ] || fail "not a tree: $tree"
	for p in $(ferryd_pids); do
		[ -z "$(scope_of "$p")" ] || fail "ferryd itself is in the scope"
	done
	# Whoever ends all that is left of the service does not end the program
	kill_ferryd
	alive B || fail "it has ended with ferryd"
	finish B
}

case_refused() {
	pair mixture refuse
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	[ "$(cat "$dir/calls")" = refused ] || fail "nobody was asked: $(cat "$dir/calls")"
	within 5 grep -q 'no scope of its own for what arrives: no scopes today' "$dir/ferryd.out" || fail "nothing is said: $(cat "$dir/ferryd.out")"
	[ -z "$(scope_of "$pid")" ] || fail "it is in a scope"
	finish B
}

# One that is ended before it starts leaves nothing in the scope.
case_aborted() {
	pair mixture
	take_snapshot proc.before
	must_fail 'max-downtime' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --max-downtime 1
	[ -n "$(cat "$dir/calls")" ] || fail "nobody was asked"
	untouched
	within 10 eval '[ -z "$(cat "$cgroups"/*/cgroup.procs)" ]' || fail "left in the scope: $(cat "$cgroups"/*/cgroup.procs)"
	finish A
}

run_cases "scope refused aborted" "$@"
