#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Trees in cgroups of their own (--manage-cgroups), of every hierarchy that is mounted, both versions:   cgroups.sh [CASE]...
# The groups are called ferry-cgroups-PID; the two hosts see the same ones.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

# Sets $dirs: where hierarchies are mounted, a line each. A group can be made in all of them.
find_hierarchies() {
	local list point
	dirs=
	while IFS=: read -r _ list _; do
		point=$(awk -v list="$list" '{
			type = ""; for (i = 7; i <= NF; i++) if ($i == "-") { type = $(i + 1); options = $(i + 3); break }
			n = split(list, want, ","); first = want[1]
			if ($4 == "/" && (list == "" ? type == "cgroup2" : type == "cgroup" && ("," options ",") ~ ("," first ","))) { print $5; exit }
		}' /proc/self/mountinfo)
		[ -n "$point" ] && dirs+=$point$'\n'
	done </proc/self/cgroup
	name=ferry-cgroups-$BASHPID
	trap 'host_down; within 30 clear_groups' EXIT
	[ -n "$dirs" ] || skip "no cgroups here"
}

clear_groups() {
	local d g left=0
	for d in $dirs; do
		for g in "$d/$name"*; do
			[ -d "$g" ] && find "$g" -depth -type d -exec rmdir {} \; 2>/dev/null
			[ -d "$g" ] && left=1
		done
	done
	return $left
}

# No group of that name, in any hierarchy.
no_groups() {
	local d
	for d in $dirs; do
		[ ! -d "$d/$1" ] || return 1
	done
}

put() { [ ! -e "$1" ] || echo "$2" >"$1"; }
value() { [ ! -e "$1" ] || [ "$(cat "$1")" = "$2" ] || fail "$1 is $(cat "$1"), not $2"; }

