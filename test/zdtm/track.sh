#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ferry track:   track.sh [CASE]...
# It must see what a program writes, follow new processes and programs, and leave the target as it was, however it ends.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"
points=${FERRY_KILL_POINTS:-9}

# samples MEMBER: its values, one a line, of $dir/out
samples() { grep -a '"event":"sample"' "$dir/out" | grep -oE "\"$1\":[^,}]*" | cut -d: -f2; }
last() { grep -a "\"event\":\"$1\"" "$dir/out" | tail -n 1 | grep -oE "\"$2\":[^,}]*" | head -n 1 | cut -d: -f2; }
highest() { sort -g | tail -n 1; }

start_seen() {
	start "$1"
	take_snapshot proc.before
}

# in_background CMD...: a job of the case; sets $job
in_background() {
	note "$* &"
	: >"$dir/out" # not what the last one said
	host_run A timeout -k 2 90 "$@" >"$dir/out" 2>&1 </dev/null &
	job=$!
	within 20 grep -aq '"event":"sample"' "$dir/out" || fail "no sample came: $(tail -n 1 "$dir/out")"
}

signal_ferry() { host_run A sh -c 'for p in /proc/[0-9]*; do tr "\0" " " <$p/cmdline 2>/dev/null | grep -q "^[^ ]*ferry track" && kill -$0 ${p#/proc/} && exit 0; done; exit 1' "$1"; }

ended_well() {
	wait $job
	rc=$?
	[ $rc = 0 ] || fail "track ended with $rc: $(tail -n 1 "$dir/out")"
	[ "$(last done verb)" = '"track"' ] || fail "the last event is not done: $(tail -n 1 "$dir/out")"
}

case_writer() {
	start_seen mem-writer
	must_work "$ferry" track "$pid" --interval 200ms --count 5 --json --svg "$dir/plot.svg"
	[ "$(samples n | tail -n 1)" = 5 ] || fail "$(samples n | tail -n 1) samples instead of 5"
	[ "$(samples dirty | highest)" -gt 0 ] || fail "nothing was written, it says"
	[ "$(last done working_set)" -le "$(last done memory)" ] || fail "the working set is larger than the memory"
	[ "$(last sample bandwidth)" = '"measured"' ] || fail "the bandwidth is not measured"
	[ "$(samples rounds | highest)" -ge 2 ] || fail "no rounds are predicted"
	grep -q '<svg ' "$dir/plot.svg" && grep -q '</svg>' "$dir/plot.svg" && grep -q "mem-writer (pid $pid)" "$dir/plot.svg" || fail "no plot was drawn"
	[ ! -e "$dir/plot.svg.part" ] || fail "a part of the plot is left"
	if command -v xmllint >/dev/null; then
		xmllint --noout "$dir/plot.svg" || fail "the plot is not well-formed"
	fi
	untouched
	finish A
}

# What stands still is not written; what is given is taken.
case_idle() {
	start_seen mem-private
	must_work "$ferry" track "$pid" --interval 100ms --count 3 --json --max-bandwidth 100M
	[ "$(samples memory | highest)" -gt 1000000 ] || fail "it sees only $(samples memory | highest) bytes"
	[ "$(samples dirty | highest)" -lt 200000 ] || fail "$(samples dirty | highest) bytes are written, it says"
	[ "$(last sample bandwidth)" = '"given"' ] && [ "$(last sample mib_s)" = 100.0 ] || fail "the bandwidth given was not taken"
	[ "$(samples converges | sort -u)" = true ] || fail "a migration of an idle program would not converge, it says"
	must_work "$ferry" track "$pid" --interval 100ms --duration 300ms
	grep -q 'working set' "$dir/out" || fail "nothing is shown: $(head -n 3 "$dir/out")"
	untouched
	finish A
}

