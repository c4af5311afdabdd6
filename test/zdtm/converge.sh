#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is done about a program that writes faster than it can be sent:   converge.sh [CASE]...
# The program writes all of its 24 MiB over and over; --max-bandwidth makes sure that no machine is too fast for the case, and
# --compress none that the program's memory counts as it is.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

hot_pair() {
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	start "${1:-hot}"
	take_snapshot proc.before
	cgroups >"$dir/cgroups.before"
	own=ferry-throttle-$pid-$(host_run A awk '{ sub(/.*\) /, ""); print $20 }' "/proc/$pid/stat")
	trap 'let_go; host_down' EXIT
}

cgroups() { host_run A sh -c 'cat /proc/$0/cgroup' "$pid"; }
own_cgroup() { find /sys/fs/cgroup -type d -name "$own" 2>/dev/null | wc -l; }
# What a failed case has left frozen could not even be killed.
let_go() {
	local d
	for d in $(find /sys/fs/cgroup -type d -name "$own" 2>/dev/null); do
		[ ! -e "$d/freezer.state" ] || echo THAWED >"$d/freezer.state"
		[ ! -e "$d/cgroup.freeze" ] || echo 0 >"$d/cgroup.freeze"
	done
}
events() { grep -c "\"event\":\"$1\"" "$dir/out"; }
value() { sed -n "s/.*\"event\":\"$1\".*\"$2\":\([0-9.]*\).*/\1/p" "$dir/out" | tail -n 1; }

case_stop() {
	hot_pair
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --compress none --json --max-bandwidth 40M --downtime 20 --on-stall stop
	[ "$(events round)" -ge 3 ] || fail "gave up after $(events round) rounds"
	grep -q 'do not get smaller' "$dir/out" || fail "it did not say that the budget is exceeded"
	echo "$(events round) rounds, $(value done downtime_ms) ms" >"$dir/summary"
	finish B
}

case_abort() {
	hot_pair
	must_fail 'writes too fast' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --compress none --max-bandwidth 40M --downtime 20 --on-stall abort
	untouched
	finish A
}

# Itself: postcopy.sh
case_other_names() {
	hot_pair
	must_fail 'postcopy is for migrate' "$ferry" dump -t "$pid" -D "$dir" --on-stall postcopy
	must_fail 'takes postcopy, throttle, stop or abort' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --on-stall wait
	untouched
	finish A
}

# Before the freeze, by what is to be expected
case_max_downtime() {
	hot_pair
	must_fail 'longer than --max-downtime' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --on-stall stop --compress none --max-bandwidth 40M --downtime 20 --max-downtime 100 -v4 -o "$dir/migrate.log"
	! grep -q '"event":"freeze"' "$dir/migrate.log" || fail "it was stopped all the same"
	untouched
	finish A
}

# In the freeze: something takes longer than was to be expected. It runs on, and nothing has moved.
case_max_downtime_exceeded() {
	hot_pair mixture
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != network-lock ] || sleep 5\n' >"$dir/slow"
	chmod +x "$dir/slow"
	must_fail 'as long as --max-downtime' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --max-downtime 3000 --action-script "$dir/slow" -v4 -o "$dir/migrate.log"
	grep -q '"event":"freeze"' "$dir/migrate.log" || fail "it was never stopped: the case proves nothing"
	! grep -q '"state":"committing"' "$dir/migrate.log" || fail "it was handed over"
	untouched
	finish A
}

case_time_limit() {
	hot_pair
	must_fail '--time-limit' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --compress none --max-bandwidth 2M --time-limit 1s
	untouched
	finish A
}

case_max_rounds() {
	hot_pair
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --compress none --json --max-bandwidth 100M --max-rounds 2
	[ "$(events round)" -le 2 ] || fail "$(events round) rounds"
	finish B
}

need_cpu_cgroup() {
	grep -qE '^[0-9]+:([a-z_,]*,)?cpu(,|:)' /proc/self/cgroup || grep -qw cpu /sys/fs/cgroup/cgroup.controllers 2>/dev/null || skip "no CPU controller here"
}

throttle_options="--compress none --json --max-bandwidth 60M --downtime 60 --on-stall throttle --max-rounds 60"

case_throttle() {
	need_cpu_cgroup
	hot_pair
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure $throttle_options
	[ "$(events throttle)" -ge 1 ] || fail "it was never slowed down"
	[ "$(own_cgroup)" = 0 ] || fail "its cgroup is left behind"
	echo "slowed down $(events throttle) times to $(value throttle percent) %, $(events round) rounds, $(value done downtime_ms) ms" >"$dir/summary"
	finish B
}

