#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Measures ferry and prints a table (markdown).
#   run.sh [-q] [-o FILE] [-r REPEATS] [ROW...]
# -q: small sizes, once, to see that it works; -o: write the page there too, e.g. docs/benchmarks.md.
# ROW: quiet migrate shared leave full rate tree forked sparse vmas processes descriptors threads hole overhead postcopy tcp (default: all).
# FERRY_BIN_DIR (build/bin): ferry and ferryd; the programs under test are beside it in bench/. TMPDIR (default: a tmpfs of its own)
# holds the images, so that the speed of a disk does not come in. FERRY_OPTS: more options for dump, pre-dump and migrate.
set -u
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
bin=${FERRY_BIN_DIR:-$top/build/bin}
programs=$bin/../bench
small=1024 big=4096 rate_size=512 repeats=5 seconds=3 output= large_vmas=60000 large_tree=500 large_fds=19896 large_threads=1000 large_hole=1024 forked_size=500
rows=()
read -ra more <<<"${FERRY_OPTS-}"

while [ $# -gt 0 ]; do
	case $1 in
	-q) small=128 big=512 rate_size=128 repeats=1 seconds=1 large_vmas=8000 large_tree=100 large_fds=4000 large_threads=200 large_hole=256 forked_size=64 ;;
	-o) output=$2 && shift ;;
	-r) repeats=$2 && shift ;;
	-*) sed -n '4,8s/^# \{0,1\}//p' "$0" && exit 2 ;;
	*) rows+=("$1") ;;
	esac
	shift
done
[ ${#rows[@]} -gt 0 ] || rows=(quiet migrate shared leave full rate tree forked sparse vmas processes descriptors threads hole overhead postcopy tcp)
[ "$(id -u)" = 0 ] || { echo "run.sh: needs root" >&2; exit 77; }
for program in "$bin/ferry" "$bin/ferryd" "$programs/bench-prog" "$programs/bench-stat" "$programs/bench-tree" "$programs/bench-forked" "$programs/bench-witness" "$programs/bench-scale" "$programs/bench-asker"; do
	[ -x "$program" ] || { echo "run.sh: no $program" >&2; exit 2; }
done
. "$top/test/zdtm/hosts.sh"
. "$here/rows-tracking.sh"
. "$here/rows-sharing.sh"
. "$here/rows-postcopy.sh"
. "$here/rows-tcp.sh"

# What this shell has inherited must not be inherited by what is moved: its other end would be left behind.
for fd in /proc/$$/fd/*; do
	fd=${fd##*/}
	case $fd in [012] | 255) ;; *) eval "exec $fd>&-" ;; esac
