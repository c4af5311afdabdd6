#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What writes to the journal (here: who listens at the same place) writes to that of the destination:   journal.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

path=/run/systemd/journal/stdout

# journal HOST: what comes is in $dir/journal.HOST
journal() {
	: >"$dir/journal.$1"
	host_run "$1" mkdir -p "${path%/*}"
	host_run "$1" "$programs/helpers/stream-sink" "$path" "$dir/journal.$1" </dev/null >"$dir/sink.$1" 2>&1 &
	within 10 host_run "$1" test -S "$path" || fail "no journal in $1: $(cat "$dir/sink.$1")"
	host_run "$1" "$programs/helpers/dgram-sink" "${path%/*}/dev-log" "$dir/log.$1" </dev/null >"$dir/sink.$1" 2>&1 &
	within 10 host_run "$1" test -S "${path%/*}/dev-log" || fail "no log in $1: $(cat "$dir/sink.$1")"
}

# has HOST LINE: the journal there has that line
has() {
	within 10 grep -qx -- "$2" "$dir/journal.$1" || fail "the journal of $1 has no line '$2' but: $(tr '\n' '|' <"$dir/journal.$1")"
}

# The journal of HOST got it on connection N: a header, and what was written after the move
went_on() {
	within 10 grep -q logged "$dir/log.$1" || fail "the log of $1 has nothing"
	has "$1" "$2 65534 after"
	[ "$(grep -c "^$2 " "$dir/journal.$1")" -ge 8 ] && [ "$(grep -m 1 "^$2 " "$dir/journal.$1")" = "$2 65534 journal" ] ||
		fail "the journal of $1 was told: $(tr '\n' '|' <"$dir/journal.$1")"
}

finish_any() {
	: >"$test/go"
	within 30 test -e "$test/result" || fail "the target never finished"
	[ "$(cat "$test/result")" = pass ] || fail "$(cat "$test/result")"
}

begin() {
	journal A
	start journal
	has A '1 65534 before'
}

peer() {
	host_up B 20000 && host_link A B || fail "no second host"
}

case_moved() {
	begin
	peer
	journal B
	start_ferryd B
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	has A '1 65534 end'
	finish_any
	went_on B 1
	grep -q after "$dir/journal.A" && fail "it still writes to the journal of A"
	return 0
}

case_restored() {
	begin
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4
	has A '1 65534 end'
	must_work "$ferry" restore -D "$dir/images" -o restore.log -v4 -d
	finish_any
	went_on A 2
}

case_none() {
	begin
	peer
	start_ferryd B
	take_snapshot proc.before
	tree=$(host_pids A)
	must_fail "pid $pid fd 3: its unix socket is connected to $path, and there is no such socket here" "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	untouched
	finish_any
	has A '1 65534 after'
}

run_cases "moved restored none" "$@"
