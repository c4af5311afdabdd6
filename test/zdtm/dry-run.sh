#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Migrations that do not take place (ferry migrate --dry-run):   dry-run.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

pair() {
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
}

dry() { "$1" ${2:+"$2"} "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --dry-run --duration 400ms --json; }

# Nothing was made at the destination, and nothing is remembered of it.
nothing_there() {
	[ "$(host_run B sh -c 'for p in /proc/[0-9]*; do cat $p/comm; done' 2>/dev/null | grep -c "^$1")" = 0 ] || fail "a process is at the destination"
	[ -z "$(host_run B sh -c 'ls /run/ferry/journal/in' 2>/dev/null)" ] || fail "the destination has a journal"
	[ -z "$(host_run A sh -c 'ls /run/ferry/journal/out' 2>/dev/null)" ] || fail "the source has a journal"
}

# number KEY: of the prediction
number() { grep '"prediction"' "$dir/out" | grep -oE "\"$1\":[0-9.]+" | cut -d: -f2; }

case_fits() {
	start mixture
	take_snapshot proc.before
	pair
	dry must_work
	untouched
	nothing_there mixture
	[ "$(number rounds)" -ge 1 ] && [ "$(number bytes)" -gt 0 ] || fail "no prediction: $(tail -n 1 "$dir/out")"
	awk -v d="$(number downtime_ms)" -v m="$(number mib_s)" 'BEGIN { exit !(d > 0 && m > 0) }' || fail "no downtime, or no speed: $(tail -n 1 "$dir/out")"
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	grep -q 'downtime .*(predicted ' "$dir/out" || fail "the summary does not set the prediction beside the outcome"
	alive B || fail "it did not arrive"
	reported
	finish B
}

# The report of what failed before, and of the move, as list, text, and pictures
reported() {
	must_fail 'no such|refused|Error' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	must_work "$ferry" report
	[ "$(wc -l <"$dir/out")" = 1 ] && grep -q ' to 192.0.2.2: moved' "$dir/out" || fail "not one report: $(cat "$dir/out")"
	local id
	id=$(cut -d ' ' -f 1 "$dir/out")
	must_work "$ferry" report "$id"
	grep -q 'downtime .*(predicted ' "$dir/out" || fail "the report is not what was said"
	must_work "$ferry" report "$id" --svg "$dir/r.svg" --html "$dir/r.html"
	[ "$(grep -c '<rect' "$dir/r.svg")" -gt 8 ] && grep -q 'downtime ' "$dir/r.svg" && grep -q '</html>' "$dir/r.html" || fail "the picture is not whole"
	must_fail 'not the id' "$ferry" report ../x
	must_fail 'No such file' "$ferry" report 20000101-000000-1
}

# What was said of one process is not said of another.
case_other_process() {
	start mixture
	pair
	dry must_work
	host_run A sh -c 'f=/run/ferry/predictions/$0; sed -i "s/\"start_time\":[0-9]*/\"start_time\":1/" $f && grep -q "\"start_time\":1[,}]" $f' "$pid" || fail "no prediction is kept"
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	! grep -q predicted "$dir/out" || fail "another process' prediction is shown"
	finish B
}

case_pid_taken() {
	start mixture
	take_snapshot proc.before
	pair
	host_run B sh -c 'echo $(($0 - 1)) >/proc/sys/kernel/ns_last_pid; sleep 1000 & echo $! >"$1"' "$pid" "$dir/taker"
	[ "$(cat "$dir/taker")" = "$pid" ] || skip "another process came first to pid $pid"
	dry must_fail "pid $pid \(.*\) is taken"
	untouched
	nothing_there mixture
	finish A
}

# The program's directory looks empty there: what it has open is missing.
case_file_missing() {
	start mixture
	take_snapshot proc.before
	pair
	host_run B mount -t tmpfs tmpfs "$test" || skip "no tmpfs there"
	dry must_fail "$test"
	untouched
	nothing_there mixture
	finish A
}

# What could not be captured is told before the destination is asked.
case_refused() {
	start tcp-established
	take_snapshot proc.before
	pair
	dry must_fail "pid $pid.*TCP"
	untouched
	finish A
}

case_nobody_there() {
	start mixture
	take_snapshot proc.before
	host_up B 20000 && host_link A B || fail "no second host"
	dry must_fail '192\.0\.2\.2.*refused'
	untouched
	must_fail 'dry-run' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --duration 1s
	untouched
	finish A
}

run_cases "fits other-process pid-taken file-missing refused nobody-there" "$@"
