#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Trees that are restored before all of their memory is there, each part a verb of its own:   lazy-pages.sh [CASE]...
#   from an image           lazy-pages -D DIR; restore --lazy-pages -D DIR
#   from the stopped tree   dump --lazy-pages --port P; lazy-pages --page-server --port P; restore --lazy-pages
#   from an image elsewhere page-server --lazy-pages; lazy-pages --page-server; restore --lazy-pages
# The programs check every page they touch, some while pages are still missing. In the end nothing is left of the helpers.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

background() { # NAME CMD...: output in $dir/NAME.out, pid of the last part in $NAME_pid
	local name=$1
	shift
	note "$* &"
	: >"$dir/$name.out" # not what the last one said
	: >"$dir/$name.err"
	host_run "$host" timeout -k 2 90 "$@" >"$dir/$name.out" 2>"$dir/$name.err" </dev/null &
	eval "${name}_pid=$!"
}

host=A
# Fetch for restore --lazy-pages of $dir/images: fetcher OPTION...
fetcher() {
	: >"$dir/ready"
	background fetcher sh -c 'exec 9>"$0/ready"; exec "$@" --status-fd 9' "$dir" "$ferry" lazy-pages -D "$dir/images" -o fetch.log -v4 "$@"
	within 10 test -s "$dir/ready" || fail "lazy-pages is not ready: $(tail -n 1 "$dir/fetcher.err")"
}

fetched() {
	wait $fetcher_pid
	rc=$?
	[ $rc = 0 ] || fail "lazy-pages failed ($rc): $(tail -n 1 "$dir/fetcher.err")"
	grep -q 'fetched .* pages' "$dir/fetcher.out" || fail "lazy-pages does not say what it fetched: $(tail -n 1 "$dir/fetcher.out")"
	sed 's/^ *//' "$dir/fetcher.out" | tail -n 1 >"$dir/summary"
	[ -z "$(ls "$dir/images" | grep -E 'socket|state$')" ] || fail "something is left in the images directory: $(ls "$dir/images" | tr '\n' ' ')"
	within 5 no_holder || fail "the holder is left"
}
no_holder() { ! host_run "$host" sh -c 'cat /proc/[0-9]*/comm' 2>/dev/null | grep -q ferry-hold; }
pages() { sed -n 's/.*fetched *\([0-9]*\) pages.*/\1/p' "$dir/fetcher.out"; }

dumped() {
	mkdir "$dir/images"
	must_work "$ferry" dump -t "$pid" -D "$dir/images" "$@"
	within 5 empty A || fail "something is left after the dump"
}

restored() {
	must_work "$ferry" restore -D "$dir/images" --lazy-pages -d -o restore.log -v4 "$@"
	alive $host || fail "no process $pid after the restore"
}

case_from_an_image() {
	start mem-private
	dumped
	fetcher
	restored
	fetched
	[ "$(pages)" -gt 500 ] || fail "only $(pages) pages were missing: that proves nothing"
	finish A
}

case_restless() {
	start restless
	dumped
	fetcher
	restored
	fetched
	[ "$(pages)" -gt 5000 ] || fail "only $(pages) pages were missing: that proves nothing"
	finish A
}

case_huge_pages() {
	start thp
	dumped
	fetcher
	restored
	fetched
	finish A
}

case_a_family() {
	start brood
	dumped
	fetcher
	restored
	fetched
	finish A
}

# The newest version of each page, of several images
case_a_chain() {
	local n
	start mem-writer
	mkdir "$dir/1" "$dir/images"
	must_work "$ferry" pre-dump -t "$pid" -D "$dir/1"
	sleep 0.3
	must_work "$ferry" dump -t "$pid" -D "$dir/images" --prev-images-dir ../1
	within 5 empty A || fail "something is left after the dump"
	fetcher
	restored
	fetched
	finish A
}