# Stopped by its operator while it is slow; then every process of ferry in turn is killed, and all at once.
slowed_migration() {
	: >"$dir/out" # not what the last one said
	host_run A timeout -k 2 60 "$ferry" migrate "$pid" --to 192.0.2.2 --insecure $throttle_options --max-bandwidth 24M >"$dir/out" 2>&1 &
	migration=$!
	within 40 grep -q '"event":"throttle"' "$dir/out" || fail "it was never slowed down"
	[ "$(own_cgroup)" = 1 ] || fail "no cgroup: the case proves nothing"
	! cgroups | diff -q - "$dir/cgroups.before" >/dev/null || fail "it is not in another cgroup: the case proves nothing"
}

back_home() { [ "$(own_cgroup)" = 0 ] && cgroups | diff -q - "$dir/cgroups.before" >/dev/null; }

ferry_pids() { host_run A sh -c 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = ferry ] && echo ${p#/proc/}; done' | sort -n; }

case_throttle_cancelled() {
	need_cpu_cgroup
	hot_pair
	slowed_migration
	host_run A "$ferry" cancel "$pid" || fail "cannot be cancelled"
	wait $migration
	within 10 back_home || fail "still slowed down"
	untouched 10
	finish A
}

case_throttle_killed() {
	local who
	need_cpu_cgroup
	hot_pair
	for who in 1p 2p 3p 1,2p all; do
		slowed_migration
		case $who in
		all) host_run A kill -9 $(ferry_pids | sed -n 1,2p) ;;
		*) host_run A kill -9 $(ferry_pids | sed -n "$who") ;;
		esac
		[ $who != 3p ] || host_run A "$ferry" cancel "$pid"
		wait $migration
		within 15 back_home || fail "process $who of ferry was killed: the target is still slowed down"
		alive A || fail "the target is gone"
		within 10 eval '[ -z "$(ferry_pids)" ]' || fail "a process of ferry is left"
	done
	untouched 10
	finish A
}

# Without a CPU controller: it is frozen in turns, by the freezer of version 1, or of version 2 where that is not there, either.
no_controller() {
	local c
	for c; do
		host_run A awk -v c=",$c," '$0 ~ / - cgroup / && ("," $NF ",") ~ c { print $5 }' /proc/self/mountinfo | while read -r c; do
			host_run A umount -l "$c"
		done
	done
	host_run A grep -q ' - cgroup' /proc/self/mountinfo || skip "no other cgroups here"
	! host_run A awk '$0 ~ / - cgroup2 /' /proc/self/mountinfo | grep -q . || [ ! -e /sys/fs/cgroup/cgroup.controllers ] ||
		! grep -qw cpu /sys/fs/cgroup/cgroup.controllers || skip "the CPU controller is of version 2"
}
freezes() { sed -n 's/.*"event":"throttle".*"by":"\([a-z]*\)".*/\1/p' "$dir/out" | sort -u; }
case_throttle_frozen() {
	hot_pair
	no_controller cpu freezer
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure $throttle_options --manage-cgroups
	# It was looked at when it was at home again
	host_run B cat "/proc/$pid/cgroup" | diff "$dir/cgroups.before" - >"$dir/proc.diff" || fail "it has arrived in other cgroups: $(grep '^>' "$dir/proc.diff" | head -n 1)"
	[ "$(freezes)" = freezer ] || fail "slowed down by '$(freezes)'"
	[ "$(own_cgroup)" = 0 ] || fail "its cgroup is left behind"
	finish B
}

# Processes of ferry: the command, its worker, the guard, and the one that freezes. Those two alone: the worker sees to it.
case_throttle_frozen_killed() {
	local who
	hot_pair
	no_controller cpu
	for who in 4p 3,4p all; do
		slowed_migration
		[ "$(freezes)" = freezer ] || fail "slowed down by '$(freezes)'"
		case $who in
		all) host_run A kill -9 $(ferry_pids | sed -n 1,2p) ;;
		*) host_run A kill -9 $(ferry_pids | sed -n "$who") ;;
		esac
		[ $who = all ] || host_run A "$ferry" cancel "$pid"
		wait $migration
		within 30 back_home || fail "process $who of ferry was killed: the target is still slowed down"
		alive A || fail "the target is gone"
		within 30 eval '[ -z "$(ferry_pids)" ]' || fail "a process of ferry is left"
		within 30 goes_on || fail "process $who of ferry was killed: the target does not run any more"
	done
	untouched 10
	finish A
}
used() { host_run A awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$pid/stat"; }
goes_on() {
	[ -n "${used_before:-}" ] || used_before=$(used)
	[ "$(used)" -gt "$used_before" ] && used_before=
}

run_cases "stop abort other-names max-downtime max-downtime-exceeded time-limit max-rounds throttle throttle-cancelled throttle-killed throttle-frozen throttle-frozen-killed" "$@"
