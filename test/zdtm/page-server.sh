#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Dumps whose memory goes to a page server:   page-server.sh [CASE]...
# The state stays in the images directory of the dump ($dir/here), the memory is with the server ($dir/there); they are put together
# as ferry(1) says. The server writes a whole image or none, and whatever becomes of it, a dump that fails leaves the target as it was.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

# serve DIR [OPTION...]: a server for one dump; sets $port and $server
serve() {
	local to=$1
	shift
	mkdir -p "$to"
	note "ferry page-server -D $to $*"
	: >"$dir/served" # not what the last one said
	host_run A timeout -k 2 90 "$ferry" page-server -D "$to" --address 127.0.0.1 -o "$dir/served.log" -v4 "$@" >"$dir/served" 2>&1 </dev/null &
	server=$!
	within 10 grep -q '^PORT: [0-9]' "$dir/served" || fail "the page server names no port: $(tail -n 1 "$dir/served")"
	port=$(sed -n 's/^PORT: //p' "$dir/served")
}

served() {
	wait $server || fail "the page server failed: $(tail -n 1 "$dir/served")"
	grep -q '^received ' "$dir/served" || fail "the page server does not say what it received"
}

server_failed() {
	! wait $server || fail "the page server reports success"
	[ "$(grep -c '^Error' "$dir/served")" = 1 ] || fail "the page server said not one sentence that starts with Error, but: $(tail -n 3 "$dir/served" | tr '\n' '|')"
}

# to_server VERB OPTION...: a dump of $pid to the server, state in $dir/here
to_server() {
	local verb=$1
	shift
	mkdir -p "$dir/here"
	must_work "$ferry" "$verb" -t "$pid" -D "$dir/here" --page-server --address 127.0.0.1 --port "$port" -o dump.log -v4 "$@"
	served
}

has() {
	local have
	have=$(cd "$1" && ls *.img 2>/dev/null | tr '\n' ' ')
	[ "$have" = "$2 " ] || fail "$1 holds not \"$2\" but \"$have\""
	[ -z "$(ls "$1" | grep '\.part$')" ] || fail "parts are left in $1: $(ls "$1" | tr '\n' ' ')"
}

arrived() {
	alive A || fail "no process $pid after the restore"
	same_as_before -r proc.now A any || fail "the target is not as it was: $(grep -m 2 '^[-+][^-+]' "$dir/proc.diff" | tr '\n' ' ')"
	finish A
}

snapshots() {
	take_snapshot proc.before
	take_snapshot proc.before-r -r
}

case_state_to_the_server() {
	start mixture
	snapshots
	serve "$dir/there"
	to_server dump
	within 5 empty A || fail "something is left after the dump"
	has "$dir/here" "state.img"
	has "$dir/there" "pagemap.img pages.img"
	must_fail 'page server' "$ferry" restore -D "$dir/here" -d
	must_fail 'state\.img' "$ferry" restore -D "$dir/there" -d
	must_work "$ferry" show "$dir/here"
	cp "$dir/here/state.img" "$dir/there/"
	must_work "$ferry" restore -D "$dir/there" -o restore.log -v4 -d
	arrived
}

