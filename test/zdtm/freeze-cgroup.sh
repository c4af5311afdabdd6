#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Dumps of a tree that is stopped by its cgroup (--freeze-cgroup), both versions of the freezer:   freeze-cgroup.sh [CASE]...
# Whatever happens, also kill -9 at any moment (FERRY_KILL_POINTS of them, default 9, for the command and its worker), the cgroup is
# afterwards as it was: thawed with the target running, or frozen where it was frozen before.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"
points=${FERRY_KILL_POINTS:-9}

# group VERSION: a cgroup of its own that can freeze, visible in host A; sets $group
group() {
	host_run A mkdir -p /run/cgroup
	case $1 in
	1) host_run A mount -t cgroup -o freezer freezer /run/cgroup 2>/dev/null ;;
	2) host_run A mount -t cgroup2 cgroup2 /run/cgroup 2>/dev/null ;;
	esac || skip "no freezer of version $1 here"
	group=/run/cgroup/ferry-test-$$-${dir##*/}
	host_run A mkdir "$group" || fail "cannot make a cgroup"
	version=$1
	trap 'leave_group; host_down' EXIT
}

leave_group() {
	local p
	set_frozen 0
	host_run A sh -c 'for p in $(cat "$0/cgroup.procs"); do kill -9 $p; done' "$group" 2>/dev/null
	within 5 host_run A rmdir "$group" 2>/dev/null
}

set_frozen() {
	case $version$1 in
	10) host_run A sh -c 'echo THAWED >"$0/freezer.state"' "$group" ;;
	11) host_run A sh -c 'echo FROZEN >"$0/freezer.state"' "$group" ;;
	2?) host_run A sh -c 'echo "$1" >"$0/cgroup.freeze"' "$group" "$1" ;;
	esac
}

is_frozen() {
	case $version in
	1) host_run A grep -q FROZEN "$group/freezer.state" ;;
	2) host_run A grep -q '^frozen 1' "$group/cgroup.events" ;;
	esac
}

is_thawed() {
	case $version in
	1) host_run A grep -q THAWED "$group/freezer.state" ;;
	2) host_run A grep -q '^0' "$group/cgroup.freeze" && host_run A grep -q '^frozen 0' "$group/cgroup.events" ;;
	esac
}

# start_in NAME: a test program of which everything is in the cgroup
start_in() {
	start "$1" sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group"
	take_snapshot proc.before
	take_snapshot proc.before-r -r
	[ -n "$(host_run A cat "$group/cgroup.procs")" ] || fail "nothing is in the cgroup: the case proves nothing"
}

switches() { host_run A sh -c 'cat /proc/$0/task/*/status' "$pid" | awk '/ctxt/ { n += $2 } END { print n }'; }
switched() { [ "$(switches)" -gt "$seen" ]; }

runs_as_before() {
	within 10 is_thawed || fail "$1: the cgroup is still frozen"
	untouched 10
	seen=$(switches)
	within 5 switched || fail "$1: the target does not run any more"
}

fresh_images() {
	rm -rf "$dir/images"
	mkdir "$dir/images"
}

leave_running() {
	group "$1"
	start_in mixture
	for _ in 1 2 3; do
		fresh_images
		must_work "$ferry" dump -t "$pid" -D "$dir/images" -R --freeze-cgroup "$group" -o dump.log -v4
		runs_as_before "dump"
	done
	finish A
}

dump_and_restore() {
	group "$1"
	start_in mixture
	fresh_images
	must_work "$ferry" dump -t "$pid" -D "$dir/images" --freeze-cgroup "$group" -o dump.log -v4
	within 5 empty A || fail "something is left after the dump"
	is_thawed || fail "the cgroup is still frozen"
	must_work "$ferry" restore -D "$dir/images" -d
	same_as_before -r proc.now A any || fail "the target is not as it was: $(grep -m 2 '^[-+][^-+]' "$dir/proc.diff" | tr '\n' ' ')"
	finish A
}

# Frozen by its owner before we come: dumped as it stands, and left so.
frozen_before() {
	group "$1"
	start_in mixture
	set_frozen 1
	within 5 is_frozen || fail "the cgroup does not freeze"
	seen=$(switches)
	fresh_images
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -R --freeze-cgroup "$group" -o dump.log -v4
	within 5 is_frozen || fail "the cgroup is no longer frozen"
	set_frozen 0
	runs_as_before "dump of a frozen tree"
	set_frozen 1
	within 5 is_frozen || fail "the cgroup does not freeze"
	fresh_images
	must_work "$ferry" dump -t "$pid" -D "$dir/images" --freeze-cgroup "$group" -o dump.log -v4
	set_frozen 0
	within 5 empty A || fail "something is left after the dump"
	must_work "$ferry" restore -D "$dir/images" -d
	finish A
}

# killed US MEMBER WHAT: sets $said
killed() {
	fresh_images
	said=$(host_run A "$programs/helpers/kill-after" "$1" "$2" "$ferry" dump -t "$pid" -D "$dir/images" -R --freeze-cgroup "$group" 2>"$dir/out" </dev/null)
	note "after $1 us, member $2: $said"
	case $said in
	killed*) kills=$((kills + 1)) ;;
	ended*) ;;
	*) fail "after $1 us, member $2: ferry $said" ;;
	esac
}

kill_points() {
	local took kills=0 member i us
	group "$1"
	start_in mixture
	[ "$2" = running ] || set_frozen 1
	fresh_images
	took=$EPOCHREALTIME
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -R --freeze-cgroup "$group"
	took=$((${EPOCHREALTIME/./} - ${took/./}))
	for member in 0 1; do
		for i in $(seq 0 $((points - 1))); do
			us=$((took * i / points))
			killed $us $member
			if [ "$2" = running ]; then
				runs_as_before "member $member killed after $us us ($said)"
			else
				within 10 is_frozen || fail "member $member killed after $us us ($said): the cgroup is no longer frozen"
			fi
		done
	done
	set_frozen 0
	runs_as_before "after all"
	echo "$kills kills within $((took / 1000)) ms" >"$dir/summary"
	finish A
}

case_v1_leave_running() { leave_running 1; }
case_v2_leave_running() { leave_running 2; }
case_v1_dump() { dump_and_restore 1; }
case_v2_dump() { dump_and_restore 2; }
case_v1_frozen_before() { frozen_before 1; }
case_v2_frozen_before() { frozen_before 2; }
case_v1_killed() { kill_points 1 running; }
case_v2_killed() { kill_points 2 running; }
case_v1_killed_frozen_before() { kill_points 1 frozen; }
case_v2_killed_frozen_before() { kill_points 2 frozen; }

case_no_cgroup() {
	start mixture
	take_snapshot proc.before
	mkdir "$dir/images"
	must_fail 'not a cgroup' "$ferry" dump -t "$pid" -D "$dir/images" --freeze-cgroup /tmp
	must_fail 'not-there' "$ferry" dump -t "$pid" -D "$dir/images" --freeze-cgroup /run/not-there
	untouched
	finish A
}

run_cases "v1-leave-running v2-leave-running v1-dump v2-dump v1-frozen-before v2-frozen-before v1-killed v2-killed v1-killed-frozen-before
	v2-killed-frozen-before no-cgroup" "$@"
