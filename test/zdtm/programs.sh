#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Real programs, dumped and restored three times at work, or (NAME-moved) migrated three times:   programs.sh [CASE]...
# Each counts in a file and checks itself; what is not installed is skipped. /tmp and the like are shared by both hosts.
set -u
for f in /proc/$$/fd/*; do
	f=${f##*/}
	[ "$f" -le 2 ] || [ "$f" = 255 ] || eval "exec $f>&-"
done
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib/cases.sh"

# launch CMD...: in a session of its own, its output in $dir/said
launch() {
	chmod 755 "$dir"
	host_run A setsid -f sh -c 'echo $$ >"$0/pid.new" && mv "$0/pid.new" "$0/pid"; cd "$0"; exec "$@"' "$dir" env -i PATH="$PATH" HOME="$dir" "$@" </dev/null >"$dir/said" 2>&1
	within 10 test -s "$dir/pid" || fail "the program did not start"
	read -r pid <"$dir/pid"
}

step=5 # so far it must get to be at work
count() { local n=$(tail -n 1 "$dir/count" 2>/dev/null); echo "${n:-0}"; }

counted() { [ "$(count)" -ge "$1" ]; }

# It goes on counting from where it was.
at_work() { within 20 counted $(($(count) + step)) || fail "it does not count any more: $(tail -n 3 "$dir/said" | tr '\n' '|')"; }

# taken VERB ARG...: where the program is. A connection in the moment before it is accepted is refused, and so is a lock that is held on
# a file which both hosts share (docs/limits.md): then once more.
at=A
taken() {
	local try
	for try in {1..20}; do
		note "[$at] $*"
		host_run $at timeout -k 2 90 "$ferry" "$@" -v4 --ghost-limit 64M >"$dir/out" 2>&1
		rc=$?
		[ $rc != 0 ] && grep -qE 'Error: .* (which is not accepted yet|has locked the file here)' "$dir/out" || break
	done
	[ $rc = 0 ] || fail "ferry $1 failed ($rc): $(tail -n 1 "$dir/out")"
}

dumped_and_restored() {
	mkdir "$dir/images.$1"
	taken dump -t "$pid" -D "$dir/images.$1" -o dump.log
	within 5 empty A || fail "something is left after the dump"
	must_work "$ferry" restore -d -D "$dir/images.$1" -o restore.log -v4
}

# To the other host, that is; the daemons of both are started by the first time.
moved() {
	local to=B address=192.0.2.2
	if [ "$1" = 1 ]; then
		host_up B 20000 && host_link A B || fail "no second host"
		host_run A "$bin/ferryd" --insecure --listen 192.0.2.1 </dev/null >>"$dir/ferryd-a.out" 2>&1 &
		start_ferryd
		within 10 host_run A sh -c 'grep -q " 0A " /proc/net/tcp' || fail "ferryd of A does not listen"
	fi
	[ $at = A ] || to=A address=192.0.2.1
	taken migrate "$pid" --to $address --insecure -o "$dir/migrate.log" --on-stall stop
	downtimes+=" $(sed -nE 's/.*downtime *([0-9.]+ *m?s).*/\1/p' "$dir/out" | tail -n 1),"
	! alive $at || fail "it is still in $at"
	at=$to
}

how=dumped_and_restored downtimes=
three_times() {
	local n
	within 30 counted $step || fail "it does not count: $(tail -n 3 "$dir/said" | tr '\n' '|')"
	for n in 1 2 3; do
		$how $n
		alive $at || fail "no process $pid in $at, time $n: $(tail -n 3 "$dir/said" | tr '\n' '|')"
		at_work
	done
	: >"$dir/stop"
	within 20 test -e "$dir/verdict" || fail "it gives no verdict: $(tail -n 3 "$dir/said" | tr '\n' '|')"
	[ "$(cat "$dir/verdict")" = good ] || fail "it says: $(cat "$dir/verdict")"
	if [ $how = moved ]; then
		within 10 eval '! alive $at' || fail "it does not end"
		echo "counted to $(count), downtimes ${downtimes%,}" >"$dir/summary"
	else
		within 10 empty A || fail "something is left at the end"
		echo "counted to $(count)" >"$dir/summary"
	fi
}

