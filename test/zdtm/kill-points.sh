#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of ferry at many moments:   kill-points.sh [CASE]...
# A run that is not disturbed is timed; then ferry is killed after increasing delays from 0 to that time, once the command itself and once
# each process that works for it. After each kill the target must be there as /proc showed it before, with nothing left in or around it; or the
# verb was already through, and its result must be whole. FERRY_KILL_POINTS (default 14) moments are tried for each.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"
points=${FERRY_KILL_POINTS:-14}
members="0 1 2" # the command, its worker, and who is to clean up after that

now_us() { echo "${EPOCHREALTIME/./}"; }

# killed US MEMBER CMD...: sets $said ("killed NAME, status N" or "ended, status N")
killed() {
	local us=$1 member=$2
	shift 2
	said=$(host_run A "$programs/helpers/kill-after" "$us" "$member" "$@" 2>"$dir/out" </dev/null)
	note "after $us us, member $member: $said"
	case $said in
	killed*) kills=$((kills + 1)) ;;
	ended*) ;;
	*) fail "after $us us, member $member: ferry $said" ;;
	esac
	where="member $member killed after $us us ($said)"
}

# Calls "at_point US MEMBER" for all moments; $took is the time of a whole run.
all_points() {
	local member i
	for member in $members; do
		for i in $(seq 0 $((points - 1))); do
			at_point $((took * i / points)) "$member"
		done
	done
	echo "$kills kills within $((took / 1000)) ms" >"$dir/summary"
}

fresh_images() {
	rm -rf "$dir/images"
	mkdir "$dir/images"
}

# The target in host A is as it was before, within some seconds: whoever has to clean up may need a moment.
as_before() {
	alive A || fail "$where: the target is gone"
	within 10 same_as_before "" || {
		host_run A ps -eo pid,ppid,stat,args >"$dir/ps.out"
		fail "$where: the target is not as it was: $(grep -m 2 '^[-+][^-+]' "$dir/proc.diff" | cut -c 1-160 | tr '\n' ' ')"
	}
	still_working
}

# Frozen tasks look like sleeping ones in many ways: see it work.
still_working() {
	seen=$(switches)
	within 5 switched || fail "$where: the target does not run any more"
}

switches() { host_run A sh -c 'cat /proc/$0/task/*/status' "$pid" | awk '/ctxt/ { n += $2 } END { print n }'; }

switched() { [ "$(switches)" -gt "$seen" ]; }

# leave_running PROGRAM
leave_running() {
	local kills=0 took
	start "$1"
	take_snapshot proc.before
	fresh_images
	took=$(now_us)
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -R
	took=$(($(now_us) - took))
	untouched
	at_point() {
		fresh_images
		killed "$1" "$2" "$ferry" dump -t "$pid" -D "$dir/images" -R
		as_before
	}
	all_points
	finish A
}
case_dump_leave_running() { leave_running mixture; }

# A filter that kills for any call of ours: it is suspended only as long as somebody traces the thread.
case_dump_seccomp() { leave_running seccomp-kill; }

# A dump that ends its target: it is there as before, or gone and then the image is whole.
case_dump() {
	local kills=0 took gone=0
	start mixture
	take_snapshot proc.before-r -r
	fresh_images
	took=$(now_us)
	must_work "$ferry" dump -t "$pid" -D "$dir/images"
	took=$(($(now_us) - took))
	must_work "$ferry" restore -D "$dir/images" -d
	take_snapshot proc.before
	at_point() {
		fresh_images
		killed "$1" "$2" "$ferry" dump -t "$pid" -D "$dir/images" -v4 -o dump.log
		case $said in
		*"status 0")
			within 5 empty A || fail "$where: the dump succeeded, but something is left"
			;;
		*)
			within 10 settled || fail "$where: the tree is neither whole nor gone: $(host_pids A | tr '\n' ' ')"
			;;
		esac
		if empty A; then
			gone=$((gone + 1))
			must_work "$ferry" restore -D "$dir/images" -d -o restore.log -v4
			same_as_before -r proc.now A any || fail "$where: restored, but not as it was: $(grep -m 2 '^[-+][^-+]' "$dir/proc.diff" | tr '\n' ' ')"
			take_snapshot proc.before
		else
			as_before
		fi
	}
	all_points
	echo "$(cat "$dir/summary"), $gone times the dump was already whole" >"$dir/summary"
	finish A
}

settled() { empty A || [ "$(host_pids A)" = "$tree" ]; }

# Two pre-dumps and a dump, each killed at all its moments; the tracking in between belongs to a keeper.
case_pre_dump() {
	local kills=0 took
	start mixture
	take_snapshot proc.before
	fresh_images
	took=$(now_us)
	must_work "$ferry" pre-dump -t "$pid" -D "$dir/images" --track-mem
	took=$(($(now_us) - took))
	stop_keepers
	untouched
	at_point() {
		fresh_images
		killed "$1" "$2" "$ferry" pre-dump -t "$pid" -D "$dir/images" --track-mem
		stop_keepers
		as_before
	}
	all_points
	finish A
}

# It must not matter to the target when a keeper is killed: one of its processes, upon which the other ends. (Both in one moment are more
# than can be made good: docs/architecture.md.)
stop_keepers() {
	local p
	p=$(keepers | head -n 1)
	[ -z "$p" ] || { note "kill keeper $p"; host_run A kill -9 "$p" 2>/dev/null; }
	within 10 no_keepers || fail "$where: a keeper is left: $(keepers | tr '\n' ' ')"
}
keepers() { host_pids A | grep -vxF "$tree"; }
no_keepers() { [ -z "$(keepers)" ]; }

# The source of a migration dies: one running copy, at the source as before, or at the destination whole. (With pages left behind there are
# two for a while, one of them stopped: postcopy.sh and test/faults.)
case_migrate() {
	local kills=0 took arrived=0
	pair_up
	took=$(now_us)
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --on-stall stop
	took=$(($(now_us) - took))
	finish B
	host_down
	pair_up
	at_point() {
		killed "$1" "$2" "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --on-stall stop -v4 -o "$dir/migrate.log"
		within 20 one_copy || fail "$where: not one running copy: $(alive A && echo 'in A') $(alive B && echo 'in B')"
		if alive B; then
			arrived=$((arrived + 1))
			within 5 empty A || fail "$where: the target has moved, but something is left at the source"
			same_as_before -r proc.now B any || fail "$where: arrived, but not as it was: $(grep -m 2 '^[-+][^-+]' "$dir/proc.diff" | tr '\n' ' ')"
			finish B
			host_down
			pair_up
		else
			as_before
			within 5 no_skeleton || fail "$where: a skeleton is left at the destination"
		fi
	}
	all_points
	echo "$(cat "$dir/summary"), arrived $arrived times" >"$dir/summary"
	finish A
}

no_skeleton() { ! host_run B test -d "/proc/$pid"; }

pair_up() {
	[ -n "${HOST_INIT[A]-}" ] || host_up A 1000 || fail "no host"
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	rm -rf "$dir"/test.*
	start mixture
	take_snapshot proc.before
	take_snapshot proc.before-r -r
}

one_copy() {
	sleep 0.2
	if alive A; then
		! alive B && same_as_before ""
	else
		alive B
	fi
}

# dump-seccomp by name only: it is not always green (docs/limits.md).
run_cases "dump-leave-running dump pre-dump migrate" "$@"
