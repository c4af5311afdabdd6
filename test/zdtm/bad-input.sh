#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bad input:   bad-input.sh [CASE]...
# Each case gives ferry something it cannot do. It must say why in one sentence and with an exit code that is not 0; the target must run on
# as if nothing had been, and at a restore nothing of the tree may be left behind.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

# dump_all: the images of $pid in $dir/images, the target gone
dump_all() {
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4
	within 5 empty A || fail "something is left after the dump"
}

restore_fails() {
	must_fail "$1" "$ferry" restore -D "${2:-$dir/images}" -d --pidfile "$dir/pidfile"
	within 5 empty A || fail "a part of the tree is left behind by a restore that failed: $(host_pids A | tr '\n' ' ')"
}

restore_works() {
	must_work "$ferry" restore -D "$dir/images" -o restore.log -v4 -d --pidfile "$dir/pidfile"
	alive A || fail "no process $pid after the restore"
}

case_no_such_pid() {
	mkdir "$dir/images"
	must_fail '\b4242\b' "$ferry" dump -t 4242 -D "$dir/images"
	must_fail '\b4242\b' "$ferry" pre-dump -t 4242 -D "$dir/images"
	must_fail '\b4242\b' "$ferry" migrate 4242 --to 127.0.0.1
	must_fail . "$ferry" dump -t 0 -D "$dir/images"
	must_fail . "$ferry" dump -t x -D "$dir/images"
	[ -z "$(ls "$dir/images")" ] || fail "files were left in the images directory: $(ls "$dir/images")"
}