# Threads, and processes that get work through queues and locks.
case_python() {
	[ -x /usr/bin/python3 ] || skip "needs python3"
	cat >"$dir/program.py" <<-'EOF'
		import multiprocessing as mp, os, threading, time
		def square(work, done):
		    for n in iter(work.get, None):
		        done.put((n, n * n))
		total = [0] * 4
		stopping = threading.Event()
		def spin(i):
		    while not stopping.wait(0.003):
		        total[i] += 1
		if __name__ == '__main__':
		    work, done = mp.Queue(), mp.Queue()
		    workers = [mp.Process(target=square, args=(work, done)) for _ in range(3)]
		    [w.start() for w in workers]
		    threads = [threading.Thread(target=spin, args=(i,)) for i in range(4)]
		    [t.start() for t in threads]
		    n, verdict = 0, 'good'
		    while not os.path.exists('stop'):
		        n += 1
		        for k in range(10): work.put(n * 10 + k)
		        got = dict(done.get(timeout=30) for _ in range(10))
		        if got != {n * 10 + k: (n * 10 + k) ** 2 for k in range(10)}: verdict = 'wrong squares: %s' % got
		        with open('count', 'w') as f: f.write('%d\n' % n)
		        time.sleep(0.02)
		    before = list(total); time.sleep(0.5)
		    if any(a <= b for a, b in zip(total, before)): verdict = 'a thread stands still'
		    stopping.set(); [t.join() for t in threads]
		    [work.put(None) for _ in workers]; [w.join(30) for w in workers]
		    if any(w.exitcode != 0 for w in workers): verdict = 'exit codes %s' % [w.exitcode for w in workers]
		    with open('verdict.new', 'w') as f: f.write(verdict)
		    os.rename('verdict.new', 'verdict')
	EOF
	launch /usr/bin/python3 program.py
	three_times
}

# Timers, a worker thread, a thread pool and a server with a client on a unix socket.
case_node() {
	command -v node >/dev/null || skip "needs node"
	cat >"$dir/program.js" <<-'EOF'
		const fs = require('fs'), net = require('net'), crypto = require('crypto');
		const { Worker, isMainThread, parentPort } = require('worker_threads');
		if (!isMainThread) {
			parentPort.on('message', (n) => n === null ? process.exit(0) : parentPort.postMessage([n, n * n]));
		} else {
			let n = 0, verdict = 'good', ticks = 0;
			const worker = new Worker(__filename), name = __dirname + '/socket';
			setInterval(() => ticks++, 5);
			worker.on('message', ([a, b]) => { if (b !== a * a) verdict = 'wrong square'; });
			net.createServer((s) => s.pipe(s)).listen(name, () => {
				const client = net.connect(name);
				const next = () => {
					if (fs.existsSync('stop')) {
						if (ticks < n) verdict = 'the timer stands still';
						fs.writeFileSync('verdict.new', verdict);
						fs.renameSync('verdict.new', 'verdict');
						process.exit(0);
					}
					worker.postMessage(++n);
					client.write('message ' + n);
				};
				client.on('data', (d) => {
					if (String(d) !== 'message ' + n) verdict = 'wrong echo ' + d;
					crypto.pbkdf2('x', 'y', 100, 16, 'sha256', () => { fs.writeFileSync('count', n + '\n'); setTimeout(next, 10); });
				});
				next();
			});
		}
	EOF
	launch node program.js
	three_times
}

# A runtime with a compiler, a collector and their threads.
case_java() {
	command -v java >/dev/null && java --version >/dev/null 2>&1 || skip "needs java"
	cat >"$dir/Program.java" <<-'EOF'
		import java.nio.file.*; import java.util.*; import java.util.concurrent.*;
		public class Program {
			public static void main(String[] a) throws Exception {
				ExecutorService pool = Executors.newFixedThreadPool(4);
				String verdict = "good";
				long n = 0;
				while (!Files.exists(Path.of("stop"))) {
					List<Future<Long>> all = new ArrayList<>();
					n++;
					for (int i = 0; i < 8; i++) { final long k = n * i; all.add(pool.submit(() -> { byte[] b = new byte[10000]; return k * k + b[5]; })); }
					for (int i = 0; i < 8; i++) if (all.get(i).get() != n * i * n * i) verdict = "wrong square";
					Files.writeString(Path.of("count"), n + "\n");
					Thread.sleep(10);
				}
				pool.shutdown();
				Files.writeString(Path.of("verdict.new"), verdict);
				Files.move(Path.of("verdict.new"), Path.of("verdict"));
			}
		}
	EOF
	launch java -Xmx128m Program.java
	three_times
}

