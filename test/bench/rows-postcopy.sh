# SPDX-License-Identifier: Apache-2.0
# The row of run.sh about programs that start before their memory is there. To be sourced by it.

# The last event "fetch" of a file that has all its numbers.
last_fetch() { grep -aE '"event": *"fetch"' "$2" | grep -a '"p50_us"' | tail -n 1 | grep -oE "\"$1\": *[0-9.e+-]+" | sed 's/.*: *//'; }

# Nothing is tracked, so that after one round everything is missing again at the destination; pages are rewritten at random.
postcopy() {
	local p50=() p99=() longest=() ran=() faults=() left=() seconds_all=()
	clear
	for _ in $(seq $repeats); do
		hosts
		start bench-prog $small 50
		watch
		stat A reset
		ferry A "$work/events" migrate "$pid" --to 192.0.2.2 --insecure --backend none --post-copy 1 "${more[@]}" || { stop A; return; }
		sleep 0.3
		seen B
		ran+=("$(first_of downtime_ms running "$work/events")")
		left+=("$(first_of left running "$work/events")")
		p50+=("$(last_fetch p50_us "$work/events")")
		p99+=("$(last_fetch p99_us "$work/events")")
		longest+=("$(last_fetch max_us "$work/events")")
		faults+=("$(last_fetch faults "$work/events")")
		seconds_all+=("$(done_field total_ms "$work/events")")
		stop B
	done
	row "post-copy of $small MiB, 50 MiB/s rewritten, all of it missing at the start: runs after the freeze within" "$(median "${ran[@]}") ms" \
		"$(median "${left[@]}") pages were missing; goal: 50 ms; longest gap $(highest "${gaps[@]}") ms, $(median "${seconds_all[@]}") ms in all"
	row "the same: median fault" "$(median "${p50[@]}") us" \
		"p99 $(median "${p99[@]}") us, longest $(highest "${longest[@]}") us, $(median "${faults[@]}") faults; goal: 200 us"
}
