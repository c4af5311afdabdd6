#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# File locks that somebody else has taken between dump and restore:   locks.sh [CASE]...
# The restore names the lock, the file and the owner, makes nothing, and works when they are free.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

dump_all() {
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4
	within 5 empty A || fail "something is left after the dump"
}

# The program keeps its files in own/; no file system of its own is needed here.
begin() {
	mkdir -p -m 777 "$dir/test.$1/own"
	start "$1"
	dump_all
}

restore_fails() {
	must_fail "$1" "$ferry" restore -D "$dir/images" -d --pidfile "$dir/pidfile"
	[ "$(host_pids A | wc -w)" = 1 ] || fail "a part of the tree is left behind: $(host_pids A | tr '\n' ' ')"
}

# holder KIND FILE: a process in host A that has locked the file; its pid in $holder
holder() {
	host_run A "$programs/helpers/lock-holder" "$1" "$2" "$dir/held" </dev/null >/dev/null 2>&1
	within 5 test -s "$dir/held" || fail "nobody has locked $2"
	read -r holder <"$dir/held"
	rm "$dir/held"
}

release() {
	host_run A kill "$holder"
	within 5 empty A || fail "the holder does not end"
}

restore_works() {
	must_work "$ferry" restore -D "$dir/images" -o restore.log -v4 -d --pidfile "$dir/pidfile"
	alive A || fail "no process $pid after the restore"
	finish A
}

case_posix_taken() {
	begin locks
	holder posix "$test/own/posix"
	restore_fails "pid $pid fd 3: its POSIX lock for (reading|writing) \(.*\) on $test/own/posix cannot be taken again: pid $holder \(lock-holder\) has locked the file here"
	release
	restore_works
}

case_ofd_taken_by_posix() {
	begin locks
	holder posix "$test/own/ofd"
	restore_fails "pid $pid fd 4: its OFD lock for .* on $test/own/ofd cannot be taken again: pid $holder \(lock-holder\)"
	release
	restore_works
}

case_flock_taken() {
	begin locks
	holder flock "$test/own/by-dead"
	restore_fails "its flock lock for writing on $test/own/by-dead cannot be taken again: pid $holder \(lock-holder\)"
	release
	restore_works
}

# A lock for reading goes together with another one.
case_shared_is_no_conflict() {
	begin locks
	holder shared "$test/own/shared"
	must_work "$ferry" restore -D "$dir/images" -o restore.log -v4 -d --pidfile "$dir/pidfile"
	release_only
	finish A
}

release_only() {
	host_run A kill "$holder"
	within 5 host_run A sh -c "! [ -e /proc/$holder ]" || fail "the holder does not end"
}

run_cases "posix_taken ofd_taken_by_posix flock_taken shared_is_no_conflict" "$@"