case_sqlite() {
	command -v sqlite3 >/dev/null || skip "needs sqlite3"
	cat >"$dir/program.sh" <<-'EOF'
		mkfifo in
		sqlite3 data.db <in >answers 2>&1 &
		exec 3>in
		echo "create table t(n integer primary key, v text);" >&3
		n=0
		while [ ! -e stop ]; do
			n=$((n + 1))
			echo "begin; insert into t values($n, hex(randomblob(500))); commit;" >&3
			echo $n >count
			sleep 0.02
		done
		echo "pragma integrity_check; select count(*) = $n from t;" >&3
		exec 3>&-
		wait
		[ "$(tr '\n' ' ' <answers)" = "ok 1 " ] && echo good >verdict.new || cp answers verdict.new
		mv verdict.new verdict
	EOF
	launch bash program.sh
	three_times
}

# A server with its processes of another user, and clients that come and go.
case_postgres() {
	command -v initdb psql postgres >/dev/null || skip "needs postgresql (initdb, psql and postgres in the path)"
	mkdir "$dir/pg" && chown nobody "$dir/pg"
	cat >"$dir/program.sh" <<-'EOF'
		as="setpriv --reuid 65534 --clear-groups --inh-caps -all"
		export LC_ALL=C
		$as initdb -D pg/data -A trust -U x -N >initdb.out 2>&1 || { cp initdb.out verdict; exit 1; }
		$as postgres -D pg/data -k "$PWD/pg" -c listen_addresses= -c fsync=off >postgres.out 2>&1 &
		server=$!
		sql() { psql -h "$PWD/pg" -U x -d postgres -Atqc "$1" 2>>sql.err; }
		until sql "create table t(n int primary key, v text)"; do sleep 0.1; done
		n=0 verdict=good
		while [ ! -e stop ]; do
			n=$((n + 1))
			[ "$(sql "insert into t values($n, repeat('x', 1000)); select count(*) from t")" = $n ] || verdict="no $n rows: $(tail -n 1 sql.err)"
			echo $n >count
		done
		kill -INT $server
		wait $server || verdict="the server ended with $?"
		echo "$verdict" >verdict.new
		mv verdict.new verdict
	EOF
	launch bash program.sh
	three_times
}

# A compiler in the middle of its work: parallel, with pipes between its stages, again and again.
case_gcc() {
	command -v gcc >/dev/null && command -v make >/dev/null || skip "needs gcc and make"
	for i in 1 2 3 4 5 6; do
		{
			for k in $(seq 25); do echo "int f${i}_$k(int a) { int s = 0; for (int i = 0; i < a; i++) s += i * $k; return s; }"; done
		} >"$dir/part$i.c"
	done
	echo 'extern int f1_2(int), f6_3(int); int main(void) { return f1_2(3) + f6_3(4) == 24 ? 0 : 1; }' >"$dir/main.c"
	printf 'all: program\n%%.o: %%.c\n\tgcc -pipe -O2 -c -o $@ $<\nprogram: main.o part1.o part2.o part3.o part4.o part5.o part6.o\n\tgcc -o $@ $^\nclean:\n\trm -f *.o program\n' >"$dir/Makefile"
	cat >"$dir/program.sh" <<-'EOF'
		n=0 verdict=good
		while [ ! -e stop ]; do
			make clean >/dev/null && make -j2 >make.out 2>&1 && ./program || verdict="build $n failed: $(tail -n 2 make.out | tr '\n' '|')"
			n=$((n + 1))
			echo $n >count
		done
		echo "$verdict" >verdict.new
		mv verdict.new verdict
	EOF
	step=1
	launch bash program.sh
	three_times
}

