#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Several migrations at once: those that wait, are listed, are cancelled:   queue.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

declare -A pids tests jobs
every="hot hot-spot mem-private"

# Three programs in host A, and a ferryd in host B with these options
three() {
	local name
	host_up B 20000 && host_link A B || fail "no second host"
	host_run B "$bin/ferryd" --insecure --listen 192.0.2.2 "$@" </dev/null >>"$dir/ferryd.out" 2>&1 &
	within 10 host_run B sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen: $(tail -n 1 "$dir/ferryd.out")"
	for name in $every; do
		start $name
		pids[$name]=$pid tests[$name]=$test
	done
}

# move NAME [OPTION]...: in the background, slowly; its events in $dir/NAME.out
move() {
	local name=$1
	shift
	: >"$dir/$name.out" # what it said the last time must not be taken for this time's
	host_run A timeout -k 2 80 "$ferry" migrate "${pids[$name]}" --to 192.0.2.2 --insecure --json --on-stall stop --compress none --max-rounds 4 "$@" >"$dir/$name.out" 2>&1 &
	jobs[$name]=$!
}
said() { grep -q "$2" "$dir/$1.out"; }
# Its place is taken until somebody says "go": it stays frozen so long. hold NAME makes the script, as options for move.
hold() {
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != network-lock ] || until [ -e %s/go.%s ]; do sleep 0.05; done\n' "$dir" "$1" >"$dir/hold.$1"
	chmod +x "$dir/hold.$1"
	echo "--action-script $dir/hold.$1"
}
go() { : >"$dir/go.$1"; }

# passes HOST NAME
passes() {
	pid=${pids[$2]} test=${tests[$2]}
	: >"$test/go"
	within 30 test -e "$test/result" || fail "$2 never finished"
	[ "$(cat "$test/result")" = pass ] || fail "$2: $(cat "$test/result")"
}
moved() {
	wait "${jobs[$1]}" || fail "$1: $(tail -n 1 "$dir/$1.out")"
	pid=${pids[$1]}
	! alive A || fail "$1 is still in A"
	passes B "$1"
}
in_status() { host_run "$1" "$ferry" status --json | grep -q "$2"; }

case_in_turn() {
	three --max-migrations 1
	move hot $(hold hot)
	within 20 said hot '"event":"round"' || fail "hot does not begin"
	move hot-spot
	within 20 said hot-spot '"event":"queued","position":1' || fail "hot-spot does not wait"
	move mem-private
	within 20 said mem-private '"event":"queued","position":2' || fail "mem-private does not wait"
	! said hot-spot '"event":"start"' || fail "hot-spot has begun"
	within 5 in_status B '"phase":"queued".*"position":2' || fail "the queue is not in the status of the destination"
	within 5 in_status A '"phase":"queued"' || fail "the queue is not in the status of the source"
	# While they wait they are not touched
	pid=${pids[mem-private]}
	[ "$(host_run A grep TracerPid "/proc/$pid/status" | tr -dc 0-9)" = 0 ] || fail "mem-private is traced while it waits"
	go hot
	moved hot
	moved hot-spot
	moved mem-private
	said mem-private '"event":"queued","position":1' || fail "its place in the queue did not change"
}

case_both_ways_listed() {
	local n
	three
	host_run A "$bin/ferryd" --insecure --listen 192.0.2.1 </dev/null >>"$dir/ferryd-a.out" 2>&1 &
	move hot $(hold hot)
	move mem-private $(hold mem-private)
	within 20 eval '[ "$(host_run A "$ferry" status --json | grep -c "\"verb\":\"migrate\".*\"uuid\"")" = 2 ]' || fail "A does not list two that leave"
	within 20 eval '[ "$(host_run B "$ferry" status --json | grep -c "\"verb\":\"receive\".*\"uuid\"")" = 2 ]' || fail "B does not list two that come"
	host_run B "$ferry" status >"$dir/table"
	[ "$(grep -c '^[0-9]* *[0-9a-f]\{8\} receive' "$dir/table")" = 2 ] || fail "the table: $(cat "$dir/table")"
	# Live: again and again, until it is told to stop
	host_run B timeout -s INT 8 "$ferry" status --watch --json >"$dir/watch"
	n=$(grep -c '"verb":"receive"' "$dir/watch")
	[ "$n" -ge 4 ] || fail "--watch showed $n lines"
	go hot
	go mem-private
	moved hot
	moved mem-private
	passes A hot-spot
}

case_full() {
	three --max-migrations 1 --max-queue 1
	move hot $(hold hot)
	within 20 said hot '"event":"round"' || fail "hot does not begin"
	move hot-spot
	within 20 said hot-spot '"event":"queued"' || fail "hot-spot does not wait"
	move mem-private
	wait "${jobs[mem-private]}" && fail "a third one was let in"
	said mem-private 'Error.*1 migrations arrive already, and 1 wait' || fail "mem-private: $(tail -n 1 "$dir/mem-private.out")"
	go hot
	moved hot
	moved hot-spot
	passes A mem-private
}

# By its id, at the source, at the destination, and while it waits; whoever waits behind it moves up
case_cancelled() {
	local id
	three --max-migrations 1
	move hot --max-bandwidth 100K
	within 20 said hot '"event":"start"' || fail "hot does not begin"
	move hot-spot
	within 20 said hot-spot '"event":"queued"' || fail "hot-spot does not wait"
	host_run A "$ferry" cancel "${pids[hot-spot]}" || fail "one that waits cannot be cancelled"
	wait "${jobs[hot-spot]}" && fail "hot-spot: success after a cancel"
	move mem-private
	within 20 said mem-private '"event":"queued","position":1' || fail "mem-private does not wait in the first place"
	id=$(grep -o '"uuid":"[^"]*"' "$dir/hot.out" | head -n 1 | cut -d '"' -f 4)
	host_run B "$ferry" cancel 00000000-0000-0000-0000-000000000000 2>"$dir/none" && fail "one that is not there was cancelled"
	grep -q 'Error: no migration' "$dir/none" || fail "$(cat "$dir/none")"
	# Eight digits are the beginning of an id, as no pid has so many
	host_run B "$ferry" cancel 12345678 2>"$dir/none" && fail "one that is not there was cancelled"
	grep -q 'Error: no migration 12345678' "$dir/none" || fail "$(cat "$dir/none")"
	host_run B "$ferry" cancel "${id:0:8}" || fail "cannot be cancelled at the destination"
	wait "${jobs[hot]}" && fail "hot: success after a cancel"
	moved mem-private
	move hot --max-bandwidth 100K
	within 20 said hot '"event":"start"' || fail "hot does not begin again"
	id=$(grep -o '"uuid":"[^"]*"' "$dir/hot.out" | head -n 1 | cut -d '"' -f 4)
	host_run A "$ferry" cancel "$id" || fail "cannot be cancelled at the source by its id"
	wait "${jobs[hot]}" && fail "hot: success after the second cancel"
	passes A hot
	passes A hot-spot
}

run_cases "in-turn both-ways-listed full cancelled" "$@"