case_every_backend() {
	local name
	start_seen mem-writer
	host_run A "$ferry" check --json >"$dir/check"
	for name in $(sed -n 's/.*"name":"backend \([^"]*\)","there":true.*/\1/p' "$dir/check"); do
		must_work "$ferry" track "$pid" --interval 200ms --count 3 --json --backend "$name"
		[ "$(last start backend)" = "\"$name\"" ] || fail "not $name was used but $(last start backend)"
		[ "$(samples dirty | highest)" -gt 0 ] || fail "$name: nothing was written, it says"
		untouched
		echo -n "$name " >>"$dir/summary"
	done
	must_fail 'needs a backend' "$ferry" track "$pid" --backend none
	must_fail 'not-there' "$ferry" track "$pid" --backend not-there
	finish A
}

# Processes and programs come and go; each is followed.
case_forks() {
	start forks
	in_a "$ferry" track "$pid" --interval 100ms --count 8 --json
	[ $rc = 0 ] || fail "track failed: $(tail -n 1 "$dir/out")"
	alive A || fail "the target is gone"
	finish A
}

case_execs() {
	start execs
	in_a "$ferry" track "$pid" --interval 100ms --count 8 --json
	[ $rc = 0 ] || fail "track failed: $(tail -n 1 "$dir/out")"
	alive A || fail "the target is gone"
	finish A
}

# What grows is followed, too, and not left for the frozen pass.
case_grows() {
	local how
	for how in mremap brk maps stack; do
		: >"$dir/grows"
		host_run A setsid "$programs/helpers/grows" $how >"$dir/grows" 2>&1 </dev/null &
		within 10 grep -q ready "$dir/grows" || fail "$how: never ready"
		pid=$(host_pids A | head -n 1)
		must_work "$ferry" track "$pid" --interval 100ms --count 8 --json --max-bandwidth 1G
		[ "$(samples dirty | highest)" -gt 2000000 ] || fail "$how: it does not see that memory grows: $(samples dirty | tr '\n' ' ')"
		# A piece that grew just while it was looked at is taken up by the next look: missing for ever it must not be.
		[ "$(samples untracked | sort -n | head -n 5 | tail -n 1)" -lt 1000000 ] || fail "$how: bytes that are not followed: $(samples untracked | tr '\n' ' ')"
		host_run A kill -9 "$pid"
		within 5 empty A || fail "$how: something is left"
	done
}

# Near the limit of mappings (here a low one) nothing new is tracked: the program must not run into it for our sake.
case_map_limit() {
	local after
	echo 2100 >"$dir/limit"
	host_run A mount --bind "$dir/limit" /proc/sys/vm/max_map_count || skip "cannot stand in for max_map_count"
	host_run A setsid "$programs/helpers/grows" brk >"$dir/grows" 2>&1 </dev/null &
	within 10 grep -q ready "$dir/grows" || fail "never ready"
	pid=$(host_pids A | head -n 1)
	must_work "$ferry" track "$pid" --interval 60ms --count 60 --json --max-bandwidth 1G
	after=$(samples vmas | highest)
	[ "$after" -le 56 ] || fail "$after mappings, where 52 are the limit"
	[ "$(samples untracked | highest)" -gt 1000000 ] || fail "all of it was tracked: the case proves nothing"
	host_run A kill -9 "$pid"
	within 5 empty A || fail "something is left"
}

case_shared() {
	start_seen mem-shared
	must_work "$ferry" track "$pid" --interval 100ms --count 4 --json
	[ "$(samples memory | highest)" -gt 1000000 ] || fail "it sees only $(samples memory | highest) bytes"
	untouched
	finish A
}

# What cannot be moved can be watched.
case_immovable() {
	start_seen outside-pipe
	in_a "$ferry" track "$pid" --interval 100ms --count 2 --json
	[ $rc = 0 ] || fail "track failed: $(tail -n 1 "$dir/out")"
	grep -qa 'could not be moved' "$dir/out" || fail "it does not say that it could not be moved"
	untouched
}