# A server with workers of another user, and clients that come over TLS; by a unix socket, as TCP connections are a matter of their own.
case_nginx() {
	command -v nginx >/dev/null && command -v openssl >/dev/null && [ -x /usr/bin/python3 ] || skip "needs nginx, openssl and python3"
	openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/key.pem" -out "$dir/cert.pem" -days 2 -subj /CN=localhost >/dev/null 2>&1 || fail "openssl"
	mkdir "$dir/www" "$dir/tmp" && chmod 777 "$dir/tmp"
	head -c 300000 /dev/urandom >"$dir/www/large"
	cat >"$dir/nginx.conf" <<-EOF
		user nobody nogroup;
		worker_processes 3;
		daemon off;
		pid $dir/nginx.pid;
		error_log $dir/error.log;
		events { worker_connections 64; }
		http {
			access_log off;
			client_body_temp_path $dir/tmp/body; proxy_temp_path $dir/tmp/proxy; fastcgi_temp_path $dir/tmp/fastcgi; uwsgi_temp_path $dir/tmp/uwsgi; scgi_temp_path $dir/tmp/scgi;
			limit_req_zone \$request_uri zone=one:1m rate=1000r/s;
			server {
				listen unix:$dir/socket ssl;
				ssl_certificate $dir/cert.pem; ssl_certificate_key $dir/key.pem; ssl_session_cache shared:tls:1m;
				location / { root $dir/www; limit_req zone=one burst=100; }
			}
		}
	EOF
	cat >"$dir/program.py" <<-'EOF'
		import hashlib, os, signal, socket, ssl, subprocess, time
		want = hashlib.sha256(open('www/large', 'rb').read()).digest()
		server = subprocess.Popen(['nginx', '-c', os.getcwd() + '/nginx.conf', '-p', os.getcwd()])
		tls = ssl.create_default_context(cafile='cert.pem')
		def connect():
		    s = socket.socket(socket.AF_UNIX)
		    s.settimeout(30)
		    s.connect('socket')
		    return tls.wrap_socket(s, server_hostname='localhost').makefile('rwb')
		def get(c):
		    c.write(b'GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n')
		    c.flush()
		    status, length = c.readline(), 0
		    for line in iter(c.readline, b'\r\n'):
		        if line.lower().startswith(b'content-length:'): length = int(line[15:])
		    return status.split()[1] == b'200' and hashlib.sha256(c.read(length)).digest() == want
		while not os.path.exists('socket'): time.sleep(0.02)
		kept, n, verdict = connect(), 0, 'good'
		while not os.path.exists('stop'):
		    if not get(kept): verdict = 'wrong answer to request %d' % n
		    if n % 100 == 99: kept = connect()
		    other = connect()
		    if not get(other): verdict = 'wrong answer to request %d of its own' % n
		    other.close()
		    n += 1
		    with open('count', 'w') as f: f.write('%d\n' % n)
		    time.sleep(0.005)
		kept.close()
		server.send_signal(signal.SIGQUIT)
		if server.wait(30): verdict = 'the server ended with %d' % server.returncode
		with open('verdict.new', 'w') as f: f.write(verdict)
		os.rename('verdict.new', 'verdict')
	EOF
	launch /usr/bin/python3 program.py
	three_times
}

# Threads that wait for one another, throw, and use what a thread has of its own.
case_cpp() {
	command -v g++ >/dev/null || skip "needs g++"
	cat >"$dir/program.cc" <<-'EOF'
		#include <atomic>
		#include <chrono>
		#include <condition_variable>
		#include <fstream>
		#include <future>
		#include <map>
		#include <memory>
		#include <mutex>
		#include <queue>
		#include <stdexcept>
		#include <string>
		#include <sys/stat.h>
		#include <thread>
		#include <vector>
		std::mutex m;
		std::condition_variable filled, done;
		std::queue<long> work;
		std::map<long, long> got;
		bool ending;
		std::atomic<long> thrown;
		thread_local std::unique_ptr<long> turns;
		static long square(long n) { if (n % 7 == 0) throw std::runtime_error(std::to_string(n)); return n * n; }
		static long worker() {
			turns = std::make_unique<long>(0);
			std::unique_lock<std::mutex> lock(m);
			for (;;) {
				filled.wait_for(lock, std::chrono::milliseconds(50), [] { return ending || !work.empty(); });
				if (work.empty()) { if (ending) return *turns; continue; }
				long n = work.front(), r; work.pop();
				lock.unlock();
				try { r = square(n); } catch (const std::runtime_error &e) { thrown++; r = -std::stol(e.what()); }
				++*turns;
				lock.lock();
				got[n] = r;
				done.notify_one();
			}
		}
		int main() {
			std::vector<std::future<long>> workers;
			std::string verdict = "good";
			struct stat st;
			long n = 0, all = 0, put = 0;
			for (int i = 0; i < 8; i++) workers.push_back(std::async(std::launch::async, worker));
			while (stat("stop", &st)) {
				std::unique_lock<std::mutex> lock(m);
				got.clear();
				for (int i = 0; i < 50; i++, put++) work.push(n * 50 + i);
				filled.notify_all();
				done.wait(lock, [] { return got.size() == 50; });
				for (auto &x : got) if (x.second != (x.first % 7 ? x.first * x.first : -x.first)) verdict = "wrong: " + std::to_string(x.first);
				lock.unlock();
				std::ofstream("count") << ++n << std::endl;
				std::this_thread::sleep_for(std::chrono::milliseconds(5));
			}
			{ std::lock_guard<std::mutex> lock(m); ending = true; }
			filled.notify_all();
			for (auto &w : workers) all += w.get();
			if (all != put || thrown != (put + 6) / 7) verdict = std::to_string(all) + " done of " + std::to_string(put) + ", " + std::to_string(thrown) + " thrown";
			std::ofstream("verdict.new") << verdict << std::endl;
			return rename("verdict.new", "verdict");
		}
	EOF
	g++ -O1 -pthread -o "$dir/program" "$dir/program.cc" >"$dir/compiled" 2>&1 || fail "g++: $(head -n 1 "$dir/compiled")"
	launch ./program
	three_times
}