case_kernel_thread() {
	local thread= p
	for p in /proc/[0-9]*; do
		# The flag PF_KTHREAD of the ninth field
		read -r line 2>/dev/null <"$p/stat" || continue
		set -- ${line##*) }
		[ $(($7 & 0x200000)) != 0 ] && thread=${p#/proc/} && break
	done
	[ -n "$thread" ] || skip "no kernel thread is visible here"
	mkdir "$dir/images"
	for verb in dump pre-dump; do
		note "ferry $verb -t $thread"
		timeout -k 2 60 "$ferry" $verb -t "$thread" -D "$dir/images" >"$dir/out" 2>&1
		rc=$?
		said_error 'kernel thread' $verb
	done
}

case_oneself() {
	mkdir "$dir/images"
	must_fail 'itself|oneself|own' sh -c 'exec "$0" dump -t $$ -D "$1"' "$ferry" "$dir/images"
	must_fail 'ancestor|parent' sh -c '"$0" dump -t $$ -D "$1"; exit $?' "$ferry" "$dir/images"
	must_fail 'ancestor|parent' sh -c '"$0" migrate $$ --to 127.0.0.1; exit $?' "$ferry"
	must_fail 'ancestor|parent' sh -c 'sh -c "\"$0\" dump -t $$ -D \"$1\"; exit \$?"; exit $?' "$ferry" "$dir/images"
}

case_unwritable_directory() {
	start mixture
	take_snapshot proc.before
	must_fail 'no such file' "$ferry" dump -t "$pid" -D "$dir/not-there"
	: >"$dir/file"
	must_fail 'not a directory' "$ferry" dump -t "$pid" -D "$dir/file"
	mkdir "$dir/images"
	host_run A mount -t tmpfs -o ro tmpfs "$dir/images"
	must_fail 'read-only' "$ferry" dump -t "$pid" -D "$dir/images"
	must_fail 'read-only' "$ferry" pre-dump -t "$pid" -D "$dir/images"
	untouched
	finish A
}

case_full_directory() {
	start mixture
	take_snapshot proc.before
	mkdir "$dir/images"
	host_run A mount -t tmpfs -o size=20m tmpfs "$dir/images"
	must_fail 'no space' "$ferry" dump -t "$pid" -D "$dir/images"
	untouched
	must_fail 'no space' "$ferry" pre-dump -t "$pid" -D "$dir/images"
	untouched
	must_fail . "$ferry" restore -D "$dir/images" -d
	finish A
}

# damage FILE HOW: what a bad disk or a cut copy does
damage() {
	local size
	size=$(stat -c %s "$1")
	case $2 in
	gone) rm "$1" ;;
	empty) : >"$1" ;;
	half) truncate -s $((size / 2)) "$1" ;;
	less) truncate -s $((size - 1)) "$1" ;;
	more) printf 'x' >>"$1" ;;
	flip-*) # one bit, at this share of the file
		local at=$((size * ${2#flip-} / 1000)) byte
		[ $at -lt "$size" ] || at=$((size - 1))
		byte=$(od -An -tu1 -j $at -N 1 "$1")
		printf "\\x$(printf %02x $((byte ^ 4)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
		;;
	esac
}

# The target's memory stands still: every byte of the image is in use, none is superseded by a later round.
damaged_images() {
	local file how
	start mem-private
	take_snapshot proc.before-r -r
	dump_all
	for file in "$dir"/images/*.img; do
		for how in "$@"; do
			rm -rf "$dir/broken"
			cp -r "$dir/images" "$dir/broken"
			note "$how: $(basename "$file")"
			damage "$dir/broken/$(basename "$file")" "$how"
			restore_fails . "$dir/broken"
		done
	done
	restore_works
	same_as_before -r proc.now A any || fail "/proc shows differences after the restore"
	finish A
}

case_cut_image() { damaged_images gone empty half less more; }

case_flipped_bit() { damaged_images flip-0 flip-1 flip-250 flip-500 flip-900 flip-999 flip-1000; }

case_newer_image() {
	start empty
	dump_all
	cp -r "$dir/images" "$dir/newer"
	printf '\x63\x00' | dd of="$dir/newer/state.img" bs=1 seek=4 conv=notrunc status=none
	restore_fails 'version.*99|99.*version' "$dir/newer"
	restore_works
	finish A
}

case_other_architecture() {
	start empty
	dump_all
	cp -r "$dir/images" "$dir/other"
	"$programs/helpers/reseal" "$dir/other/state.img" "$(uname -m)" "$(uname -m | tr 'a-z' 'zz')" || fail "the image does not name $(uname -m) ($?)"
	restore_fails 'architecture|zzz|made on|x.._64' "$dir/other"
	# The same change and back again: it is not the editing that is refused.
	"$programs/helpers/reseal" "$dir/other/state.img" "$(uname -m | tr 'a-z' 'zz')" "$(uname -m)"
	must_work "$ferry" restore -D "$dir/other" -d
	finish A
}

case_pid_taken() {
	start tree
	take_snapshot proc.before
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -R
	must_fail "\b$pid\b" "$ferry" restore -D "$dir/images" -d
	untouched
	finish A
}

# Only the last pid of the tree is taken, by somebody else: the rest must not be left behind.
case_child_pid_taken() {
	local last other
	start tree
	dump_all
	last=$(echo "$tree" | sort -n | tail -n 1)
	host_run A sh -c 'echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid; sleep 1000 & echo $! >"$2"' taker "$last" "$dir/other"
	within 5 test -s "$dir/other"
	other=$(cat "$dir/other")
	[ "$other" = "$last" ] || skip "another process came first to pid $last"
	must_fail "\b$last\b" "$ferry" restore -D "$dir/images" -d
	for p in $tree; do
		[ "$p" = "$last" ] || within 5 host_run A test ! -d "/proc/$p" || fail "process $p is left behind by a restore that failed"
	done
	host_run A kill -9 "$other"
	within 5 host_run A sh -c '! test -d "/proc/$0"' "$other"
	restore_works
	finish A
}

# The dumped target is a zombie for another second: the restore waits.
case_pid_of_a_zombie() {
	local began
	note "start empty, reaped late"
	test=$dir/test.empty
	mkdir -m 777 "$test" "$dir/images"
	host_run A "$programs/helpers/reaps-late" 1500 "$programs/empty" --dir "$test" &
	within 20 test -e "$test/ready" || fail "never ready"
	read -r pid <"$test/pid"
	must_work "$ferry" dump -t "$pid" -D "$dir/images"
	host_run A grep -q '^State:.Z' "/proc/$pid/status" || fail "the target is not a zombie: the case proves nothing"
	began=$EPOCHREALTIME
	must_work "$ferry" restore -D "$dir/images" -d
	echo "the restore waited $(((${EPOCHREALTIME/./} - ${began/./}) / 1000)) ms" >"$dir/summary"
	alive A || fail "no process $pid after the restore"
	finish A
}

case_mapped_file_missing() {
	start map-file-private
	dump_all
	mv "$test/file" "$test/moved"
	restore_fails 'file.*(no such|missing|not there)|no such file'
	mv "$test/moved" "$test/file"
	restore_works
	finish A
}

case_mapped_file_changed() {
	start map-file-private
	dump_all
	cp -p "$test/file" "$test/copy"
	echo more >>"$test/file"
	restore_fails 'file.*(chang|differ|size)'
	truncate -s 4096 "$test/file"
	restore_fails 'file.*(chang|differ|size)'
	# As long as it was, but with other content
	cat "$test/copy" >"$test/file"
	printf 'other' | dd of="$test/file" bs=1 seek=100 conv=notrunc status=none
	restore_fails 'file.*(chang|differ|modif)'
}

# refuses_backend REGEX NAME DIR: whatever would track with it says so, and nothing has happened
refuses_backend() {
	local with="--backend $2 --backend-dir $3"
	must_fail "$1" "$ferry" dump -t "$pid" -D "$dir/images" $with
	must_fail "$1" "$ferry" pre-dump -t "$pid" -D "$dir/images" $with
	must_fail "$1" "$ferry" track "$pid" --count 1 --interval 100ms $with
	must_fail "$1" "$ferry" migrate "$pid" --to 192.0.2.2 --insecure $with
}

# Plugins with one defect each (test/plugins), and files that are none.
case_bad_backend() {
	local plugins=$bin/../test-backends broken=$dir/broken name with
	[ -e "$plugins/good.so" ] || skip "no $plugins: not built"
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	start mixture
	take_snapshot proc.before
	mkdir "$dir/images" "$broken"
	: >"$broken/empty.so"
	seq 100 >"$broken/text.so"
	head -c 4200 "$plugins/good.so" >"$broken/cut.so"
	mkfifo "$broken/fifo.so"
	cp "$plugins/abi.so" "$plugins/crash-probe.so" "$broken"
	refuses_backend 'missing.so.*no such file' missing "$plugins"
	refuses_backend 'nonexistent.*no such file' good "$dir/nonexistent"
	refuses_backend 'not the name' ../good "$plugins"
	refuses_backend 'abi.so.*another version.*4711' abi "$plugins"
	refuses_backend 'old-abi.so.*another version' old-abi "$plugins"
	refuses_backend 'null.so.*returned NULL' null "$plugins"
	refuses_backend 'no-export.so.*does not export' no-export "$plugins"
	refuses_backend 'unresolved.so.*ferry_no_such_function' unresolved "$plugins"
	refuses_backend 'no-collect.so.*no collect' no-collect "$plugins"
	refuses_backend 'refuses.so.*never works' refuses "$plugins"
	refuses_backend 'good.*for tests only|for tests only' good "$plugins"
	refuses_backend 'empty.so.*not a shared object' empty "$broken"
	refuses_backend 'text.so.*not a shared object' text "$broken"
	refuses_backend 'cut.so.*cut short' cut "$broken"
	refuses_backend 'fifo.so.*not a regular file' fifo "$broken"
	refuses_backend 'crash-load.so crashed in its loading .signal 6' crash-load "$plugins"
	refuses_backend 'crash-probe.so crashed' crash-probe "$plugins"
	refuses_backend 'exit-probe.so ended' exit-probe "$plugins"
	untouched
	# What crashes with the target in its hands
	refuses_backend 'killed by signal 6' crash-attach "$plugins"
	untouched
	with="--backend crash-collect --backend-dir $plugins"
	must_fail 'killed by signal 6' "$ferry" dump -t "$pid" -D "$dir/images" $with
	must_fail 'killed by signal 6' "$ferry" track "$pid" --count 1 --interval 100ms $with
	must_fail 'killed by signal 6' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure $with
	mkdir "$dir/second"
	must_work "$ferry" pre-dump -t "$pid" -D "$dir/second" $with
	must_fail 'killed by signal 6' "$ferry" pre-dump -t "$pid" -D "$dir/images" --prev-images-dir ../second $with
	untouched
	# All that auto finds is broken: it says why, each.
	must_fail 'empty.so.*not a shared object' "$ferry" track "$pid" --count 1 --interval 100ms --backend-dir "$broken"
	must_fail 'crash-probe.so crashed' "$ferry" track "$pid" --count 1 --interval 100ms --backend-dir "$broken"
	must_fail 'nonexistent.*no such file' "$ferry" track "$pid" --count 1 --backend-dir "$dir/nonexistent"
	for name in "$plugins" "$broken" "$dir/nonexistent"; do
		in_a "$ferry" check --backend-dir "$name"
		[ $rc -lt 124 ] || fail "check of the backends in $name ended with $rc"
		grep -q 'abi.so.*another version\|nonexistent.*No such file' "$dir/out" || fail "check does not say what is wrong in $name"
	done
	untouched
	finish A
}

# One that does not come back with the target in its hands: not waited for longer than it may take.
case_backend_hangs() {
	local with="--backend hang-collect --backend-dir $bin/../test-backends-hang --timeout 1"
	[ -e "$bin/../test-backends-hang/hang-collect.so" ] || skip "no test-backends-hang: not built"
	start mixture
	take_snapshot proc.before
	mkdir "$dir/images" "$dir/second"
	must_fail 'hang-collect did not come back from collect.* within 3 s' "$ferry" dump -t "$pid" -D "$dir/images" $with
	untouched
	must_work "$ferry" pre-dump -t "$pid" -D "$dir/second" $with
	must_fail 'hang-collect did not come back from collect.* within 3 s' "$ferry" pre-dump -t "$pid" -D "$dir/images" --prev-images-dir ../second $with
	untouched
	finish A
}

case_no_peer() {
	start mixture
	take_snapshot proc.before
	host_up B 20000 && host_link A B || fail "no second host"
	must_fail 'refused' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	must_fail '192\.0\.2\.9' "$ferry" migrate "$pid" --to 192.0.2.9 --insecure
	must_fail 'no-such-host' "$ferry" migrate "$pid" --to no-such-host.invalid --insecure
	local port
	for port in 0 99999 -1 '' 7471x 4294974767 99999999999999999999 http; do
		must_fail "\"$port\" is not a port number" "$ferry" migrate "$pid" --to "192.0.2.2:$port" --insecure
	done
	must_fail 'port' "$ferry" migrate "$pid" --to "[192.0.2.2]7471" --insecure
	untouched
	finish A
}

strange_peer() {
	start mixture
	take_snapshot proc.before
	host_up B 20000 && host_link A B || fail "no second host"
	host_run B "$programs/helpers/talker" 192.0.2.2 7471 "$1" &
	within 10 host_run B sh -c 'grep -q " 0A " /proc/net/tcp' || fail "the peer does not listen"
	must_fail "$2" "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	untouched
	finish A
}

case_peer_speaks_something_else() { strange_peer garbage .; }
case_peer_says_nothing() { strange_peer silent .; }
case_peer_hangs_up() { strange_peer closes .; }

# The daemon at the destination is killed after a while; then there is one running copy, wherever it is.
peer_dies_after() {
	local ms=$1 migration
	test= pid= rm_dir=
	host_up A 1000 && host_up B 20000 && host_link A B || fail "no test hosts"
	start_ferryd
	rm -rf "$dir"/test.*
	start mixture
	take_snapshot proc.before
	take_snapshot proc.before-r -r
	note "migrate; the peer dies after $ms ms"
	host_run A timeout -k 2 60 "$ferry" migrate "$pid" --to 192.0.2.2 --insecure -o "$dir/migrate.log" -v4 >"$dir/out" 2>&1 &
	migration=$!
	sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
	kill_ferryd
	# After a commit the source may have to ask what became of it: let there be somebody to ask.
	sleep 0.5
	start_ferryd
	wait $migration
	rc=$?
	note "exit code $rc: $(tail -n 1 "$dir/out")"
	if [ $rc = 0 ]; then
		! alive A || fail "killed after $ms ms: two copies, or the wrong one"
		alive B || fail "killed after $ms ms: success was reported, but the target is not there"
		same_as_before -r proc.now B any || fail "killed after $ms ms: the target is not as it was: $(grep -m 2 '^[-+][^-+]' "$dir/proc.diff" | tr '\n' ' ')"
		finish B
		arrived=$((arrived + 1))
	else
		said_error . migrate
		! alive B || fail "killed after $ms ms: an error was reported, but the target runs at the destination"
		untouched 10
		finish A
		stayed=$((stayed + 1))
	fi
	host_down
}

case_peer_dies() {
	local took arrived=0 stayed=0 points=${FERRY_KILL_POINTS:-12}
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	start mixture
	took=$EPOCHREALTIME
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	took=$(((${EPOCHREALTIME/./} - ${took/./}) / 1000))
	finish B
	host_down
	for i in $(seq 0 $((points - 1))); do
		peer_dies_after $((took * 5 / 4 * i / (points - 1)))
	done
	echo "killed at $points points of $took ms: stayed $stayed times, arrived $arrived times" >"$dir/summary"
}

run_cases "no-such-pid kernel-thread oneself unwritable-directory full-directory cut-image flipped-bit newer-image other-architecture pid-taken
	child-pid-taken pid-of-a-zombie mapped-file-missing mapped-file-changed bad-backend backend-hangs no-peer peer-speaks-something-else peer-says-nothing peer-hangs-up peer-dies" "$@"