case_interrupted() {
	local sig
	start_seen mixture
	for sig in INT TERM HUP; do
		in_background "$ferry" track "$pid" --interval 100ms --json --svg "$dir/plot.svg"
		signal_ferry $sig || fail "no ferry to interrupt"
		ended_well
		grep -q '</svg>' "$dir/plot.svg" || fail "no plot after SIG$sig"
		rm "$dir/plot.svg"
		untouched
	done
	# A long interval is not waited for.
	note "a long interval"
	: >"$dir/out"
	host_run A timeout -k 2 90 "$ferry" track "$pid" --interval 1h --json >"$dir/out" 2>&1 </dev/null &
	job=$!
	within 20 grep -aq '"event":"start"' "$dir/out" || fail "never started"
	sleep 0.5
	signal_ferry INT || fail "no ferry to interrupt"
	ended_well
	untouched
	finish A
}

case_reader_gone() {
	start_seen mixture
	note "track | head"
	host_run A timeout -k 2 60 sh -c '"$0" track "$1" --interval 50ms --json | head -n 2' "$ferry" "$pid" >"$dir/out" 2>&1
	rc=$?
	[ $rc = 0 ] && [ "$(wc -l <"$dir/out")" = 2 ] || fail "exit code $rc, $(wc -l <"$dir/out") lines"
	untouched
	finish A
}

case_target_ends() {
	start_seen mem-writer
	in_background "$ferry" track "$pid" --interval 100ms --json
	host_run A kill -9 "$pid"
	ended_well
	[ "$(last done ended)" = true ] || fail "it does not say that the target has ended"
	within 5 empty A || fail "something is left: $(host_pids A | tr '\n' ' ')"
}

case_one_at_a_time() {
	start_seen mixture
	mkdir "$dir/images"
	in_background "$ferry" track "$pid" --interval 100ms --json
	job_out=$dir/out
	cp "$dir/out" "$dir/out.track"
	host_run A timeout 60 "$ferry" dump -t "$pid" -D "$dir/images" >"$dir/out.dump" 2>&1 && fail "a dump went on beside it"
	grep -q 'busy.*track' "$dir/out.dump" || fail "the dump does not say why: $(cat "$dir/out.dump")"
	host_run A "$ferry" status --json | grep -q '"verb":"track"' || host_run A "$ferry" status --json | grep -q '"verb": "track"' || fail "status does not know of it"
	host_run A "$ferry" cancel "$pid" >/dev/null || fail "it cannot be cancelled"
	ended_well
	untouched
	must_work "$ferry" pre-dump -t "$pid" -D "$dir/images"
	must_fail 'pre-dump chain' "$ferry" track "$pid" --count 1
	must_work "$ferry" cancel "$pid"
	untouched 10
	must_work "$ferry" track "$pid" --interval 100ms --count 1
	untouched
	finish A
}

case_bad_options() {
	start_seen empty
	must_fail '4242' "$ferry" track 4242 --count 1
	must_fail 'process id' "$ferry" track
	must_fail 'interval' "$ferry" track "$pid" --interval 1ms
	must_fail 'interval' "$ferry" track "$pid" --interval soon
	must_fail 'count' "$ferry" track "$pid" --count 0
	must_fail 'not-there' "$ferry" track "$pid" --count 1 --svg "$dir/not-there/plot.svg"
	must_fail 'ancestor|parent' sh -c '"$0" track $$ --count 1; exit $?' "$ferry"
	untouched
	finish A
}

case_killed() {
	local took kills=0 member i us said
	start_seen mixture
	took=$EPOCHREALTIME
	must_work "$ferry" track "$pid" --interval 100ms --count 4 --max-bandwidth 100M
	took=$((${EPOCHREALTIME/./} - ${took/./}))
	for member in 0 1; do
		for i in $(seq 0 $((points - 1))); do
			us=$((took * i / points))
			said=$(host_run A "$programs/helpers/kill-after" "$us" "$member" "$ferry" track "$pid" --interval 100ms --count 4 --max-bandwidth 100M 2>"$dir/out" </dev/null | tail -n 1)
			note "after $us us, member $member: $said"
			case $said in killed*) kills=$((kills + 1)) ;; esac
			untouched 10
		done
	done
	echo "$kills kills within $((took / 1000)) ms" >"$dir/summary"
	finish A
}

run_cases "writer idle every-backend forks execs grows map-limit shared immovable interrupted reader-gone target-ends one-at-a-time bad-options killed" "$@"