case_rust() {
	local rustc
	rustc=$(command -v rustc) && "$rustc" --version >/dev/null 2>&1 || skip "needs rustc"
	cat >"$dir/program.rs" <<-'EOF'
		use std::{fs, io::{Read, Write}, os::unix::net::{UnixListener, UnixStream}, path::Path, sync::{mpsc, Arc, Mutex, RwLock}, thread, time::Duration};
		fn main() {
		    let seen = Arc::new(RwLock::new(0u64));
		    let (work, queue) = mpsc::channel::<u64>();
		    let (back, results) = mpsc::channel::<(u64, u64)>();
		    let queue = Arc::new(Mutex::new(queue));
		    let workers: Vec<_> = (0..8).map(|_| { let (q, b, s) = (queue.clone(), back.clone(), seen.clone()); thread::spawn(move || loop {
		        let n = match q.lock().unwrap().recv() { Ok(n) => n, Err(_) => return };
		        let r = std::panic::catch_unwind(|| n.wrapping_mul(n)).unwrap();
		        *s.write().unwrap() += 1;
		        b.send((n, r)).unwrap();
		    }) }).collect();
		    let listener = UnixListener::bind("socket").unwrap();
		    thread::spawn(move || for s in listener.incoming() { let mut s = s.unwrap(); thread::spawn(move || { let mut b = [0u8; 64]; while let Ok(n) = s.read(&mut b) { if n == 0 { break } s.write_all(&b[..n]).unwrap(); } }); });
		    let mut echo = UnixStream::connect("socket").unwrap();
		    let (mut n, mut verdict) = (0u64, "good".to_string());
		    while !Path::new("stop").exists() {
		        for k in 0..20 { work.send(n * 20 + k).unwrap(); }
		        for _ in 0..20 { let (a, b) = results.recv().unwrap(); if a.wrapping_mul(a) != b { verdict = format!("wrong: {} {}", a, b); } }
		        let mut b = [0u8; 8];
		        echo.write_all(&n.to_le_bytes()).unwrap();
		        echo.read_exact(&mut b).unwrap();
		        if u64::from_le_bytes(b) != n { verdict = "wrong echo".to_string(); }
		        n += 1;
		        fs::write("count", format!("{}\n", n)).unwrap();
		        thread::sleep(Duration::from_millis(5));
		    }
		    drop(work);
		    for w in workers { w.join().unwrap(); }
		    if *seen.read().unwrap() != n * 20 { verdict = format!("{} done of {}", seen.read().unwrap(), n * 20); }
		    fs::write("verdict.new", verdict).unwrap();
		    fs::rename("verdict.new", "verdict").unwrap();
		}
	EOF
	"$rustc" -O -o "$dir/program" "$dir/program.rs" >"$dir/compiled" 2>&1 || fail "rustc: $(head -n 1 "$dir/compiled")"
	launch ./program
	three_times
}

every="python node java sqlite postgres gcc nginx cpp rust"
for name in $every; do
	eval "case_${name}_moved() { how=moved; case_$name; }"
done
run_cases "$every ${every// /-moved }-moved" "$@"
