# SPDX-License-Identifier: Apache-2.0
# The rows of run.sh about memory shared since a fork. To be sourced by it.

used() { field pss_mib "$(stat "$1" pss)"; }

# Used together before, after; the files of the image.
forked() {
	local before restored migrated image t0 t1 t2 alive
	hosts
	start bench-forked $forked_size 50
	before=$(used A)
	mkdir "$work/images"
	t0=$(now)
	ferry A "$work/events" dump -t "$pid" -D "$work/images" -o dump.log "${more[@]}" || { stop A; return; }
	t1=$(now)
	image=$(du -sm --apparent-size "$work/images" | cut -f1)
	ferry A "$work/restore" restore -d -D "$work/images" -o restore.log || return
	t2=$(now)
	alive=$(stat A tree) || failed "not all processes tick after the restore: $alive"
	restored=$(used A)
	rm -rf "$work/images"
	row "$forked_size MiB shared by 51 processes since their forks: memory used together, before, restored" "$before MiB, $restored MiB" \
		"$(ratio "$restored" "$before"); image $image MiB; dump $(calc %.2f "$t1 - $t0") s ($(done_phases "$work/events")), restore $(calc %.2f "$t2 - $t1") s"
	ferry A "$work/events" migrate "$pid" --to 192.0.2.2 --insecure "${more[@]}" || { stop A; return; }
	alive=$(stat B tree) || failed "not all processes tick after the migration: $alive"
	migrated=$(used B)
	row "the same, migrated" "$migrated MiB" \
		"$(ratio "$migrated" "$before"); $(done_field rounds "$work/events" | cut -d. -f1) rounds, $(calc %.2f "$(done_field total_ms "$work/events") / 1000") s in all, downtime $(done_field downtime_ms "$work/events") ms ($(done_phases "$work/events"))"
	stop B
	host_down
}
