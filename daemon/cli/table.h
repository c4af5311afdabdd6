/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* All options of all verbs; see service/options.h. */
#include <stdbool.h>
#include <stdint.h>

#include "service/options.h"

struct cli_options {
	bool help, version, json, no_default_config, dry_run, watch;
	char *config, *images_dir, *work_dir, *log_file, *libdir;
	int64_t verbosity, owner;

	int64_t tree;
	bool leave_running, leave_stopped;
	char *prev_images_dir, *freeze_cgroup, *root, *action_script, *manage_cgroups, *empty_ns;
	int64_t timeout, max_rounds, downtime, max_downtime, time_limit, post_copy, streams;
	uint64_t max_bandwidth, ghost_limit;
	char *backend, *on_stall, *compress;
	char *backend_dir;
	bool shell_job, tcp_close, tcp_established, move_address, ext_unix_sk, file_locks, link_remap;

	int64_t interval, duration, count;
	char *svg, *html, *report_dir;

	bool page_server, daemon, lazy_pages;
	char *address;
	int64_t port, status_fd;

	bool restore_detached, restore_sibling, exec_cmd;
	char *pidfile;

	char *to, *keys, *fingerprint, *grant;
	bool insecure, yes, here, there, force;
	bool tls, tls_no_cn_verify;
	char *tls_cacert, *tls_cert, *tls_key;

	struct opt_list feature, external, inherit_fd, cgroup_root, join_ns;
};

extern const struct opt_table cli_table;