case_pages_to_the_source() {
	start mem-private
	snapshots
	serve "$dir/there"
	to_server dump
	cp "$dir/there"/*.img "$dir/here/"
	must_work "$ferry" restore -D "$dir/here" -o restore.log -v4 -d
	arrived
}

case_leave_running() {
	start mixture
	snapshots
	serve "$dir/there"
	to_server dump -R
	untouched
	finish A
}

# As many directories on both sides, related in the same way.
case_chain() {
	local n all
	start mem-writer
	mkdir "$dir/A" "$dir/B"
	for n in 1 2 3; do
		mkdir "$dir/A/$n"
		serve "$dir/B/$n"
		must_work "$ferry" "$([ $n = 3 ] && echo dump || echo pre-dump)" -t "$pid" -D "$dir/A/$n" --page-server --address 127.0.0.1 --port "$port" \
			$([ $n = 1 ] || echo --prev-images-dir ../$((n - 1)))
		served
		has "$dir/A/$n" "state.img"
		has "$dir/B/$n" "pagemap.img pages.img"
		all="${all-} $(stat -c %s "$dir/B/$n/pages.img")"
	done
	within 5 empty A || fail "something is left after the dump: $(host_pids A | tr '\n' ' ')"
	echo "bytes of pages:$all" >"$dir/summary"
	cp "$dir/A/3/state.img" "$dir/B/3/"
	must_work "$ferry" restore -D "$dir/B/3" -o restore.log -v4 -d
	alive A || fail "no process $pid after the restore"
	finish A
}

# The image before this one is not at the server: nobody could restore from there.
case_parent_elsewhere() {
	start mem-writer
	take_snapshot proc.before
	mkdir "$dir/A" "$dir/A/1" "$dir/A/2"
	must_work "$ferry" pre-dump -t "$pid" -D "$dir/A/1"
	serve "$dir/there"
	must_fail 'page server.*parent.*\.\./1' "$ferry" dump -t "$pid" -D "$dir/A/2" --prev-images-dir ../1 --page-server --address 127.0.0.1 --port "$port"
	server_failed
	untouched
	[ -z "$(ls "$dir/there" "$dir/A/2" | grep '\.img')" ] || fail "an image was left"
	finish A
}

case_another_image() {
	start empty
	serve "$dir/there"
	to_server dump -R
	cp "$dir/here/state.img" "$dir/old.img"
	serve "$dir/there"
	to_server dump
	cp "$dir/old.img" "$dir/there/state.img"
	must_fail 'not of the same image' "$ferry" restore -D "$dir/there" -d
	within 5 empty A || fail "something is left behind"
	cp "$dir/here/state.img" "$dir/there/"
	must_work "$ferry" restore -D "$dir/there" -d
	finish A
}

case_no_server() {
	start mixture
	take_snapshot proc.before
	mkdir "$dir/here"
	for verb in dump pre-dump; do
		must_fail 'refused' "$ferry" $verb -t "$pid" -D "$dir/here" --page-server --address 127.0.0.1 --port 9
		must_fail 'address' "$ferry" $verb -t "$pid" -D "$dir/here" --page-server --port 9
		must_fail 'port' "$ferry" $verb -t "$pid" -D "$dir/here" --page-server --address 127.0.0.1
		must_fail 'port' "$ferry" $verb -t "$pid" -D "$dir/here" --page-server --address 127.0.0.1 --port 99999
	done
	untouched
	[ -z "$(ls "$dir/here")" ] || fail "files were left in the images directory: $(ls "$dir/here")"
	finish A
}

# Slowly, so that it is in the middle of the pages when the server is killed.
case_server_dies() {
	local dump
	start mixture
	take_snapshot proc.before
	mkdir "$dir/here"
	serve "$dir/there"
	note "dump; the server is killed"
	host_run A timeout -k 2 60 "$ferry" dump -t "$pid" -D "$dir/here" --page-server --address 127.0.0.1 --port "$port" --max-bandwidth 2M >"$dir/out" 2>&1 &
	dump=$!
	within 20 test -s "$dir/there/pages.img.part" || fail "no page arrived at the server"
	host_run A sh -c 'for p in /proc/[0-9]*; do tr "\0" " " <$p/cmdline 2>/dev/null | grep -q "^[^ ]*ferry page-server" && kill -9 ${p#/proc/}; done; :'
	wait $dump
	rc=$?
	said_error 'page server' dump
	wait $server
	untouched
	[ -z "$(ls "$dir/here" "$dir/there" | grep '\.img$')" ] || fail "an image was left"
	# What the killed server left is in nobody's way.
	serve "$dir/there"
	to_server dump
	cp "$dir/here/state.img" "$dir/there/"
	must_work "$ferry" restore -D "$dir/there" -d
	finish A
}

case_server_is_full() {
	start mixture
	take_snapshot proc.before
	mkdir "$dir/here" "$dir/there"
	host_run A mount -t tmpfs -o size=1m tmpfs "$dir/there"
	for verb in dump pre-dump; do
		serve "$dir/there"
		must_fail 'page server.*no space' "$ferry" $verb -t "$pid" -D "$dir/here" --page-server --address 127.0.0.1 --port "$port"
		server_failed
		untouched
	done
	finish A
}

case_daemon() {
	start empty
	mkdir "$dir/there" "$dir/here"
	in_a "$ferry" page-server -D "$dir/there" --address 127.0.0.1 --daemon --pidfile "$dir/server.pid"
	[ $rc = 0 ] || fail "page-server --daemon failed: $(tail -n 1 "$dir/out")"
	port=$(sed -n 's/^PORT: //p' "$dir/out")
	host_run A test -d "/proc/$(cat "$dir/server.pid")" || fail "no server with the pid in the pid file"
	must_work "$ferry" dump -t "$pid" -D "$dir/here" --page-server --address 127.0.0.1 --port "$port"
	within 5 empty A || fail "the server has not ended after one dump"
	cp "$dir/here/state.img" "$dir/there/"
	must_work "$ferry" restore -D "$dir/there" -d
	finish A
}

# Beyond loopback: only over TLS, and only who may. Who may not is in nobody's way.
case_trust() {
	start mixture
	take_snapshot proc.before
	host_up B 20000 && host_link A B || fail "no second host"
	mkdir "$dir/there" "$dir/here"
	must_work "$ferry" keys init --keys "$dir/ka"
	must_work "$ferry" keys init --keys "$dir/kb"
	ka=$("$ferry" keys show --keys "$dir/ka") kb=$("$ferry" keys show --keys "$dir/kb")
	host_run B timeout -k 2 90 "$ferry" page-server -D "$dir/there" --address 192.0.2.2 --port 7400 --keys "$dir/kb" -o "$dir/served.log" -v4 >"$dir/served" 2>&1 </dev/null &
	server=$!
	within 10 host_run B grep -q ' 0A ' /proc/net/tcp || fail "the page server does not listen: $(cat "$dir/served")"
	to_b() { "$@" "$ferry" dump -t "$pid" -D "$dir/here" --page-server --address 192.0.2.2 --port 7400 $how; }
	how="--keys $dir/none" to_b must_fail 'insecure was not said'
	how=--insecure to_b must_fail 'page server.*does not encrypt'
	how="--keys $dir/ka" to_b must_fail 'not known here'
	must_work "$ferry" keys trust 192.0.2.2 --fingerprint "$kb" --keys "$dir/ka"
	how="--keys $dir/ka" to_b must_fail 'not granted "page-serve"'
	must_work "$ferry" keys trust 192.0.2.2 --fingerprint "$kb" --keys "$dir/ka" --grant page-serve
	must_work "$ferry" keys trust 192.0.2.1 --fingerprint "$ka" --keys "$dir/kb"
	how="--keys $dir/ka" to_b must_fail 'page server.*not granted "page-serve"'
	untouched
	[ -z "$(ls "$dir/there")" ] || fail "somebody who may not has written: $(ls "$dir/there")"
	must_work "$ferry" keys trust 192.0.2.1 --fingerprint "$ka" --keys "$dir/kb" --grant page-serve
	how="--keys $dir/ka" to_b must_work
	served
	cp "$dir/here/state.img" "$dir/there/"
	must_work "$ferry" restore -D "$dir/there" -d
	finish A
}

# certificate NAME: of the authority, for 127.0.0.1, both as server and as client
certificate() {
	(
		cd "$dir" && openssl genpkey -algorithm ed25519 -out "$1.key" && chmod 600 "$1.key" &&
			openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr" &&
			echo "subjectAltName=${2:-IP:127.0.0.1}" >ext &&
			openssl x509 -req -in "$1.csr" -CA "${3:-ca}.pem" -CAkey "${3:-ca}.key" -CAcreateserial -days 2 -extfile ext -out "$1.crt"
	) >>"$dir/openssl.out" 2>&1 || fail "openssl: $(tail -n 1 "$dir/openssl.out")"
}
authority() {
	(cd "$dir" && openssl genpkey -algorithm ed25519 -out "$1.key" && openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 3 -out "$1.pem") \
		>>"$dir/openssl.out" 2>&1 || fail "openssl: $(tail -n 1 "$dir/openssl.out")"
}
files() { echo "--tls --tls-cacert $dir/${2:-ca}.pem --tls-cert $dir/$1.crt --tls-key $dir/$1.key"; }

# Certificates in files, as scripts give them; also over loopback.
case_certificates() {
	command -v openssl >/dev/null || skip "no openssl program"
	start mixture
	take_snapshot proc.before
	mkdir "$dir/there" "$dir/here"
	authority ca
	authority other
	certificate server
	certificate client
	certificate stranger IP:127.0.0.1 other
	certificate elsewhere DNS:elsewhere.example
	to_server() { "$@" "$ferry" dump -t "$pid" -D "$dir/here" --page-server --address 127.0.0.1 --port 7400 $how; }
	serve_with() {
		host_run A timeout -k 2 90 "$ferry" page-server -D "$dir/there" --address 127.0.0.1 --port 7400 $(files $1) -o "$dir/served.log" -v4 >"$dir/served" 2>&1 </dev/null &
		server=$!
		within 10 host_run A grep -q ' 0A ' /proc/net/tcp || fail "the page server does not listen: $(cat "$dir/served")"
	}
	how="--tls --tls-cert $dir/client.crt" to_server must_fail 'go together'
	how="$(files client) --insecure" to_server must_fail 'exclude each other'
	serve_with server
	how= to_server must_fail 'page server.*does not encrypt, and --tls was said'
	how=$(files stranger) to_server must_fail 'page server.*not signed by'
	# The server has let us in by then, and what we had to say to it is over.
	how=$(files client other) to_server must_fail 'of 127.0.0.1 is not signed by'
	wait $server
	untouched
	serve_with server
	how=$(files client) to_server must_work
	served
	cp "$dir/here/state.img" "$dir/there/"
	must_work "$ferry" restore -D "$dir/there" -d
	rm -rf "$dir/there" "$dir/here"
	mkdir "$dir/there" "$dir/here"
	serve_with elsewhere
	how=$(files client) to_server must_fail 'of 127.0.0.1 is not signed by .*, or is for another name'
	wait $server
	serve_with elsewhere
	how="$(files client) --tls-no-cn-verify" to_server must_work
	served
	cp "$dir/here/state.img" "$dir/there/"
	must_work "$ferry" restore -D "$dir/there" -d
	finish A
}

run_cases "state-to-the-server pages-to-the-source leave-running chain parent-elsewhere another-image no-server server-dies server-is-full daemon trust certificates" "$@"