# What is not read is not read: the part of pages.img that holds the rest may be damaged, and only then it shows.
case_damaged() {
	start mem-private
	dumped
	fetcher
	host_run A sh -c 'dd if=/dev/urandom of="$0" bs=4096 seek=$(($(stat -c %s "$0") / 8192)) count=2 conv=notrunc' "$dir/images/pages.img" 2>/dev/null
	in_a "$ferry" restore -D "$dir/images" --lazy-pages -d
	if [ $rc = 0 ]; then
		within 20 grep -q 'corrupt' "$dir/fetcher.err" "$dir/images/fetch.log" || fail "nobody noticed the damage"
		host_run A kill -9 "$pid"
	else
		grep -q corrupt "$dir/out" || fail "restore did not say that: $(tail -n 1 "$dir/out")"
	fi
	kill $fetcher_pid 2>/dev/null
	wait $fetcher_pid || return 0
}

# The one that fetches is killed: nothing is lost, another one goes on.
case_kill_the_fetcher() {
	start restless
	dumped
	fetcher --page-server --address 127.0.0.1 --port 9
	restored
	sleep 0.5
	host_run A sh -c 'for p in /proc/[0-9]*; do [ "$(tr "\0" " " <$p/cmdline 2>/dev/null | cut -d " " -f 2)" = lazy-pages ] && [ "$(cat $p/comm)" = ferry ] && kill -9 ${p#/proc/}; done; :'
	wait $fetcher_pid
	sleep 0.5
	alive A || fail "it has ended without its pages"
	rm "$dir/ready"
	fetcher
	fetched
	finish A
}

case_no_fetcher() {
	start mixture
	dumped
	must_fail 'lazy-pages.*comes first' "$ferry" restore -D "$dir/images" --lazy-pages -d
	within 5 empty A || fail "something is left behind"
	must_work "$ferry" restore -D "$dir/images" -d
	finish A
}

# --- from the stopped original ---------------------------------------------------------------------------

# dump --lazy-pages in A; $port
lazy_dump() {
	mkdir "$dir/images"
	background dump sh -c 'exec 9>"$0/dumped"; exec "$@" --status-fd 9' "$dir" "$ferry" dump -t "$pid" -D "$dir/images" -o dump.log -v4 --lazy-pages --insecure --address "$1"
	within 20 test -s "$dir/dumped" || fail "dump --lazy-pages is not ready: $(tail -n 1 "$dir/dump.err")"
	port=$(sed -n 's/^PORT: //p' "$dir/dump.out")
}

dump_ended() {
	wait $dump_pid
	rc=$?
	[ $rc = 0 ] || fail "dump --lazy-pages failed ($rc): $(tail -n 1 "$dir/dump.err")"
	grep -q 'pages that were kept have been fetched' "$dir/dump.out" || fail "the dump does not say that it is over: $(tail -n 1 "$dir/dump.out")"
	! alive A || fail "a copy is left at the source"
}

case_from_the_stopped_tree() {
	start hot-spot # forks nothing: what a child shares goes along
	host_up B 20000 && host_link A B || fail "no second host"
	lazy_dump 192.0.2.1
	alive A || fail "the original is gone before anybody has its pages"
	[ "$(stat -c %s "$dir/images/pages.img")" -lt 8000000 ] || fail "the image has the pages that stayed behind"
	in_a "$ferry" restore -D "$dir/images" -d
	[ $rc != 0 ] && grep -q 'stopped original.*lazy-pages' "$dir/out" || fail "a restore without them does not say what is wrong: $(tail -n 1 "$dir/out")"
	host=B
	fetcher --page-server --insecure --address 192.0.2.1 --port "$port"
	note "restore in B"
	host_run B timeout 60 "$ferry" restore -D "$dir/images" --lazy-pages -d >"$dir/out" 2>&1 || fail "restore failed: $(tail -n 1 "$dir/out")"
	fetched
	[ "$(pages)" -gt 5000 ] || fail "only $(pages) pages were missing: that proves nothing"
	dump_ended
	finish B
}

# Before anybody has come: the target runs on. After that it must not.
case_cancelled_early() {
	start restless
	lazy_dump 127.0.0.1
	must_work "$ferry" cancel "$pid"
	wait $dump_pid && fail "a cancelled dump reports success"
	alive A || fail "the target is gone"
	finish A
}

