#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Trust between hosts (docs/trust.md):   trust.sh [CASE]...
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

# pair: host B with a ferryd that has a key; keys of A in $dir/ka, of B in $dir/kb
pair() {
	host_up B 20000 && host_link A B || fail "no second host"
	must_work "$ferry" keys init --keys "$dir/ka"
	must_work "$ferry" keys init --keys "$dir/kb"
	ka=$("$ferry" keys show --keys "$dir/ka") kb=$("$ferry" keys show --keys "$dir/kb")
	ka_re=${ka//+/\\+} kb_re=${kb//+/\\+}
	ferryd_b
}

ferryd_b() {
	host_run B "$bin/ferryd" --listen 192.0.2.2 --keys "$dir/kb" -v4 "$@" </dev/null >>"$dir/ferryd.out" 2>&1 &
	within 10 host_run B sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd does not listen: $(tail -n 1 "$dir/ferryd.out")"
}

# trust OF NAME FINGERPRINT [OPTION]...
trust() {
	local of=$1 name=$2 print=$3
	shift 3
	must_work "$ferry" keys trust "$name" --fingerprint "$print" --keys "$dir/$of" "$@"
}

move() { "$1" "${@:2}" "$ferry" migrate "$pid" --to 192.0.2.2 --keys "$dir/ka"; }

case_two_commands() {
	start mixture
	pair
	trust kb 192.0.2.1 "$ka"
	must_fail "$kb_re" "$ferry" keys trust 192.0.2.2 --keys "$dir/ka"
	must_work "$ferry" keys trust 192.0.2.2 --keys "$dir/ka" --yes
	grep -qF "$kb" "$dir/out" || fail "another key than B's is trusted"
	move must_work
	alive B || fail "it did not arrive"
	finish B
}

case_unknown_keys() {
	start mixture
	take_snapshot proc.before
	pair
	move must_fail "$kb_re.*not known.*keys trust 192"
	untouched
	trust ka 192.0.2.2 "$kb"
	move must_fail "$ka_re.*not known"
	untouched
	grep -qF "$ka is not known" "$dir/ferryd.out" || fail "ferryd does not log whom it turned away"
	trust kb 192.0.2.1 "$ka" --grant receive
	move must_fail 'not granted "send"'
	untouched
	trust ka 192.0.2.2 "$kb" --grant send
	move must_fail 'not granted "receive"'
	untouched
	trust ka 192.0.2.2 "$ka"
	move must_fail 'has changed'
	untouched
	must_work "$ferry" keys forget 192.0.2.2 --keys "$dir/ka"
	move must_fail 'not known'
	untouched
	finish A
}

case_no_encryption() {
	start mixture
	take_snapshot proc.before
	pair
	must_fail 'no key in.*keys init' "$ferry" migrate "$pid" --to 192.0.2.2 --keys "$dir/none"
	untouched
	must_fail 'does not encrypt' "$ferry" migrate "$pid" --to 192.0.2.2 --insecure
	untouched
	in_b_fails 'no key' --listen 192.0.2.2:7472 --keys "$dir/none"
	finish A
}

# in_b_fails REGEX OPTION...: a ferryd that does not start
in_b_fails() {
	host_run B env FERRY_RUN_DIR="$dir/run2" timeout 20 "$bin/ferryd" "${@:2}" >"$dir/ferryd2.out" 2>&1 && fail "ferryd started"
	grep -q "$1" "$dir/ferryd2.out" || fail "ferryd said: $(tail -n 1 "$dir/ferryd2.out")"
}

case_signed_by_ca() {
	local host
	start mixture
	pair
	(
		cd "$dir" && openssl genpkey -algorithm ed25519 -out ca.key && openssl req -x509 -new -key ca.key -subj /CN=ours -days 3 -out ca.pem || exit 1
		for host in a:192.0.2.1 b:192.0.2.2; do
			openssl req -new -key "k${host%%:*}/host.key" -subj "/CN=${host%%:*}" -out csr &&
				printf 'subjectAltName=IP:%s\n' "${host#*:}" >ext &&
				openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out "k${host%%:*}/host.crt" &&
				cp ca.pem "k${host%%:*}/" || exit 1
		done
	) >"$dir/openssl.out" 2>&1 || fail "openssl: $(tail -n 1 "$dir/openssl.out")"
	move must_fail 'not known'
	echo '@ca - send,receive' | tee "$dir/ka/known_peers" >"$dir/kb/known_peers"
	move must_work
	finish B
}

# A great many that say nothing, and one that says too much, do not stop a migration.
case_silent_crowd() {
	start mixture
	pair
	trust kb 192.0.2.1 "$ka"
	trust ka 192.0.2.2 "$kb"
	host_run A "$programs/helpers/crowd" 192.0.2.2 7471 "${CROWD:-10000}" >"$dir/crowd" 2>&1 &
	within 30 grep -q ready "$dir/crowd" || fail "the crowd is not there: $(tail -n 1 "$dir/crowd")"
	tree=$(host_pids A)
	move must_work
	alive B || fail "it did not arrive"
	finish B
}

run_cases "two-commands unknown-keys no-encryption signed-by-ca silent-crowd" "$@"
