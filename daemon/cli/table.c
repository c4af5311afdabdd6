/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/table.h"

#include "base/util.h"
#include "cli/report.h"
#include "cli/verbs.h"
#include "migrate/keys.h"

/* With pages over the network. */
#define SERVING    (VERB_DUMP | VERB_PREDUMP | VERB_PAGE_SERVER | VERB_LAZY_PAGES)
#define AT(member) offsetof(struct cli_options, member)
#define ANY        OPT_COMPAT
/* Rows without storage: accepted because they ask for what happens anyway, or refused because they change the
 * result. */
#define ACCEPT(name, type)                                                                   \
	{                                                                                    \
		name, 0, type, OPT_COMPAT | OPT_ACCEPTED, 0, 0, NULL, NULL, 0, 0, NULL, NULL \
	}
#define REFUSE(name, type, verbs, why)                                                             \
	{                                                                                          \
		name, 0, type, OPT_COMPAT | OPT_UNSUPPORTED, verbs, 0, NULL, NULL, 0, 0, NULL, why \
	}

static const struct opt rows[] = {
	/* name, letter, type, flags, verbs, offset, arg, default, min, max, unit, help */
	{"tree", 't', OPT_INT, ANY | OPT_COMMAND, VERB_TRACKS | VERB_CANCEL, AT(tree), "PID", NULL, 1,
	 1 << 22, NULL, "the root of the process tree"},
	/* What ferryd gives when it acts for somebody (service/errands.h). */
	{"owner", 0, OPT_INT, OPT_COMMAND, VERB_DUMP | VERB_MIGRATE | VERB_STATUS | VERB_CANCEL, AT(owner),
	 "UID", "-1", -1, UINT32_MAX - 1, NULL,
	 "refuse what is not wholly this user's; -1: all (ferryd says so when it acts for somebody)"},
	{"to", 0, OPT_STRING, 0, VERB_MIGRATE, AT(to), "HOST[:PORT]", NULL, 0, 0, NULL,
	 "where ferryd listens (default port 7471)"},
	{"insecure", 0, OPT_FLAG, 0, VERB_MIGRATE | VERB_RESUME | SERVING, AT(insecure), NULL, NULL, 0, 0,
	 NULL, "plain TCP to another machine: no encryption, no proof of who answers"},
	{"keys", 0, OPT_STRING, 0, VERB_MIGRATE | VERB_KEYS | VERB_RESUME | SERVING, AT(keys), "DIR",
	 KEYS_DIR, 0, 0, NULL, "the host key and the peers that are trusted"},
	{"tls", 0, OPT_FLAG, ANY, SERVING, AT(tls), NULL, NULL, 0, 0, NULL,
	 "pages go over TLS, also over loopback; with --tls-cacert, --tls-cert and --tls-key in the place of "
	 "--keys"},
	{"tls-cacert", 0, OPT_STRING, ANY, SERVING, AT(tls_cacert), "FILE", NULL, 0, 0, NULL,
	 "with --tls: whoever shows a certificate of this authority is trusted"},
	{"tls-cert", 0, OPT_STRING, ANY, SERVING, AT(tls_cert), "FILE", NULL, 0, 0, NULL,
	 "with --tls: our certificate"},
	{"tls-key", 0, OPT_STRING, ANY, SERVING, AT(tls_key), "FILE", NULL, 0, 0, NULL,
	 "with --tls: our private key"},
	{"tls-no-cn-verify", 0, OPT_FLAG, ANY, SERVING, AT(tls_no_cn_verify), NULL, NULL, 0, 0, NULL,
	 "with --tls: the server's certificate may be for another name"},
	{"here", 0, OPT_FLAG, OPT_COMMAND, VERB_RESUME, AT(here), NULL, NULL, 0, 0, NULL,
	 "do not ask: it does not run there, so let the copy here run on"},
	{"there", 0, OPT_FLAG, OPT_COMMAND, VERB_RESUME, AT(there), NULL, NULL, 0, 0, NULL,
	 "do not ask: it runs there, or has run, so end the copy here"},
	{"force", 0, OPT_FLAG, OPT_COMMAND, VERB_RESUME, AT(force), NULL, NULL, 0, 0, NULL,
	 "with --there: also if pages of the program are only here and will be lost; with --here: also if it "
	 "has "
	 "run there, on a machine that was restarted since"},
	{"fingerprint", 0, OPT_STRING, OPT_COMMAND, VERB_KEYS, AT(fingerprint), "SHA256:...", NULL, 0, 0,
	 NULL, "trust: the key of that host, as \"ferry keys show\" prints it there"},
	{"grant", 0, OPT_STRING, 0, VERB_KEYS, AT(grant), "LIST", "send,receive", 0, 0, NULL,
	 "trust: what the peer may do: send, receive, page-serve"},
	{"yes", 'y', OPT_FLAG, OPT_COMMAND, VERB_KEYS, AT(yes), NULL, NULL, 0, 0, NULL, "trust: do not ask"},
	{"images-dir", 'D', OPT_STRING, ANY, VERB_IMAGES, AT(images_dir), "DIR", ".", 0, 0, NULL,
	 "the images directory"},
	{"work-dir", 'W', OPT_STRING, ANY, 0, AT(work_dir), "DIR", NULL, 0, 0, NULL,
	 "where log file and pid file go (default: the images directory)"},
	{"log-file", 'o', OPT_STRING, ANY, 0, AT(log_file), "FILE", NULL, 0, 0, NULL, "write a log"},
	{"verbosity", 'v', OPT_LEVEL, ANY, 0, AT(verbosity), "LEVEL", "2", 0, 4, NULL,
	 "1 errors, 2 warnings, 3 information, 4 debug; -v, -vv: more"},
	{"json", 0, OPT_FLAG, 0,
	 VERB_TRACKS | VERB_RESTORE | VERB_SHOW | VERB_STATUS | VERB_CHECK | VERB_RESUME | VERB_REPORT |
		 VERB_LAZY_PAGES,
	 AT(json), NULL, NULL, 0, 0, NULL, "one JSON object per line on the standard output"},

	{"leave-running", 'R', OPT_FLAG, ANY, VERB_DUMP, AT(leave_running), NULL, NULL, 0, 0, NULL,
	 "the target runs on"},
	{"leave-stopped", 's', OPT_FLAG, ANY, VERB_DUMP | VERB_RESTORE, AT(leave_stopped), NULL, NULL, 0, 0,
	 NULL, "leave the tree stopped (SIGSTOP)"},
	{"prev-images-dir", 0, OPT_STRING, ANY | OPT_COMMAND, VERB_DUMP | VERB_PREDUMP, AT(prev_images_dir),
	 "DIR", NULL, 0, 0, NULL,
	 "write only what changed since that image; relative to the images directory"},
	{"backend", 0, OPT_STRING, 0, VERB_TRACKS, AT(backend), "NAME", "auto", 0, 0, NULL,
	 "dirty tracking: auto, none, or a name of ferry check"},
	{"backend-dir", 0, OPT_STRING, 0, VERB_TRACKS | VERB_CHECK, AT(backend_dir), "DIR", NULL, 0, 0, NULL,
	 "where the plugins for dirty tracking are, instead of those that came with ferry"},
	{"max-rounds", 0, OPT_INT, 0, VERB_TRACKS, AT(max_rounds), "N", "30", 1, 60, "rounds",
	 "copy at most so often before the freeze"},
	{"downtime", 0, OPT_INT, 0, VERB_TRACKS, AT(downtime), "MS", "50", 1, 3600000, "ms",
	 "the budget: freeze when the rest can be copied in this time"},
	{"on-stall", 0, OPT_STRING, 0, VERB_CAPTURES, AT(on_stall), "WHAT", NULL, 0, 0, NULL,
	 "when the target writes too fast for that: throttle it, stop it for longer, abort, or (migrate) "
	 "postcopy: start it there and fetch the rest (default: migrate postcopy, where that is possible; "
	 "else "
	 "stop)"},
	{"post-copy", 0, OPT_INT, 0, VERB_MIGRATE, AT(post_copy), "N", NULL, 1, 60, "rounds",
	 "start it there after so many rounds, and fetch the rest of its memory while it runs"},
	{"max-downtime", 0, OPT_INT, 0, VERB_CAPTURES, AT(max_downtime), "MS", NULL, 1, 3600000, "ms",
	 "give up rather than stop the target for longer"},
	{"time-limit", 0, OPT_TIME, 0, VERB_MIGRATE, AT(time_limit), "TIME", NULL, 1, 604800000, NULL,
	 "give up when the rounds take longer"},
	{"max-bandwidth", 0, OPT_SIZE, 0, VERB_TRACKS, AT(max_bandwidth), "BYTES", NULL, 0, 0,
	 "bytes/s, 0: no limit", "copy no faster than this while the target runs; track: predict with it"},
	{"watch", 'w', OPT_FLAG, OPT_COMMAND, VERB_STATUS, AT(watch), NULL, NULL, 0, 0, NULL,
	 "show it anew each second, until Ctrl-C"},
	{"streams", 0, OPT_INT, 0, VERB_MIGRATE, AT(streams), "N", "1", 1, 16, "connections",
	 "use so many connections at once"},
	{"compress", 0, OPT_STRING, 0, VERB_MIGRATE, AT(compress), "HOW", "auto", 0, 0, NULL,
	 "pack page data on their way: none, lz4, zstd, or auto: whatever is quickest over this link"},
	{"timeout", 0, OPT_INT, ANY, VERB_TRACKS, AT(timeout), "S", "10", 1, 86400, "s",
	 "how long to wait for a thread that cannot be stopped; for one call of a backend three times as "
	 "long"},
	{"freeze-cgroup", 0, OPT_STRING, ANY, VERB_CAPTURES, AT(freeze_cgroup), "DIR", NULL, 0, 0, NULL,
	 "stop the tree with this cgroup's freezer"},
	{"shell-job", 'j', OPT_FLAG, ANY, VERB_CAPTURES | VERB_RESTORE, AT(shell_job), NULL, NULL, 0, 0, NULL,
	 "the tree belongs to a session outside of it"},
	{"tcp-close", 0, OPT_FLAG, ANY, VERB_CAPTURES | VERB_RESTORE, AT(tcp_close), NULL, NULL, 0, 0, NULL,
	 "established TCP connections arrive closed"},
	{"tcp-established", 0, OPT_FLAG, ANY, VERB_CAPTURES | VERB_RESTORE, AT(tcp_established), NULL, NULL,
	 0, 0, NULL, "established TCP connections go along"},
	{"move-address", 0, OPT_FLAG, 0, VERB_MIGRATE, AT(move_address), NULL, NULL, 0, 0, NULL,
	 "the addresses its sockets are bound to move to the destination with it"},
	{"ext-unix-sk", 'x', OPT_FLAG, ANY, VERB_CAPTURES | VERB_RESTORE, AT(ext_unix_sk), NULL, NULL, 0, 0,
	 NULL, "allow unix sockets connected to processes outside of the tree"},
	{"file-locks", 'l', OPT_FLAG, ANY, VERB_CAPTURES | VERB_RESTORE, AT(file_locks), NULL, NULL, 0, 0,
	 NULL, "accepted; file locks are always kept"},
	{"link-remap", 0, OPT_FLAG, ANY, VERB_CAPTURES | VERB_RESTORE, AT(link_remap), NULL, NULL, 0, 0, NULL,
	 "give files that have lost their name another one for the time of the image"},
	{"ghost-limit", 0, OPT_SIZE, ANY, VERB_CAPTURES, AT(ghost_limit), "SIZE", "1M", 0, 0, "bytes",
	 "largest deleted but open file that is kept in the image"},
	{"root", 'r', OPT_STRING, ANY, VERB_CAPTURES | VERB_RESTORE, AT(root), "DIR", NULL, 0, 0, NULL,
	 "root directory of the tree"},
	{"action-script", 0, OPT_STRING, ANY, VERB_CAPTURES | VERB_RESTORE, AT(action_script), "FILE", NULL,
	 0, 0, NULL, "run this at each step"},
	{"external", 0, OPT_LIST, ANY, VERB_DUMP | VERB_PREDUMP | VERB_RESTORE, AT(external), "TYPE[ID]",
	 NULL, 0, 0, NULL,
	 "a descriptor that does not travel: file[MOUNT:INODE], pipe[INODE], unix[INODE], tty[RDEV:DEV]"},
	{"inherit-fd", 0, OPT_LIST, ANY | OPT_COMMAND, VERB_RESTORE, AT(inherit_fd), "fd[N]:KEY", NULL, 0, 0,
	 NULL, "put our descriptor N in the place of that file"},
	{"manage-cgroups", 0, OPT_MODE, ANY, VERB_CAPTURES | VERB_RESTORE, AT(manage_cgroups), "MODE",
	 "ignore", 0, 0, NULL,
	 "keep the cgroups of the tree: none and props: they are there already; soft (without MODE), full: "
	 "they are made if not; strict: they must not be there. Set are with props, full and strict all, "
	 "with "
	 "soft those that were made, with none no"},
	{"cgroup-root", 0, OPT_LIST, ANY, VERB_CAPTURES | VERB_RESTORE, AT(cgroup_root), "[LIST:]PATH", NULL,
	 0, 0, NULL,
	 "of the hierarchy of these controllers, or of any: dump: the group that the others are relative to; "
	 "restore, migrate: the one that it becomes"},
	{"join-ns", 0, OPT_LIST, ANY | OPT_COMMAND, VERB_RESTORE, AT(join_ns), "NS:PATH", NULL, 0, 0, NULL,
	 "the tree shall live in that namespace: net, ipc or uts"},
	{"empty-ns", 0, OPT_STRING, ANY, VERB_DUMP | VERB_RESTORE, AT(empty_ns), "NS", NULL, 0, 0, NULL,
	 "restore: in a network namespace (net) of its own, with nothing in it; dump: without effect"},

	{"interval", 0, OPT_TIME, 0, VERB_TRACK, AT(interval), "TIME", "1s", 10, 3600000, NULL,
	 "look so often"},
	{"count", 0, OPT_INT, 0, VERB_TRACK, AT(count), "N", NULL, 1, 1 << 30, "intervals",
	 "end after so many"},
	{"duration", 0, OPT_TIME, 0, VERB_TRACK | VERB_MIGRATE, AT(duration), "TIME", NULL, 10, 604800000,
	 NULL, "end after this time; with --dry-run: follow the target so long (3s)"},
	{"dry-run", 0, OPT_FLAG, OPT_COMMAND, VERB_MIGRATE, AT(dry_run), NULL, NULL, 0, 0, NULL,
	 "move nothing: ask the destination, follow the target, tell how it would go"},
	{"svg", 0, OPT_STRING, OPT_COMMAND, VERB_TRACK | VERB_REPORT, AT(svg), "FILE", NULL, 0, 0, NULL,
	 "draw a plot of it there"},
	{"html", 0, OPT_STRING, OPT_COMMAND, VERB_REPORT, AT(html), "FILE", NULL, 0, 0, NULL,
	 "write a page with the plot and the numbers"},
	{"report-dir", 0, OPT_STRING, 0, VERB_MIGRATE | VERB_REPORT, AT(report_dir), "DIR", REPORT_DIR, 0, 0,
	 NULL, "where reports of migrations are kept"},

	{"page-server", 0, OPT_FLAG, ANY, VERB_DUMP | VERB_PREDUMP | VERB_LAZY_PAGES, AT(page_server), NULL,
	 NULL, 0, 0, NULL, "send pages to a page server, or (lazy-pages) fetch them from one"},
	{"lazy-pages", 0, OPT_FLAG, ANY, VERB_DUMP | VERB_RESTORE | VERB_PAGE_SERVER, AT(lazy_pages), NULL,
	 NULL, 0, 0, NULL,
	 "dump: keep pages in the stopped target, and serve them; page-server: serve those of an image; "
	 "restore: "
	 "start without them, \"ferry lazy-pages\" fetches them"},
	{"address", 0, OPT_STRING, ANY, VERB_SERVES | VERB_PREDUMP, AT(address), "ADDR", NULL, 0, 0, NULL,
	 "address of the page server"},
	{"port", 0, OPT_INT, ANY, VERB_SERVES | VERB_PREDUMP, AT(port), "PORT", "0", 0, 65535, NULL,
	 "port of the page server; 0: choose one and print it"},
	{"daemon", 0, OPT_FLAG, ANY, VERB_PAGE_SERVER | VERB_LAZY_PAGES, AT(daemon), NULL, NULL, 0, 0, NULL,
	 "go on in the background"},
	{"status-fd", 0, OPT_INT, ANY | OPT_COMMAND, VERB_SERVES, AT(status_fd), "FD", "-1", -1, 1 << 20,
	 NULL, "write one zero byte to this descriptor when ready"},
	{"pidfile", 0, OPT_STRING, ANY, VERB_RESTORE | VERB_PAGE_SERVER | VERB_LAZY_PAGES, AT(pidfile),
	 "FILE", NULL, 0, 0, NULL, "write the pid of the root (or of the page server) to this file"},

	{"restore-detached", 'd', OPT_FLAG, ANY, VERB_RESTORE, AT(restore_detached), NULL, NULL, 0, 0, NULL,
	 "end when the tree runs, instead of waiting for its root"},
	{"restore-sibling", 'S', OPT_FLAG, ANY, VERB_RESTORE, AT(restore_sibling), NULL, NULL, 0, 0, NULL,
	 "the root becomes a child of our parent"},
	{"exec-cmd", 0, OPT_FLAG, ANY | OPT_COMMAND, VERB_RESTORE, AT(exec_cmd), NULL, NULL, 0, 0, NULL,
	 "become the command behind -- when the tree runs"},

	{"feature", 0, OPT_LIST, ANY | OPT_COMMAND, VERB_CHECK, AT(feature), "NAME", NULL, 0, 0, NULL,
	 "tell by the exit code whether this is there"},
	{"libdir", 'L', OPT_STRING, ANY, 0, AT(libdir), "DIR", NULL, 0, 0, NULL,
	 "where parasite and backends are"},
	{"config", 0, OPT_STRING, ANY | OPT_COMMAND, 0, AT(config), "FILE", NULL, 0, 0, NULL,
	 "read options from this file, too"},
	{"no-default-config", 0, OPT_FLAG, ANY | OPT_COMMAND, 0, AT(no_default_config), NULL, NULL, 0, 0,
	 NULL, "do not read /etc/ferry/default.conf and ~/.ferry/default.conf"},
	{"help", 'h', OPT_FLAG, ANY | OPT_COMMAND, 0, AT(help), NULL, NULL, 0, 0, NULL, "print this"},
	{"version", 'V', OPT_FLAG, ANY | OPT_COMMAND, 0, AT(version), NULL, NULL, 0, 0, NULL,
	 "print the version"},

	ACCEPT("track-mem", OPT_FLAG),
	ACCEPT("pre-dump-mode", OPT_STRING),
	ACCEPT("auto-dedup", OPT_FLAG),
	ACCEPT("skip-in-flight", OPT_FLAG),
	ACCEPT("ghost-fiemap", OPT_FLAG),
	ACCEPT("force-irmap", OPT_FLAG),
	ACCEPT("evasive-devices", OPT_FLAG),
	ACCEPT("enable-fs", OPT_STRING),
	ACCEPT("enable-external-sharing", OPT_FLAG),
	ACCEPT("enable-external-masters", OPT_FLAG),
	ACCEPT("network-lock", OPT_STRING),
	ACCEPT("display-stats", OPT_FLAG),
	ACCEPT("unprivileged", OPT_FLAG),
	ACCEPT("cpu-cap", OPT_MODE),
	ACCEPT("mntns-compat-mode", OPT_FLAG),
	REFUSE("ext-mount-map", OPT_STRING, VERB_DUMP | VERB_RESTORE, "mounts are not captured"),
	REFUSE("lsm-profile", OPT_STRING, VERB_RESTORE, "security labels are not captured"),
};

const struct opt_table cli_table = {rows, ARRAY_SIZE(rows), sizeof(struct cli_options)};