# make_groups NAME: in each hierarchy, with one below it
make_groups() {
	local d g
	for d in $dirs; do
		for g in "$d/$1" "$d/$1/below"; do
			mkdir "$g" 2>/dev/null || skip "no cgroup can be made in $d"
			[ ! -e "$g/cpuset.cpus" ] || [ -s "$g/cpuset.mems" -a -n "$(cat "$g/cpuset.mems")" ] || {
				put "$g/cpuset.cpus" "$(cat "${g%/*}/cpuset.cpus")"
				put "$g/cpuset.mems" "$(cat "${g%/*}/cpuset.mems")"
			}
		done
	done
}

# set_values NAME N: limits that tell N; every hierarchy that has one of these files
set_values() {
	local d
	for d in $dirs; do
		put "$d/$1/below/pids.max" "$((1000 + $2))"
		put "$d/$1/pids.max" "$((2000 + $2))"
		put "$d/$1/cpu.shares" "$((500 + $2))"
		put "$d/$1/cpu.weight" "$((50 + $2))"
		put "$d/$1/memory.limit_in_bytes" "$(((1000 + $2) << 20))"
		put "$d/$1/memory.max" "$(((1000 + $2) << 20))"
		put "$d/$1/below/cgroup.max.descendants" "$((10 + $2))"
	done
	return 0
}
check_values() {
	local d
	for d in $dirs; do
		value "$d/$1/below/pids.max" "$((1000 + $2))"
		value "$d/$1/pids.max" "$((2000 + $2))"
		value "$d/$1/cpu.shares" "$((500 + $2))"
		value "$d/$1/cpu.weight" "$((50 + $2))"
		value "$d/$1/memory.limit_in_bytes" "$(((1000 + $2) << 20))"
		value "$d/$1/memory.max" "$(((1000 + $2) << 20))"
		value "$d/$1/below/cgroup.max.descendants" "$((10 + $2))"
	done
}

# places HOST [NAME WANTED]: of all processes; as if NAME were WANTED
places() { host_run "$1" sh -c 'for p; do echo "$p"; cat /proc/$p/cgroup; done' sh $tree 2>&1 | sed "s,:/${2:-/}\(/\|\$\),:/${3:-}\1,"; }

# Everything of the tree in the group, but its last processes below it.
start_in_groups() {
	local d
	find_hierarchies
	make_groups "$name"
	set_values "$name" 1
	start "${1:-tree}" sh -c 'name=$1; dirs=$2; shift 2; for d in $dirs; do echo $$ >"$d/$name/cgroup.procs" || exit 1; done; exec "$@"' sh "$name" "$dirs"
	below=
	[ $(grep -c . <<<"$tree") = 1 ] || below=$(tail -n 2 <<<"$tree")
	[ -z "$below" ] || for d in $dirs; do
		host_run A sh -c 'for p; do echo $p >"$0/cgroup.procs"; done' "$d/$name/below" $below 2>>"$dir/trace"
	done
	places A >"$dir/places"
	[ "$(grep -c ":/$name\$" "$dir/places")" -ge "$(grep -c . <<<"$dirs")" ] || fail "not in the groups: $(tr '\n' ' ' <"$dir/places")"
	[ -z "$below" ] || grep -q ":/$name/below\$" "$dir/places" || fail "nothing is below: $(tr '\n' ' ' <"$dir/places")"
}

dump() {
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4 "$@"
	within 30 empty A || fail "something is left after the dump"
	within 30 clear_groups || fail "the groups of the dump are still in use"
}

# restored [NAME]: in the same places
restored() {
	places A "${1:-$name}" "$name" >"$dir/places.now"
	diff "$dir/places" "$dir/places.now" >"$dir/proc.diff" || fail "in other cgroups: $(grep '^[<>]' "$dir/proc.diff" | head -n 4 | tr '\n' ' ')"
	within 5 only_tree || fail "something else is left: $(host_pids A | tr '\n' ' ')"
}
only_tree() { [ "$(host_pids A)" = "$tree" ]; }

end_tree() {
	host_run A kill -9 $tree 2>/dev/null
	within 30 empty A || fail "the tree does not die"
}

case_modes() {
	start_in_groups
	dump --manage-cgroups
	# None there
	must_fail "cgroup .*$name is not there" "$ferry" restore -D "$dir/images" -d --manage-cgroups=none
	must_fail "cgroup .*$name is not there" "$ferry" restore -D "$dir/images" -d --manage-cgroups=props
	no_groups "$name" || fail "a group was made"
	for mode in soft strict; do
		must_work "$ferry" restore -D "$dir/images" -d --manage-cgroups=$mode
		restored
		check_values "$name" 1
		end_tree
		within 30 clear_groups || fail "the groups are still in use"
	done
	# All there, with other values
	make_groups "$name"
	set_values "$name" 2
	must_fail "cgroup .*$name.* is there already" "$ferry" restore -D "$dir/images" -d --manage-cgroups=strict
	for mode in none soft; do
		must_work "$ferry" restore -D "$dir/images" -d --manage-cgroups=$mode
		restored
		check_values "$name" 2
		end_tree
	done
	for mode in props full; do
		set_values "$name" 2
		must_work "$ferry" restore -D "$dir/images" -d --manage-cgroups=$mode
		restored
		check_values "$name" 1
		end_tree
	done
	must_work "$ferry" restore -D "$dir/images" -d
	! grep -q "$name" <<<"$(places A)" || fail "ignored, it is in the groups all the same"
	finish A
}

# The whole of it elsewhere, under groups that are not there yet.
case_root() {
	start_in_groups
	dump --manage-cgroups
	must_work "$ferry" restore -D "$dir/images" -d --cgroup-root "/$name-other/deep"
	restored "$name-other\/deep"
	check_values "$name-other/deep" 1
	no_groups "$name" || fail "the old groups were made"
	finish A
}

# A restore that fails when all is built: what was made goes, what was set is as before.
case_undone() {
	local d
	start_in_groups
	dump --manage-cgroups
	printf '#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-restore ]\n' >"$dir/refuse"
	printf '#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-restore ] || kill -9 $PPID\n' >"$dir/kill"
	chmod +x "$dir/refuse" "$dir/kill"
	must_fail 'post-restore' "$ferry" restore -D "$dir/images" -d --manage-cgroups --action-script "$dir/refuse"
	within 30 empty A || fail "something is left"
	within 30 no_groups "$name" || fail "a group is left"
	in_a "$ferry" restore -D "$dir/images" -d --manage-cgroups --action-script "$dir/kill"
	[ "$rc" != 0 ] || fail "it was not killed"
	within 30 empty A || fail "something is left after the kill"
	within 60 no_groups "$name" || fail "a group is left after the kill"
	make_groups "$name"
	set_values "$name" 2
	for d in $dirs; do
		rmdir "$d/$name/below"
	done
	must_fail 'post-restore' "$ferry" restore -D "$dir/images" -d --manage-cgroups=full --action-script "$dir/refuse"
	within 30 no_groups "$name/below" || fail "the group below is left"
	for d in $dirs; do
		value "$d/$name/pids.max" 2002
		value "$d/$name/cpu.shares" 502
		value "$d/$name/cpu.weight" 52
	done
	must_work "$ferry" restore -D "$dir/images" -d --manage-cgroups=full
	restored
	finish A
}

# Version 1 can have threads of one process in several groups.
case_threads() {
	local d tid
	start_in_groups creds-threads
	for d in $dirs; do
		[ ! -e "$d/$name/tasks" ] || break
	done
	[ -e "$d/$name/tasks" ] || skip "no hierarchy of version 1"
	tid=$(host_run A ls "/proc/$pid/task" | grep -vx "$pid" | head -n 1)
	[ -n "$tid" ] || fail "no second thread"
	host_run A sh -c 'echo "$1" >"$0/tasks"' "$d/$name/below" "$tid" || fail "the thread cannot be moved"
	take_snapshot proc.before
	mkdir "$dir/images"
	must_fail "pid $pid: its threads .* are in different cgroups" "$ferry" dump -t "$pid" -D "$dir/images" --manage-cgroups
	untouched
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -R
	finish A
}

second_host() {
	host_up B 20000 && host_link A B || fail "no second host"
	: >"$dir/ferryd.out"
}

case_migrate() {
	start_in_groups
	second_host
	start_ferryd
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --manage-cgroups --cgroup-root "/$name-there"
	places B "$name-there" "$name" >"$dir/places.now"
	diff "$dir/places" "$dir/places.now" >"$dir/proc.diff" || fail "in other cgroups: $(grep '^[<>]' "$dir/proc.diff" | head -n 4 | tr '\n' ' ')"
	check_values "$name-there" 1
	finish B
}

# What the destination cannot do is told before the first round.
refused() {
	local regex=$1
	shift
	must_fail "$regex" "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --json "$@"
	! grep -q '"event": *"round"' "$dir/out" || fail "refused after a round"
	untouched
	no_groups "$name-there" || fail "a group was made"
}
case_destination() {
	local d
	start_in_groups
	take_snapshot proc.before
	second_host
	d=$(head -n 1 <<<"$dirs")
	start_ferryd
	host_run B mount --bind -o ro "$d" "$d" || fail "cannot mount $d"
	refused "no cgroup can be made.*Read-only" --manage-cgroups --cgroup-root "/$name-there"
	dump --manage-cgroups
	host_run A umount -l "$d" || fail "cannot unmount $d"
	must_fail 'is not mounted here' "$ferry" restore -D "$dir/images" -d --manage-cgroups
	must_work "$ferry" restore -D "$dir/images" -d
	finish A
}

run_cases "modes root undone threads migrate destination" "$@"
