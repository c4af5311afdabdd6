/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"

#define KEY_FILE  "host.key"
#define CERT_FILE "host.crt"
#define CA_FILE   "ca.pem"
#define PEERS     "known_peers"
#define VALID     (10L * 365 * 24 * 3600) /* s; what counts is the key, not the date */

int error_ssl(struct error *e, int code, const char *what)
{
	unsigned long last = ERR_peek_last_error();
	char text[160] = "";

	if (last)
		ERR_error_string_n(last, text, sizeof(text));
	ERR_clear_error();
	const char *reason = last ? ERR_reason_error_string(last) : NULL;

	return error_say(e, code, "%s%s%s", what, last ? ": " : "", reason ? reason : text);
}

/* --- grants -------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	unsigned bit;
} grant_names[] = {{"send", GRANT_SEND}, {"receive", GRANT_RECEIVE}, {"page-serve", GRANT_PAGE_SERVE}};

int grants_parse(const char *text, unsigned *ret, struct error *e)
{
	unsigned sum = 0;

	while (*text) {
		size_t n = strcspn(text, ","), i = 0;

		while (i < ARRAY_SIZE(grant_names) &&
		       (strlen(grant_names[i].name) != n || strncmp(grant_names[i].name, text, n)))
			i++;
		if (i == ARRAY_SIZE(grant_names))
			return error_say(e, EINVAL, "\"%.*s\" is no grant: send, receive or page-serve",
					 (int)n, text);
		sum |= grant_names[i].bit;
		text += n + (text[n] == ',');
	}
	*ret = sum;
	return 0;
}

char *grants_text(unsigned grants)
{
	char *text = xstrdup("");

	for (size_t i = 0; i < ARRAY_SIZE(grant_names); i++) {
		if (!(grants & grant_names[i].bit))
			continue;
		char *longer = xasprintf("%s%s%s", text, *text ? "," : "", grant_names[i].name);

		free(text);
		text = longer;
	}
	return text;
}

/* --- fingerprints -------------------------------------------------------------------------------- */

bool fingerprint_ok(const char *text)
{
	static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	return !strncmp(text, "SHA256:", 7) && strlen(text) == 50 && strspn(text + 7, base64) == 43;
}

int fingerprint_of(X509 *x, char ret[FINGERPRINT_SIZE], struct error *e)
{
	unsigned char *der = NULL, hash[EVP_MAX_MD_SIZE], text[64];
	unsigned n = 0;
	int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);
	int ok = size > 0 && EVP_Digest(der, size, hash, &n, EVP_sha256(), NULL);

	OPENSSL_free(der);
	if (!ok)
		return error_ssl(e, EBADMSG, "a certificate without a usable key");
	EVP_EncodeBlock(text, hash, (int)n);
	snprintf(ret, FINGERPRINT_SIZE, "SHA256:%.43s", text);
	return 0;
}

/* --- known peers --------------------------------------------------------------------------------- */

void known_peers_free(struct known_peer *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(p[i].name);
	free(p);
}

static int parse_line(char *line, const char *path, unsigned number, struct known_peer *ret, struct error *e)
{
	char *save = NULL, *hash = strchr(line, '#');

	if (hash)
		*hash = 0;
	const char *name = strtok_r(line, " \t\r\n", &save), *print = strtok_r(NULL, " \t\r\n", &save),
		   *grants = strtok_r(NULL, " \t\r\n", &save);

	if (!name)
		return 0;
	if (!grants || strtok_r(NULL, " \t\r\n", &save))
		return error_say(e, EINVAL, "%s:%u: not \"NAME FINGERPRINT GRANTS\"", path, number);
	if (strcmp(name, "@ca") ? !fingerprint_ok(print) : strcmp(print, "-"))
		return error_say(e, EINVAL, "%s:%u: \"%s\" is no fingerprint", path, number, print);
	if (grants_parse(grants, &ret->grants, e) < 0)
		return error_prefix(e, "%s:%u", path, number);
	ret->name = xstrdup(name);
	snprintf(ret->fingerprint, sizeof(ret->fingerprint), "%s", print);
	return 1;
}

int known_peers_parse(char *text, const char *path, struct known_peer **ret, size_t *ret_n, struct error *e)
{
	unsigned number = 0;

	*ret = NULL;
	*ret_n = 0;
	for (char *line = text, *next; line; line = next) {
		struct known_peer p = {0};

		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		int r = parse_line(line, path, ++number, &p, e);

		if (r < 0) {
			known_peers_free(*ret, *ret_n);
			*ret = NULL;
			*ret_n = 0;
			return r;
		}
		if (r == 0)
			continue;
		*ret = xrealloc(*ret, (*ret_n + 1) * sizeof(**ret));
		(*ret)[(*ret_n)++] = p;
	}
	return 0;
}

