/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What of the machine ferry needs or can use, each found out by trying. */
#include <stdbool.h>
#include <stddef.h>

struct feature {
	const char *name;
	const char *what; /* for people */
	bool needed;      /* the main job cannot run without */
	bool listed;      /* a row of ferry check */
	/* 0: it is there; -errno with the reason in @why. */
	int (*probe)(char *why, size_t why_size);
};

extern const struct feature features[]; /* ends with a NULL name */
/* In features_files.c. */
int probe_sk_unix_file(char *why, size_t size);
int probe_sockopt_buf_lock(char *why, size_t size);
int probe_ipv6_freebind(char *why, size_t size);
int probe_memfd_hugetlb(char *why, size_t size);
int probe_uffd(char *why, size_t size);
int probe_fdinfo_lock(char *why, size_t size);
/* A name of --feature that is known but nothing ferry does. */
bool feature_is_foreign(const char *name);
