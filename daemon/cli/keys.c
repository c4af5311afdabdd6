/* SPDX-License-Identifier: Apache-2.0 */
/* ferry keys: the host key and the peers that are trusted (docs/trust.md). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "base/net.h"
#include "cli/cli.h"
#include "migrate/link.h"

static int show(struct cli *c, struct error *e)
{
	struct keys *k;
	int r = keys_load(c->o.keys, &k, e);

	if (r < 0)
		return r;
	printf("%s\n", k->fingerprint);
	keys_free(k);
	return 0;
}

static int init(struct cli *c, struct error *e)
{
	int r = keys_init(c->o.keys, e);

	return r < 0 ? r : show(c, e);
}

static int ask(const char *name, const char *fingerprint, struct error *e)
{
	char answer[16] = "";

	if (!isatty(0))
		return error_say(e, EINVAL,
				 "the key of %s is %s: say --fingerprint with it, or --yes, to trust it",
				 name, fingerprint);
	printf("The key of %s is\n  %s\nIs that what \"ferry keys show\" prints there? [y/N] ", name,
	       fingerprint);
	fflush(stdout);
	if (!fgets(answer, sizeof(answer), stdin) || (*answer != 'y' && *answer != 'Y'))
		return error_say(e, ECANCELED, "%s is not trusted", name);
	return 0;
}

static int trust(struct cli *c, const char *to, struct error *e)
{
	struct link_options link = {.keys_dir = c->o.keys};
	cleanup_free char *host = NULL, *port = NULL;
	struct known_peer p = {0};
	struct keys *own = NULL;
	int r = keys_load(c->o.keys, &own, e);

	keys_free(own);
	if (r >= 0)
		r = net_split(to, NULL, FERRY_PORT, &host, &port, e);
	if (r >= 0 && !host)
		r = error_say(e, EINVAL, "\"%s\" names no host", to);
	if (r >= 0)
		r = grants_parse(c->o.grant, &p.grants, e);
	if (r >= 0 && c->o.fingerprint)
		snprintf(p.fingerprint, sizeof(p.fingerprint), "%s", c->o.fingerprint);
	else if (r >= 0) {
		r = link_fetch_key(to, &link, p.fingerprint, e);
		if (r >= 0 && !c->o.yes)
			r = ask(host, p.fingerprint, e);
	}
	p.name = host;
	if (r >= 0)
		r = keys_trust(c->o.keys, &p, e);
	if (r >= 0)
		printf("%s %s %s\n", p.name, p.fingerprint, c->o.grant);
	return r;
}

static int list(struct cli *c, struct error *e)
{
	struct known_peer *p;
	size_t n;
	int r = known_peers_read(c->o.keys, &p, &n, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		cleanup_free char *grants = grants_text(p[i].grants);

		printf("%-24s %-50s %s\n", p[i].name, p[i].fingerprint, grants);
	}
	known_peers_free(p, n);
	return 0;
}

int verb_keys(struct cli *c, struct error *e)
{
	const char *what = c->argc ? c->argv[0] : "";

	if (!strcmp(what, "init") && c->argc == 1)
		return init(c, e);
	if (!strcmp(what, "show") && c->argc == 1)
		return show(c, e);
	if (!strcmp(what, "list") && c->argc == 1)
		return list(c, e);
	if (!strcmp(what, "trust") && c->argc == 2)
		return trust(c, c->argv[1], e);
	if (!strcmp(what, "forget") && c->argc == 2)
		return keys_forget(c->o.keys, c->argv[1], e);
	return error_say(e, EINVAL, "keys takes: init, show, list, trust HOST, or forget NAME");
}