int known_peers_read(const char *dir, struct known_peer **ret, size_t *ret_n, struct error *e)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, PEERS), *text = NULL;
	ssize_t n = read_file(path, &text);

	*ret = NULL;
	*ret_n = 0;
	if (n == -ENOENT)
		return 0;
	return n < 0 ? error_set(e, (int)-n, "cannot read %s", path)
		     : known_peers_parse(text, path, ret, ret_n, e);
}

/* The file without the peer @name, and with @add. Comments of the old one are kept. */
static int rewrite_peers(const char *dir, const char *name, const struct known_peer *add, struct error *e)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, PEERS), *fresh = xasprintf("%s.new", path),
			  *text = NULL;
	ssize_t n = read_file(path, &text);
	bool found = false;

	if (n < 0 && n != -ENOENT)
		return error_set(e, (int)-n, "cannot read %s", path);
	unlink(fresh);
	cleanup_close int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return error_set(e, errno, "cannot write %s", fresh);
	for (char *line = text, *next; line && *line; line = next) {
		size_t length = strcspn(line, "\n"), skip = strspn(line, " \t"),
		       word = strcspn(line + skip, " \t\n");

		next = line + length + (line[length] == '\n');
		if (word == strlen(name) && !strncmp(line + skip, name, word)) {
			found = true;
			continue;
		}
		dprintf(fd, "%.*s\n", (int)length, line);
	}
	if (!found && !add) {
		unlink(fresh);
		return error_say(e, ENOENT, "%s does not know %s", path, name);
	}
	if (add) {
		cleanup_free char *grants = grants_text(add->grants);

		dprintf(fd, "%s %s %s\n", add->name, add->fingerprint, grants);
	}
	if (fsync(fd) < 0 || rename(fresh, path) < 0) {
		int code = errno;

		unlink(fresh);
		return error_set(e, code, "cannot write %s", path);
	}
	return 0;
}

int keys_trust(const char *dir, const struct known_peer *p, struct error *e)
{
	if (!fingerprint_ok(p->fingerprint))
		return error_say(e, EINVAL, "\"%s\" is no fingerprint (SHA256: and 43 characters)",
				 p->fingerprint);
	if (!*p->name || strpbrk(p->name, " \t\r\n#") || *p->name == '@')
		return error_say(e, EINVAL, "\"%s\" cannot be the name of a peer", p->name);
	return rewrite_peers(dir, p->name, p, e);
}

int keys_forget(const char *dir, const char *name, struct error *e)
{
	return rewrite_peers(dir, name, NULL, e);
}

const struct known_peer *keys_by_name(const struct keys *k, const char *name)
{
	for (size_t i = 0; i < k->n_peers; i++)
		if (!strcmp(k->peers[i].name, name))
			return &k->peers[i];
	return NULL;
}

unsigned keys_by_fingerprint(const struct keys *k, const char *fingerprint)
{
	unsigned sum = 0;

	for (size_t i = 0; i < k->n_peers; i++)
		if (!strcmp(k->peers[i].fingerprint, fingerprint))
			sum |= k->peers[i].grants;
	return sum;
}

/* --- the host's own key -------------------------------------------------------------------------- */

static X509 *self_signed(EVP_PKEY *key)
{
	char host[256] = "ferry";
	X509 *x = X509_new();

	gethostname(host, sizeof(host) - 1);
	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -24 * 3600);
	X509_gmtime_adj(X509_getm_notAfter(x), VALID);
	X509_set_pubkey(x, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (unsigned char *)host, -1,
				   -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	if (X509_sign(x, key, NULL) <= 0) {
		X509_free(x);
		return NULL;
	}
	return x;
}

