#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Names that --link-remap gives to files:   link-remap.sh [CASE]...
# They stay with the image, go with the restore, and go when there is no image.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

names() { ls -A "$test/here" | wc -l; }

case_no_image_no_name() {
	start link-remap
	mkdir "$dir/images"
	printf '#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ] || { ls -A %s | wc -l >%s; exit 1; }\n' "$test/here" "$dir/then" >"$dir/script"
	chmod 755 "$dir/script"
	must_fail 'post-dump' "$ferry" dump -t "$pid" -D "$dir/images" --link-remap --action-script "$dir/script"
	[ "$(cat "$dir/then")" = 1 ] || fail "there were $(cat "$dir/then") names before the dump failed"
	[ "$(names)" = 0 ] || fail "left behind: $(ls -A "$test/here")"
	finish A
}

case_stays_with_the_image() {
	start link-remap
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" --link-remap --leave-running
	[ "$(names)" = 1 ] || fail "$(names) names with the image"
	host_run A kill -9 "$pid"
	within 5 empty A
	# A restore that fails leaves it, one that works takes it away.
	must_fail 'missing' "$ferry" restore -D "$dir/images" --root /nowhere -d
	[ "$(names)" = 1 ] || fail "$(names) names after a restore that failed"
	must_work "$ferry" restore -D "$dir/images" -d
	[ "$(names)" = 0 ] || fail "left behind: $(ls -A "$test/here")"
	finish A
}

run_cases "no_image_no_name stays_with_the_image" "$@"
