#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Shared memory that lives apart from the processes:   shared-memory.sh [CASE]...
# What is in the way at the destination is named; what was made there goes again when the rebuild fails.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"
holder=$programs/helpers/shm-holder

dump_all() {
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4
	within 5 empty A || fail "something is left after the dump"
}

restore_fails() {
	must_fail "$1" "$ferry" restore -D "$dir/images" -d --pidfile "$dir/pidfile"
	within 5 empty A || fail "a part of the tree is left behind: $(host_pids A | tr '\n' ' ')"
}

restore_works() {
	must_work "$ferry" restore -D "$dir/images" -o restore.log -v4 -d --pidfile "$dir/pidfile"
	alive A || fail "no process $pid after the restore"
}

gone() { ! host_run "$1" grep -qs "^$2\$" /proc/[0-9]*/comm; }
segments() { host_run "$1" awk 'NR > 1 { print $2 }' /proc/sysvipc/shm | sort -n | tr '\n' ' '; }
files() { host_run "$1" ls -A /dev/shm | tr '\n' ' '; }
remove_segments() { host_run A sh -c 'for i in $(awk "NR > 1 { print \$2 }" /proc/sysvipc/shm); do ipcrm -m $i; done'; }

case_sysv_id_taken() {
	start sysv-shm
	dump_all
	local had=$(segments A) id
	remove_segments
	for id in $had; do
		host_run A sh -c 'echo $1 >/proc/sys/kernel/shm_next_id && ipcmk -M 8192' - "$id" >/dev/null
	done
	[ "$(segments A)" = "$had" ] || fail "segments $(segments A)instead of $had"
	restore_fails 'System V shared memory segment id [0-9]+ is taken here by another segment'
	[ "$(segments A)" = "$had" ] || fail "the segments of others are gone: $(segments A)"
	remove_segments
	restore_works
	finish A
}

case_sysv_key_taken() {
	start sysv-shm
	dump_all
	remove_segments
	host_run A "$holder" create 0x5eed0001 4096 || fail "no segment"
	restore_fails 'key 0x5eed0001 is taken here by segment [0-9]+'
	remove_segments
	restore_works
	finish A
}

# They stay when the tree goes, and are the same ones when it comes back.
case_sysv_still_here() {
	start sysv-shm
	dump_all
	[ "$(segments A | wc -w)" = 4 ] || fail "the dump removed segments: $(segments A)"
	restore_works
	finish A
}

case_sysv_attached_here() {
	start sysv-shm
	dump_all
	host_run A "$holder" attach 0x5eed0001 "$dir/attached" </dev/null >/dev/null 2>&1
	within 5 test -s "$dir/attached" || fail "nobody attached"
	must_fail 'segment [0-9]+ is attached by 1 other' "$ferry" restore -D "$dir/images" -d
	host_run A kill "$(cat "$dir/attached")"
	within 5 empty A
	restore_works
	finish A
}

case_posix_shm_other_file() {
	start posix-shm
	dump_all
	restore_works
	finish A
	# Another machine's, so to say: the name is taken by another file.
	host_run A sh -c 'echo x >/dev/shm/ferry-other'
	rm "$test/result" "$test/go"
	restore_fails '/dev/shm/ferry-other, which the program maps shared, is another file here'
	[ "$(files A)" = "ferry-other " ] || fail "files in /dev/shm: $(files A)"
	host_run A rm /dev/shm/ferry-other
	restore_works
	finish A
}

case_posix_shm_outside() {
	start posix-shm
	host_run A "$holder" map /dev/shm/ferry-other "$dir/mapped" </dev/null >/dev/null 2>&1
	within 5 test -s "$dir/mapped" || fail "nobody maps it"
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4
	host_run A kill "$(cat "$dir/mapped")"
	within 5 empty A
	host_run A rm /dev/shm/ferry-other /dev/shm/ferry-posix-shm
	restore_fails '/dev/shm/ferry-other is missing here and cannot be made: pid [0-9]+ \(shm-holder\), which is not in the tree'
	[ -z "$(files A)" ] || fail "files in /dev/shm: $(files A)"
}

# A migration that fails after the destination made them leaves none of them there.
case_discarded() {
	local name
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	for name in sysv-shm posix-shm; do
		start $name
		take_snapshot proc.before
		cat >"$dir/hook" <<-'END'
			#!/bin/sh
			[ "$CRTOOLS_SCRIPT_ACTION" != network-lock ]
		END
		chmod +x "$dir/hook"
		must_fail . "$ferry" migrate "$pid" --to 192.0.2.2 --insecure --action-script "$dir/hook"
		untouched
		within 5 gone B $name || fail "processes are left at the destination"
		[ -z "$(segments B)$(files B)" ] || fail "left at the destination: $(segments B)$(files B)"
		finish A
	done
}

# Moved, not copied: nothing stays at the source, so that nothing is in the way when the tree comes back.
case_there_and_back() {
	local name had
	host_up B 20000 && host_link A B || fail "no second host"
	start_ferryd
	host_run A "$bin/ferryd" --insecure --listen 192.0.2.1 </dev/null >>"$dir/ferryd-a.out" 2>&1 &
	within 10 host_run A sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd of A does not listen"
	for name in sysv-shm posix-shm; do
		start $name
		had="$(segments A)$(files A)"
		must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
		[ -z "$(segments A)$(files A)" ] || fail "left at the source: $(segments A)$(files A)"
		[ "$(segments B)$(files B)" = "$had" ] || fail "at the destination: $(segments B)$(files B)instead of $had"
		host_run B timeout -k 2 60 "$ferry" migrate "$pid" --to 192.0.2.1 --insecure >"$dir/out" 2>&1 || fail "it does not come back: $(tail -n 1 "$dir/out")"
		[ -z "$(segments B)$(files B)" ] || fail "left on the way back: $(segments B)$(files B)"
		: >"$test/go"
		within 30 test -e "$test/result" && [ "$(cat "$test/result")" = pass ] || fail "$name: $(cat "$test/result")"
		within 5 gone A $name
		remove_segments
	done
}

# A file system that both hosts have: there is one file, and it stays.
case_one_file_for_both() {
	host_down
	mkdir "$dir/common" && mount -t tmpfs tmpfs "$dir/common" || skip "no tmpfs"
	trap 'host_down; umount "$dir/common"' EXIT
	host_up A 1000 && host_up B 20000 && host_link A B || fail "no hosts"
	start_ferryd
	head -c 8192 /dev/zero >"$dir/common/file"
	host_run A setsid bash -c 'for f in /proc/$$/fd/*; do f=${f##*/}; [ "$f" -le 2 ] || [ "$f" = 255 ] || eval "exec $f>&-"; done; exec "$@"' - "$holder" map "$dir/common/file" "$dir/mapped" </dev/null >/dev/null 2>&1
	within 5 test -s "$dir/mapped" || fail "nobody maps it"
	read -r pid <"$dir/mapped"
	must_work "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	alive B || fail "it did not arrive"
	[ -e "$dir/common/file" ] || fail "the file of both was removed"
	host_run B grep -q "common/file" "/proc/$pid/maps" || fail "it does not map the file any more"
}

run_cases "sysv_id_taken sysv_key_taken sysv_still_here sysv_attached_here posix_shm_other_file posix_shm_outside discarded there_and_back one_file_for_both" "$@"