static FILE *create(const char *dir, const char *name, char **ret_path)
{
	*ret_path = xasprintf("%s/%s", dir, name);
	int fd = open(*ret_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? NULL : fdopen(fd, "w");
}

static int write_pair(const char *dir, EVP_PKEY *key, X509 *x, struct error *e)
{
	cleanup_free char *key_path = NULL, *cert_path = NULL;
	cleanup_fclose FILE *k = create(dir, KEY_FILE, &key_path);

	if (!k)
		return error_set(e, errno, "cannot make %s", key_path);
	cleanup_fclose FILE *c = create(dir, CERT_FILE, &cert_path);

	if (!c) {
		int code = errno;

		unlink(key_path);
		return error_set(e, code, "cannot make %s", cert_path);
	}
	if (PEM_write_PrivateKey(k, key, NULL, NULL, 0, NULL, NULL) && PEM_write_X509(c, x) &&
	    fflush(k) == 0 && fflush(c) == 0 && fsync(fileno(k)) == 0 && fsync(fileno(c)) == 0)
		return 0;
	unlink(key_path);
	unlink(cert_path);
	return error_say(e, EIO, "cannot write the host key to %s", dir);
}

static int make_dir(const char *dir, struct error *e)
{
	cleanup_free char *path = xstrdup(dir);

	for (char *p = path + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = 0;
		if (mkdir(path, c ? 0755 : 0700) < 0 && errno != EEXIST)
			return error_set(e, errno, "cannot make the directory %s", path);
		if (!c)
			return 0;
		*p = c;
	}
}

int keys_init(const char *dir, struct error *e)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, KEY_FILE);

	if (access(path, F_OK) == 0)
		return error_say(e, EEXIST, "%s is there already", path);
	int r = make_dir(dir, e);

	if (r < 0)
		return r;
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	X509 *x = key ? self_signed(key) : NULL;

	r = x ? write_pair(dir, key, x, e) : error_ssl(e, EIO, "cannot make a key");
	X509_free(x);
	EVP_PKEY_free(key);
	return r;
}

static FILE *open_pem(const char *path, struct error *e)
{
	FILE *f = fopen(path, "re");

	if (!f)
		error_set(e, errno, "cannot read %s", path);
	return f;
}

static int load_key(struct keys *k, const char *path, struct error *e)
{
	struct stat st;

	cleanup_fclose FILE *f = open_pem(path, e);

	if (!f)
		return -e->code;
	if (fstat(fileno(f), &st) < 0 || st.st_mode & 077)
		return error_say(e, EPERM, "%s can be read by others (mode %04o): make it 0600", path,
				 st.st_mode & 07777);
	k->key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
	return k->key ? 0 : error_ssl(e, EBADMSG, path);
}

static int load_certificate(struct keys *k, const char *path, struct error *e)
{
	cleanup_fclose FILE *f = open_pem(path, e);

	if (!f)
		return -e->code;
	k->certificate = PEM_read_X509(f, NULL, NULL, NULL);
	if (!k->certificate)
		return error_ssl(e, EBADMSG, path);
	if (X509_check_private_key(k->certificate, k->key) != 1)
		return error_ssl(e, EINVAL, "the certificate does not belong to the key");
	return fingerprint_of(k->certificate, k->fingerprint, e);
}

static int load_ca(struct keys *k, const char *path, struct error *e)
{
	k->ca = X509_STORE_new();
	if (!k->ca || X509_STORE_load_file(k->ca, path) != 1)
		return error_ssl(e, EBADMSG, path);
	return 0;
}

/* @ca NULL: none. */
int keys_load_files(const char *key, const char *certificate, const char *ca, struct keys **ret,
		    struct error *e)
{
	struct keys *k = xcalloc(1, sizeof(*k));
	int r = load_key(k, key, e);

	if (r >= 0)
		r = load_certificate(k, certificate, e);
	if (r >= 0 && ca)
		r = load_ca(k, ca, e);
	if (r < 0)
		keys_free(k);
	else
		*ret = k;
	return r;
}

int keys_load(const char *dir, struct keys **ret, struct error *e)
{
	cleanup_free char *key = xasprintf("%s/%s", dir, KEY_FILE), *ca = xasprintf("%s/%s", dir, CA_FILE),
			  *certificate = xasprintf("%s/%s", dir, CERT_FILE);

	if (access(key, F_OK) < 0 && errno == ENOENT)
		return error_say(e, ENOENT, "this host has no key in %s: \"ferry keys init\" makes one", dir);
	int r = keys_load_files(key, certificate, access(ca, F_OK) < 0 ? NULL : ca, ret, e);

	if (r < 0)
		return r;
	r = known_peers_read(dir, &(*ret)->peers, &(*ret)->n_peers, e);
	if (r < 0)
		keys_free(TAKE_PTR(*ret));
	return r;
}

void keys_free(struct keys *k)
{
	if (!k)
		return;
	EVP_PKEY_free(k->key);
	X509_free(k->certificate);
	X509_STORE_free(k->ca);
	known_peers_free(k->peers, k->n_peers);
	free(k);
}
