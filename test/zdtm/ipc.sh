#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Semaphores and message queues that are in the way, or still there:   ipc.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

two_hosts() {
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
}

sets() { host_run "$1" ipcs "$2" | grep -c '^0x'; }

# The ids at the destination are taken: said in the first round, with the target running.
case_taken() {
	two_hosts
	start sysv-sem
	take_snapshot proc.before
	host_run B ipcmk -S 1 >/dev/null || fail "ipcmk"
	must_fail 'semaphore set id [0-9]+ is taken here by another set \(key 0x[0-9a-f]+, 1 semaphores; ipcrm -s' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	untouched
	[ "$(sets B -s)" = 1 ] || fail "there are $(sets B -s) sets at the destination, not 1"
	finish A
}

case_taken_key() {
	two_hosts
	start sysv-msg
	take_snapshot proc.before
	# Others have the lower numbers, so that only the key is in the way.
	host_run B sh -c 'for i in 1 2 3 4 5; do ipcmk -Q; done' >"$dir/made" || fail "ipcmk"
	host_run B python3 -c 'import ctypes; exit(ctypes.CDLL(None).msgget(0x5eed0012, 0o1600) < 0)' || skip "needs python3"
	host_run B sh -c 'for i in 0 1 2 3 4; do ipcrm -q $i; done' || fail "ipcrm"
	must_fail 'message queue key 0x5eed0012 is taken here by queue 5 \(ipcrm -q 5 removes it\)' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	untouched
	[ "$(sets B -q)" = 1 ] || fail "there are $(sets B -q) queues at the destination, not 1"
	finish A
}

case_taken_name() {
	two_hosts
	start mqueue
	take_snapshot proc.before
	mkdir "$dir/mqueue"
	host_run B sh -c 'mount -t mqueue none "$0" && : >"$0/$1"' "$dir/mqueue" "ferry-test-0-$pid" || fail "no queue can be made"
	must_fail "there is another POSIX message queue /ferry-test-0-$pid here" "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	untouched
	[ "$(host_run B ls "$dir/mqueue")" = "ferry-test-0-$pid" ] || fail "at the destination are $(host_run B ls "$dir/mqueue" | tr '\n' ' ')"
	finish A
}

# What a dump has left behind is used again, twice: with the values that were captured.
case_again() {
	start sysv-sem
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4
	[ "$(sets A -s)" = 2 ] || fail "there are $(sets A -s) sets after the dump, not 2"
	must_work "$ferry" restore -d -D "$dir/images" -o restore.log -v4
	host_run A kill -KILL "$pid" $(host_pids A)
	within 5 empty A || fail "something is left after the kill"
	must_work "$ferry" restore -d -D "$dir/images" -o restore.log -v4
	finish A
}

run_cases "taken taken-key taken-name again" "$@"
