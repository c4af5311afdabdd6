# SPDX-License-Identifier: Apache-2.0
# The rows of run.sh about tracking and about programs that are large in one way. To be sourced by it.

# first_of NAME EVENT FILE: a number of the first event of that kind; values_of: of all, one a line
values_of() { grep -aE "\"event\": *\"$2\"" "$3" | grep -oE "\"$1\": *[0-9.e+-]+" | sed 's/.*: *//'; }
first_of() { values_of "$@" | head -n 1; }
middle() { median $(values_of "$@"); }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }
page_tables() { host_run A awk '/^VmPTE/ { print $2 }' "/proc/$pid/status"; }

# tracked BACKEND INTERVAL COUNT: follow $pid; its events in $work/track
tracked() {
	host_run A timeout -k 5 300 "$bin/ferry" track "$pid" --backend "$1" --interval "$2" --count "$3" --max-bandwidth 1G --json >"$work/track" 2>"$work/track.err" ||
		failed "ferry track --backend $1 failed: $(tail -n 1 "$work/track.err")"
}

# A sparse mapping: what arming and asking cost, in time and in page tables, beside a tracker that arms all of it.
sparse_kind() {
	local before during naive name=$1 kind=$2
	start bench-scale sparse "$kind" 10 100
	before=$(page_tables)
	tracked uffd-wp 200ms 15 &
	local job=$!
	until grep -q '"sample"' "$work/track" 2>/dev/null; do sleep 0.02; kill -0 $job 2>/dev/null || break; done
	during=$(page_tables)
	wait $job
	[[ $kind != /* ]] || kind+=.naive
	naive=$(host_run A "$programs/bench-scale" naive "$kind" 10 100)
	[ "$(field wrong "$(stat A show "$work/still")")" = 0 ] || failed "pages of a sparse mapping are damaged"
	stop A
	row "10 GiB mapping ($name) with 100 pages in it, followed: first look, further looks" \
		"$(calc '%.2f ms, %.2f ms' "$(first_of collect_ms armed "$work/track"), $(middle collect_ms sample "$work/track")")" \
		"page tables $before KiB, followed $during KiB; all of it protected by one call: $(field arm_ms "$naive") ms, page tables $(field pte_before_kib "$naive") KiB, then $(field pte_after_kib "$naive") KiB"
}

sparse() {
	: >"$work/still"
	hosts
	sparse_kind "anonymous" anon
	sparse_kind "shared memory" shmem
	sparse_kind "private, of a file" "/var/tmp/ferry-bench.$$"
	rm -f "/var/tmp/ferry-bench.$$"{,.naive}
}

whole() {
	if [ "$1" = bench-tree ]; then
		stat "$2" tree >/dev/null
	else
		[ "$(field wrong "$(stat "$2" show "$work/still")")" = 0 ]
	fi || failed "$1: not whole"
}

# cycle PROGRAM ARGS...: it is dumped and restored, then moved: sets $dump, $restore, $move (s) and $down (ms, of the move)
cycle() {
	local t0
	hosts
	start "$@"
	mkdir "$work/images"
	t0=$EPOCHREALTIME
	ferry A "$work/events" dump -t "$pid" -D "$work/images" -o dump.log "${more[@]}" || { stop A; return 1; }
	dump=$(((${EPOCHREALTIME/./} - ${t0/./}) / 1000))
	t0=$EPOCHREALTIME
	ferry A "$work/restore" restore -d -D "$work/images" -o restore.log || return 1
	restore=$(((${EPOCHREALTIME/./} - ${t0/./}) / 1000))
	rm -rf "$work/images"
	whole "$1" A
	ferry A "$work/events" migrate "$pid" --to 192.0.2.2 --insecure "${more[@]}" || { stop A; return 1; }
	move=$(done_field total_ms "$work/events")
	down=$(done_field downtime_ms "$work/events")
	whole "$1" B
	host_down
}

# large NAME SMALL-ARGS LARGE-ARGS: both in the same way; four times as much should take four times as long, not sixteen times
large() {
	local i how n=() v
	local -A ms
	for how in small large; do
		for i in $(seq $(((repeats + 1) / 2))); do
			read -ra n <<<"$([ $how = small ] && echo "$2" || echo "$3")"
			cycle "${n[@]}" || return
			for v in dump restore move down; do ms[$how$v]+=" ${!v}"; done
		done
	done
	for v in dump restore move down; do
		row "$1: $(case $v in move) echo "migrate" ;; down) echo "downtime of that" ;; *) echo $v ;; esac)" "$(median ${ms[large$v]}) ms" \
			"a quarter of it: $(median ${ms[small$v]}) ms; $(ratio "$(median ${ms[large$v]})" "$(median ${ms[small$v]})") times as long"
	done
}

vmas() {
	: >"$work/still"
	large "$large_vmas mappings" "bench-scale vmas $((large_vmas / 4))" "bench-scale vmas $large_vmas"
}

processes() { large "$large_tree processes" "bench-tree $((large_tree / 4)) 1 1" "bench-tree $large_tree 1 1"; }

descriptors() {
	: >"$work/still"
	large "$large_fds descriptors" "bench-scale descriptors $((large_fds / 4))" "bench-scale descriptors $large_fds"
}

threads() {
	: >"$work/still"
	large "$large_threads threads" "bench-scale threads $((large_threads / 4))" "bench-scale threads $large_threads"
}

hole() {
	: >"$work/still"
	large "64 GiB mapping with $large_hole MiB in it" "bench-scale hole 16 $((large_hole / 4))" "bench-scale hole 64 $large_hole"
}

# overhead_of WORDS...: a program that writes one word of each page as fast as it can; untracked, then with each backend (of
# FERRY_BENCH_BACKENDS: those that work here)
overhead_of() {
	local backend free kept faults cost words=$* how i
	how="$([[ $words == *seq* ]] && echo "in order" || echo "at random"), $([[ $words == *thp* ]] && echo "huge pages" || echo "4 KiB pages")"
	for backend in ${FERRY_BENCH_BACKENDS:-$(host_run A "$bin/ferry" check --json | sed -n 's/.*"name":"backend \([^"]*\)","there":true.*/\1/p')}; do
		clear
		local costs=() scans=() stops=()
		start bench-prog $rate_size 0 touch $words
		for i in $(seq $repeats); do
			stat A reset
			sleep $seconds
			free=$(field written_mib_s "$(stat A show "$work/still")")
			tracked "$backend" 1s $((seconds + 1)) &
			until grep -q '"armed"' "$work/track" 2>/dev/null; do sleep 0.02; kill -0 $! 2>/dev/null || break; done
			stat A reset
			wait $!
			kept=$(ratio "$(field written_mib_s "$(stat A show "$work/still")")" "$free")
			rm -f "$work/track.old" && cp "$work/track" "$work/track.old" && rm "$work/track"
			faults=$(awk -v b="$(middle reported sample "$work/track.old")" -v ms="$(middle ms sample "$work/track.old")" 'BEGIN { print b / 4096 / ms * 1000 }')
			cost=$(awk -v k="$kept" -v f="$faults" 'BEGIN { if (f > 0 && k < 1) printf "%.0f", (1 - k) / f * 1e9; else print 0 }')
			extra+=("$kept") costs+=("$cost")
			scans+=("$(calc '%.2f' "$(middle collect_ms sample "$work/track.old") / $rate_size * 1024")")
			stops+=("$(middle stopped_ms sample "$work/track.old")")
		done
		stop A
		row "$rate_size MiB written as fast as possible $how, looked at twice a second by $backend: rate kept" "$(median "${extra[@]}")" \
			"untracked $(calc '%.1f' "$free * 256 / 1e6") million pages/s$([ "$backend" = rescan ] || echo "; $(calc '%.0f' "$faults") first writes/s at $(median "${costs[@]}") ns each"); a look takes $(median "${scans[@]}") ms per GiB$(
				[ "$(calc '%d' "$(median "${stops[@]}")")" = 0 ] || echo ", the program stopped for $(median "${stops[@]}") ms a second")"
	done
}

overhead() {
	: >"$work/still"
	hosts
	overhead_of seq
	overhead_of
	overhead_of seq thp
	overhead_of thp
}