done
# Hosts have a /dev/shm of their own each.
work=$(mktemp -d "${TMPDIR:-/tmp}/ferry-bench.XXXXXX")
[ -n "${TMPDIR-}" ] || mount -t tmpfs -o mode=700 tmpfs "$work" || exit 1
fs=$(command stat -f -c 'a %T' "$work")
finish() {
	trap - EXIT INT TERM
	host_down
	[ -n "${TMPDIR-}" ] || umount -l "$work"
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

note() { printf '%s\n' "$*" >&2; }
# The name=value of a line of bench-stat.
field() { sed -nE "s/.*(^| )$1=([0-9.]+).*/\2/p" <<<"$2"; }
# A number of the event "done" of a file of events.
done_field() { grep -E '"event": *"done"' "$2" | tail -n 1 | grep -oE "\"$1\": *[0-9.e+-]+" | head -n 1 | awk -F: '{ printf "%.2f", $2 }'; }
# When the last freeze of a file of events began, ms.
freeze_at() { grep -E '"event": *"freeze"' "$1" | tail -n 1 | grep -oE '"monotonic_ms": *[0-9.e+-]+' | awk -F: '{ printf "%.3f", $2 }'; }
done_phases() {
	grep -E '"event": *"done"' "$1" | tail -n 1 | sed -nE 's/.*"phases": *\{([^}]*)\}.*/\1/p' | tr ',' '\n' |
		awk -F'[": ]+' '{ sub(/_ms$/, "", $2); gsub(/_/, " ", $2); printf "%s%s %.1f", (NR > 1 ? ", " : ""), $2, $3 }'
}
median() {
	printf '%s\n' "$@" | sort -g |
		awk '{ v[NR] = $1 } END { if (NR) printf "%s", NR % 2 ? v[(NR + 1) / 2] : sprintf("%.3f", (v[NR / 2] + v[NR / 2 + 1]) / 2) }'
}
highest() { printf '%s\n' "$@" | sort -g | tail -n 1; }
ratio() { awk -v a="${1:-0}" -v b="${2:-0}" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "?" }'; }
now() { awk '{ print $1 }' /proc/uptime; }

failed() {
	note "FAILED: $*"
	echo "$*" >>"$work/failures"
	return 1
}

# hosts: two new hosts with a ferryd each. Their first pids differ, so that the pids of one are free in the other.
hosts() {
	host_down
	host_up A 1000 && host_up B 20000 && host_link A B || { note "cannot make the test hosts"; exit 1; }
	local host=A address=192.0.2.1
	for host in A B; do
		host_run $host "$bin/ferryd" --insecure --listen $address </dev/null >"$work/ferryd.$host" 2>&1 &
		address=192.0.2.2
		for _ in $(seq 250); do
			host_net $host cat /proc/net/tcp /proc/net/tcp6 | grep -qi ":1D2F .* 0A " && break
			sleep 0.02
		done
	done
}

# start PROGRAM ARGS...: in host A; sets $pid.
start() {
	rm -f "$work/pid"
	host_run A setsid -f sh -c 'echo $$ >"$1" && shift && exec "$@" </dev/null >/dev/null 2>&1' start "$work/pid" "$programs/$@"
	until [ -s "$work/pid" ]; do sleep 0.01; done
	read -r pid <"$work/pid"
	host_run A "$programs/bench-stat" "$pid" ready || exit 1
	sleep 0.3
}

stop() {
	host_run "$1" kill -KILL "$pid" 2>/dev/null
	while host_run "$1" test -d "/proc/$pid"; do sleep 0.02; done
}

stat() { host_run "$1" "$programs/bench-stat" "$pid" "${@:2}"; }

# The witness watches from here to the next seen.
watch() {
	"$programs/bench-witness" "$work/still" &
	witness=$!
	sleep 0.05
}

# ferry HOST EVENTS VERB ARGS...: with its events in a file.
ferry() {
	local host=$1 events=$2
	shift 2
	host_run "$host" timeout -k 5 300 "$bin/ferry" "$@" --json >"$events" 2>"$events.err"
	local rc=$?
	[ $rc = 0 ] || failed "ferry $1 ended with $rc: $(grep -ah Error "$events.err" "$events" | tail -n 1)"
}

# seen HOST [EVENTS]: add what the program saw to gaps, nets, stills, and of the stop in EVENTS to switches and switch_nets; false when its
# memory is damaged.
seen() {
	local line
	: >"$work/still"
	[ -z "${witness-}" ] || { kill -TERM "$witness" && wait "$witness"; }
	witness=
	line=$(stat "$1" show "$work/still" ${2+"$(freeze_at "$2")" "$(done_field downtime_ms "$2")"}) || { failed "the program does not answer"; return 1; }
	[ "$(field wrong "$line")" = 0 ] || failed "$(field wrong "$line") pages have a wrong content"
	gaps+=("$(field longest_ms "$line")")
	nets+=("$(field net_ms "$line")")
	stills+=("$(field still_ms "$line")")
	[ -z "${2-}" ] || { switches+=("$(field switch_ms "$line")") switch_nets+=("$(field switch_net_ms "$line")"); }
}

clear() { gaps=() nets=() stills=() switches=() switch_nets=() downtimes=() totals=() rounds=() extra=(); }
# The other two numbers of a row of gaps.
and_net() { printf 'at most %s ms; without the times the machine stood still (at most %s ms): %s ms, at most %s ms' "$(highest "${gaps[@]}")" "$(highest "${stills[@]}")" "$(median "${nets[@]}")" "$(highest "${nets[@]}")"; }
row() { printf '| %s | %s | %s |\n' "$@" | tee -a "$work/table" >&2; }

events() {
	downtimes+=("$(done_field downtime_ms "$1")")
	totals+=("$(done_field total_ms "$1")")
	rounds+=("$(done_field rounds "$1" | cut -d. -f1)")
}

# quiet_for SECONDS
quiet_for() {
	clear
	start bench-prog $small 50
	for _ in $(seq $repeats); do
		watch
		stat A reset
		sleep "$1"
		seen A
	done
	stop A
	row "$small MiB, nothing done to it for $1 s: longest gap" "$(median "${gaps[@]}") ms" "$(and_net)"
}

# As long as a migration of the small, and of the large program takes.
quiet() {
	quiet_for $seconds
	quiet_for $((seconds * 7))
}

# migrate_once SIZE [shared]: what was seen is added.
migrate_once() {
	hosts
	start bench-prog "$1" 50 ${2-}
	watch
	stat A reset
	ferry A "$work/events" migrate "$pid" --to 192.0.2.2 --insecure "${more[@]}" || { stop A; return 1; }
	sleep 0.3
	seen B "$work/events"
	events "$work/events"
	stop B
	note "   $1 MiB: gap ${gaps[-1]} ms, of the switch ${switches[-1]} (${switch_nets[-1]}); $(done_phases "$work/events")"
}

migrated_row() {
	row "migrate $1 MiB${2:+ of shared memory}, 50 MiB/s rewritten: longest gap" "$(median "${gaps[@]}") ms" \
		"$(and_net); the gap of the switch: $(median "${switches[@]}") ms, at most $(highest "${switches[@]}") ms; without those times $(median "${switch_nets[@]}") ms, at most $(highest "${switch_nets[@]}") ms; downtime by ferry's own count $(median "${downtimes[@]}") ms; $(median "${rounds[@]}") rounds, $(median "${totals[@]}") ms in all"
}

# migrate_sizes [shared]: in pairs, so that the hour of the day is the same for both.
migrate_sizes() {
	local size name i
	for i in $(seq $repeats); do
		for size in $small $big; do
			clear
			migrate_once $size ${1-} || return
			for name in gaps nets stills switches switch_nets downtimes totals rounds; do
				local -n from=$name
				printf '%s\n' "${from[@]}" >>"$work/$size.$name"
			done
		done
	done
	for size in $small $big; do
		for name in gaps nets stills switches switch_nets downtimes totals rounds; do
			local -n to=$name
			mapfile -t to <"$work/$size.$name"
		done
		migrated_row $size ${1-}
		[ $size = $big ] || { gap_small=$(median "${gaps[@]}") net_small=$(median "${nets[@]}") switch_small=$(median "${switches[@]}") switch_net_small=$(median "${switch_nets[@]}"); }
	done
	rm -f "$work/$small."* "$work/$big."*
	row "gap of the switch at $big MiB to that at $small MiB${1:+, shared memory}" "$(ratio "$(median "${switches[@]}")" "${switch_small:-0}")" \
		"without the times the machine stood still: $(ratio "$(median "${switch_nets[@]}")" "${switch_net_small:-0}"); the longest gap of all the time (at $big MiB that is several times as long): $(ratio "$(median "${gaps[@]}")" "${gap_small:-0}"), without those times $(ratio "$(median "${nets[@]}")" "${net_small:-0}"); goal: at most 1.5"
}

migrate() { migrate_sizes; }
shared() { migrate_sizes shared; }

leave() {
	clear
	hosts
	start bench-prog $small 50
	for _ in $(seq $repeats); do
		mkdir "$work/images"
		watch
		stat A reset
		ferry A "$work/events" dump -t "$pid" -D "$work/images" --leave-running -o dump.log "${more[@]}" || break
		sleep 0.2
		seen A
		events "$work/events"
		rm -rf "$work/images"
	done
	rm -rf "$work/images"
	stop A
	row "dump --leave-running $small MiB, 50 MiB/s rewritten: longest gap" "$(median "${gaps[@]}") ms" \
		"$(and_net); $(median "${rounds[@]}") rounds, $(median "${totals[@]}") ms in all"
}

full() {
	clear
	for _ in $(seq $(((repeats + 1) / 2))); do
		hosts
		start bench-prog $small 50
		mkdir "$work/images"
		stat A reset
		ferry A "$work/events" dump -t "$pid" -D "$work/images" --backend none -o dump.log || { stop A; return; }
		ferry A "$work/restore" restore -d -D "$work/images" -o restore.log || return
		sleep 0.2
		seen A
		stop A
		rm -rf "$work/images"
	done
	row "the same $small MiB, all of it frozen, copied and restored (no rounds): gap" "$(median "${gaps[@]}") ms" \
		"$(ratio "$(median "${gaps[@]}")" "${gap_small:-0}") times the gap of the migration"
}

# Rounds of pre-dumps, one after the other, until told to end.
predumps() {
	local n=0 parent=()
	while [ ! -e "$work/enough" ]; do
		n=$((n + 1))
		mkdir "$work/chain/$n"
		ferry A "$work/events.$n" pre-dump -t "$pid" -D "$work/chain/$n" --track-mem "${parent[@]}" -o dump.log "${more[@]}" || break
		parent=(--prev-images-dir "../$n")
		# Old pages are of no use here, and memory is not for ever.
		[ $n -lt 3 ] || find "$work/chain/$((n - 2))" -size +1M -delete
	done
	echo $n >"$work/predumps"
}

# rate_at MIB_S: pairs of a time without and a time with rounds; the write rate that was kept.
rate_at() {
	local before after i
	clear
	hosts
	start bench-prog $rate_size "$1"
	for i in $(seq $repeats); do
		stat A reset
		sleep $seconds
		before=$(field written_mib_s "$(stat A show)")
		rm -rf "$work/chain" "$work/enough"
		mkdir "$work/chain"
		predumps &
		local loop=$!
		sleep 0.2
		stat A reset
		sleep $seconds
		after=$(field written_mib_s "$(stat A show)")
		seen A
		: >"$work/enough"
		wait $loop
		extra+=("$(ratio "$after" "$before")")
		rounds+=("$(cat "$work/predumps")")
		sleep 0.3
	done
	rm -rf "$work/chain"
	stop A
	row "write rate kept while rounds run, $rate_size MiB rewritten $([ "$1" = 0 ] && echo "as fast as it can ($before MiB/s)" || echo "at $1 MiB/s")" \
		"$(median "${extra[@]}")" "median of $repeats pairs of $seconds s; $(median "${rounds[@]}") rounds in each; longest gap $(highest "${gaps[@]}") ms"
}

rate() {
	rate_at 50
	rate_at 500
	rate_at 0
}

tree() {
	local t0 t1 t2 alive
	clear
	hosts
	start bench-tree 100 10 1
	for _ in $(seq $repeats); do
		mkdir "$work/images"
		t0=$(now)
		ferry A "$work/events" dump -t "$pid" -D "$work/images" -o dump.log "${more[@]}" || { stop A; return; }
		t1=$(now)
		ferry A "$work/restore" restore -d -D "$work/images" -o restore.log || return
		t2=$(now)
		alive=$(stat A tree) || failed "not all threads of the tree tick after the restore: $alive"
		totals+=("$(awk -v a="$t0" -v b="$t1" 'BEGIN { print b - a }')")
		extra+=("$(awk -v a="$t1" -v b="$t2" 'BEGIN { print b - a }')")
		rm -rf "$work/images"
	done
	row "tree of 100 processes with 10 threads each: dump" "$(median "${totals[@]}") s" "ms: $(done_phases "$work/events")"
	row "the same tree: restore" "$(median "${extra[@]}") s" "ms: $(done_phases "$work/restore"); $(field ticking "$alive") of $(field threads "$alive") threads tick"
	host_down
}

page() {
	cat <<-END
		# Benchmarks

		Made by \`test/bench/run.sh -o docs/benchmarks.md\` on $(date -u +%Y-%m-%d), ferry $(git -C "$top" rev-parse --short HEAD 2>/dev/null),
		in $(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo), $(nproc) CPUs, $(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB, Linux $(uname -r).
		Both hosts are namespaces of this one machine, joined by a veth pair, so source, destination and program share its CPUs.
		Images are written to $fs. A value is the median of $repeats runs.

		The program under test rewrites random pages, checking the old content of each, and stamps the monotonic clock every millisecond;
		the *gap* is the longest time between two stamps, so about 1.1 ms when nothing happens. A virtual machine whose share of the real CPUs is used
		up stands still as a whole, whatever runs in it: \`bench-witness\`, a real-time thread on each CPU, notes when all CPUs stood still at once,
		and the gaps are given with and without those times. The longest gap is that of the whole time from the first round to after the start
		at the destination; the *gap of the switch* is the one in which the program stopped here and ran on there.

		| What | Result | More |
		| --- | --- | --- |
	END
	cat "$work/table"
}

hosts
for name in "${rows[@]}"; do
	note "-- $name"
	case $name in
	quiet | migrate | shared | leave | full | rate | tree | forked | sparse | vmas | processes | descriptors | threads | hole | overhead | postcopy | tcp) "$name" ;;
	*) note "no such row: $name" && exit 2 ;;
	esac
done
touch "$work/table"
page
[ -z "$output" ] || page >"$output"
[ -s "$work/failures" ] || exit 0
note "$(wc -l <"$work/failures") failures"
exit 1
