/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill-after MICROSECONDS MEMBER CMD...: starts CMD and kills one process of its family after that time.
 * MEMBER 0 is CMD itself, 1 its oldest descendant, and so on.  Then waits for CMD, at most 60 s.
 * Prints one line: "killed NAME, status N" or "ended, status N" (128 + signal when a signal ended CMD).
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX 4096

static struct process {
	pid_t pid, parent;
	char name[32];
} all[MAX];

static int by_pid(const void *a, const void *b)
{
	return ((const struct process *)a)->pid - ((const struct process *)b)->pid;
}

static int read_all(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)) && n < MAX) {
		struct process *p = &all[n];
		char path[64], state;
		FILE *f;

		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/stat", e->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fscanf(f, "%d (%31[^)]) %c %d", &p->pid, p->name, &state, &p->parent) == 4 &&
		    state != 'Z')
			n++;
		fclose(f);
	}
	if (d)
		closedir(d);
	qsort(all, n, sizeof(all[0]), by_pid);
	return n;
}

/* The member of the family of @root, or NULL. Parents have lower pids than their children: one pass is
 * enough. */
static const struct process *member(pid_t root, int want)
{
	static pid_t family[MAX];
	int n = read_all(), size = 0;

	for (int i = 0; i < n; i++) {
		bool in = all[i].pid == root;

		for (int j = 0; j < size && !in; j++)
			in = all[i].parent == family[j];
		if (!in)
			continue;
		if (size == want)
			return &all[i];
		family[size++] = all[i].pid;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	const struct process *victim;
	struct timespec t;
	int status, rc;
	long us;
	pid_t pid;

	if (argc < 4)
		return 2;
	us = atol(argv[1]);
	pid = fork();
	if (!pid) {
		dup2(2, 1); /* the only line on our output is ours */
		execvp(argv[3], argv + 3);
		perror(argv[3]);
		_exit(127);
	}
	t.tv_sec = us / 1000000;
	t.tv_nsec = us % 1000000 * 1000;
	nanosleep(&t, NULL);
	victim = member(pid, atoi(argv[2]));
	if (victim)
		kill(victim->pid, SIGKILL);
	for (int i = 0; i < 6000; i++) {
		rc = waitpid(pid, &status, WNOHANG);
		if (rc)
			break;
		usleep(10000);
	}
	if (rc != pid) {
		printf("hangs\n");
		kill(pid, SIGKILL);
		return 1;
	}
	printf("%s%s, status %d\n", victim ? "killed " : "ended", victim ? victim->name : "",
	       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