case_cancelled_late() {
	start restless env CHILDREN_LATER=1
	host_up B 20000 && host_link A B || fail "no second host"
	host_run A tc qdisc add dev eth0 root tbf rate 10mbit burst 64k latency 50ms 2>/dev/null || skip "no tbf in this kernel"
	lazy_dump 192.0.2.1
	host=B
	fetcher --page-server --insecure --address 192.0.2.1 --port "$port"
	host_run B timeout 60 "$ferry" restore -D "$dir/images" --lazy-pages -d >"$dir/out" 2>&1 || fail "restore failed: $(tail -n 1 "$dir/out")"
	must_work "$ferry" cancel "$pid"
	wait $dump_pid && fail "a cancelled dump reports success"
	grep -q 'may run, and pages of it are only in process' "$dir/dump.err" "$dir/dump.out" || fail "it does not say what is lost: $(tail -n 1 "$dir/dump.err")"
	[ "$(host_run A sh -c 'read -r line <"/proc/$0/stat"; set -- ${line##*) }; echo $1' "$pid")" = T ] || fail "the original does not stand still"
	alive B || fail "what was restored is gone"
	kill $fetcher_pid
}

case_another_image() {
	start restless
	host_up B 20000 && host_link A B || fail "no second host"
	mkdir "$dir/old"
	must_work "$ferry" dump -t "$pid" -D "$dir/old" -R
	lazy_dump 192.0.2.1
	rm -rf "$dir/images" && mv "$dir/old" "$dir/images"
	host=B
	fetcher --page-server --insecure --address 192.0.2.1 --port "$port"
	host_run B timeout 60 "$ferry" restore -D "$dir/images" --lazy-pages -d >"$dir/out" 2>&1 || fail "restore failed: $(tail -n 1 "$dir/out")"
	within 10 grep -q 'belong to another image' "$dir/images/fetch.log" || fail "lazy-pages does not say that these are the wrong pages"
	kill $fetcher_pid
	must_work "$ferry" cancel "$pid"
	wait $dump_pid
	alive A || fail "the original is gone, though nobody had its image"
}

# --- from an image elsewhere ------------------------------------------------------------------------------

case_from_a_page_server() {
	start restless
	dumped
	background server "$ferry" page-server --lazy-pages -D "$dir/images" --address 127.0.0.1 -o serve.log -v4
	within 10 grep -q '^PORT: [0-9]' "$dir/server.out" || fail "the page server names no port: $(tail -n 1 "$dir/server.err")"
	fetcher --page-server --address 127.0.0.1 --port "$(sed -n 's/^PORT: //p' "$dir/server.out")"
	restored
	fetched
	[ "$(pages)" -gt 5000 ] || fail "only $(pages) pages were missing: that proves nothing"
	wait $server_pid || fail "the page server failed: $(tail -n 1 "$dir/server.err")"
	finish A
}

case_daemons() {
	start mem-private
	dumped
	must_work "$ferry" lazy-pages -D "$dir/images" --daemon --pidfile "$dir/fetcher.pid"
	host_run A test -d "/proc/$(cat "$dir/fetcher.pid")" || fail "no process with the pid in the pid file"
	restored
	within 30 host_run A sh -c '! test -d "/proc/$(cat "$0")"' "$dir/fetcher.pid" || fail "lazy-pages has not ended after one session"
	finish A
}

case_wrong_options() {
	start mixture
	take_snapshot proc.before
	mkdir "$dir/images"
	must_fail 'not both' "$ferry" dump -t "$pid" -D "$dir/images" --lazy-pages --page-server --address 127.0.0.1 --port 9
	must_fail 'cannot be left running' "$ferry" dump -t "$pid" -D "$dir/images" --lazy-pages -R
	must_fail 'address and --port' "$ferry" lazy-pages -D "$dir/images" --page-server
	must_fail 'no image' "$ferry" lazy-pages -D "$dir/images"
	untouched
	finish A
}

run_cases "from-an-image restless huge-pages a-family a-chain damaged kill-the-fetcher no-fetcher from-the-stopped-tree cancelled-early cancelled-late another-image from-a-page-server daemons wrong-options" "$@"
