/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tls-keys - what a listener knows itself and its clients by
 *
 *      PSK      a file of lines USER:HEX; the line of one user is kept, whoever has its key is let in
 *      x.509    DIR/server-cert.pem, server-key.pem; and ca-cert.pem, which must have signed a client's certificate (verify_peer)
 *
 * Read once, by a thread that may block; then only memory is looked at.  The texts that held keys are wiped, the keys when the
 * last listener and the last client are gone.
 * A user that is not ours is given a key nobody has, so that from outside it looks like ours with a wrong key.
 * Can fail: a file is not there, is not ours alone, holds no such thing, or a certificate whose time is over or has not come.
 */
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "nbdsrv/tls.h"

#define FILE_MAX (256u << 10)
#define USER_MAX 128u
#define KEY_MIN_BYTES 16u
#define KEY_MAX_BYTES 64u
#define CHAIN_MAX 16u

/* TLS 1.2 at least; nothing without forward secrecy, no cipher that is not authenticated; the fast ones first, and the order is
 * ours; no group in which a stranger costs our loop tens of milliseconds. */
#define CIPHERS "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:" \
		"%SERVER_PRECEDENCE:-GROUP-FFDHE6144:-GROUP-FFDHE8192:-KX-ALL:"
#define SHARED CIPHERS "+ECDHE-PSK:+DHE-PSK"
#define CERTIFIED CIPHERS "+ECDHE-ECDSA:+ECDHE-RSA:+DHE-RSA"

struct nbdsrv_keys {
	unsigned refs;
	struct nbdsrv_tls spec; /* its texts are owned */
	gnutls_priority_t priorities;
	gnutls_certificate_credentials_t certificates;
	gnutls_psk_server_credentials_t shared;
	uint8_t key[KEY_MAX_BYTES];
	unsigned key_bytes;
};

/* A file's text, to be wiped. */
struct secret {
	char *text; /* owned */
	size_t bytes;
};

static void secret_fini(struct secret *s)
{
	if (s->text)
		gnutls_memset(s->text, 0, s->bytes);
	free(s->text);
}
#define CLEANUP_SECRET __attribute__((cleanup(secret_fini)))

static int tell_gnutls(int code, const char *what, struct error *e)
{
	return error_set(e, code == GNUTLS_E_MEMORY_ERROR ? ENOMEM : EINVAL, "%s: %s", what, gnutls_strerror(code));
}

/* What others can read is no secret. */
static int read_secret(const char *path, struct secret *out, struct error *e)
{
	struct stat st;

	if (path[0] != '/')
		return error_set(e, EINVAL, "%s is not an absolute path", path);
	if (stat(path, &st) != 0)
		return error_errno(e, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(e, EINVAL, "%s is no file", path);
	if (st.st_mode & S_IRWXO)
		return error_set(e, EPERM, "%s can be read or written by everybody on this host: chmod o= it", path);
	out->text = proc_read_file(path, FILE_MAX, &out->bytes, e);
	return out->text ? 0 : -1;
}

/* --- PSK */

static bool is_user_name(const char *name)
{
	size_t bytes = strlen(name);

	for (const char *c = name; *c; c++)
		if ((unsigned char)*c <= ' ' || *c == ':' || *c == '#' || *c == 0x7f)
			return false;
	return bytes > 0 && bytes < USER_MAX;
}

/* What stands behind "user:" at the beginning of a line; NULL: there is no such line. */
static const char *find_user(const char *text, const char *user)
{
	size_t bytes = strlen(user);

	for (const char *line = text; *line; line += strspn(line, "\r\n")) {
		if (strncmp(line, user, bytes) == 0 && line[bytes] == ':')
			return line + bytes + 1;
		line += strcspn(line, "\r\n");
	}
	return NULL;
}

static int take_key(struct nbdsrv_keys *k, const struct secret *file, struct error *e)
{
	const struct nbdsrv_tls *spec = &k->spec;
	const char *hex = find_user(file->text, spec->psk_username);
	size_t digits = hex ? strspn(hex, "0123456789abcdefABCDEF") : 0, bytes = sizeof(k->key);
	gnutls_datum_t datum = { (unsigned char *)(uintptr_t)hex, (unsigned)digits };

	if (!hex)
		return error_set(e, ENOENT, "%s has no line that begins with \"%s:\"", spec->psk_file, spec->psk_username);
	if (hex[digits] && !strchr(" \t\r\n", hex[digits]))
		return error_set(e, EINVAL, "in %s the key of %s is not hexadecimal", spec->psk_file, spec->psk_username);
	if (digits % 2 || digits < 2 * KEY_MIN_BYTES || digits > 2 * KEY_MAX_BYTES)
		return error_set(e, EINVAL, "in %s the key of %s has %zu digits, not %u to %u, an even number of them",
				 spec->psk_file, spec->psk_username, digits, 2 * KEY_MIN_BYTES, 2 * KEY_MAX_BYTES);
	if (gnutls_hex_decode(&datum, k->key, &bytes) != 0)
		return error_set(e, EINVAL, "in %s the key of %s is not hexadecimal", spec->psk_file, spec->psk_username);
	k->key_bytes = (unsigned)bytes;
	return 0;
}

static int give_key(gnutls_session_t session, const char *user, gnutls_datum_t *key)
{
	const struct nbdsrv_keys *k = gnutls_session_get_ptr(session);

	key->size = k->key_bytes;
	key->data = gnutls_malloc(k->key_bytes);
	if (!key->data)
		return -1;
	if (strcmp(user, k->spec.psk_username) == 0)
		memcpy(key->data, k->key, k->key_bytes);
	else if (gnutls_rnd(GNUTLS_RND_KEY, key->data, key->size) != 0)
		return -1;
	return 0;
}

static int load_shared(struct nbdsrv_keys *k, struct error *e)
{
	CLEANUP_SECRET struct secret file = { 0 };
	int code;

	if (!is_user_name(k->spec.psk_username))
		return error_set(e, EINVAL, "psk_username is 1 to %u visible characters, without : and #", USER_MAX - 1);
	if (read_secret(k->spec.psk_file, &file, e) == -1 || take_key(k, &file, e) == -1)
		return -1;
	code = gnutls_psk_allocate_server_credentials(&k->shared);
	if (code == 0)
		gnutls_psk_set_server_credentials_function(k->shared, give_key);
	if (code == 0)
		code = gnutls_psk_set_server_known_dh_params(k->shared, GNUTLS_SEC_PARAM_MEDIUM);
	return code == 0 ? 0 : tell_gnutls(code, "PSK", e);
}

/* --- x.509 */

/* A certificate that no client will accept is said now, to whoever can make another. */
static int check_time(gnutls_x509_crt_t cert, const char *path, struct error *e)
{
	time_t now = time(NULL), from = gnutls_x509_crt_get_activation_time(cert), to = gnutls_x509_crt_get_expiration_time(cert);
	time_t at = now < from ? from : to;
	struct tm tm;
	char text[32] = "";

	if (now >= from && now <= to)
		return 0;
	if (gmtime_r(&at, &tm))
		strftime(text, sizeof(text), "%F %T UTC", &tm);
	return error_set(e, EINVAL, "%s %s %s", path, now < from ? "is not valid before" : "has expired at", text);
}

static int check_chain(const struct secret *pem, const char *path, struct error *e)
{
	gnutls_datum_t datum = { (unsigned char *)pem->text, (unsigned)pem->bytes };
	gnutls_x509_crt_t cert[CHAIN_MAX];
	unsigned count = CHAIN_MAX;
	int code = gnutls_x509_crt_list_import(cert, &count, &datum, GNUTLS_X509_FMT_PEM, 0), result = 0;

	if (code <= 0)
		return tell_gnutls(code ? code : GNUTLS_E_NO_CERTIFICATE_FOUND, path, e);
	for (unsigned i = 0; i < (unsigned)code; i++) {
		if (result == 0)
			result = check_time(cert[i], path, e);
		gnutls_x509_crt_deinit(cert[i]);
	}
	return result;
}

static int load_pair(struct nbdsrv_keys *k, const char *cert_path, const char *key_path, struct error *e)
{
	CLEANUP_SECRET struct secret cert = { 0 }, key = { 0 };
	gnutls_datum_t cert_datum, key_datum;
	int code;

	cert.text = proc_read_file(cert_path, FILE_MAX, &cert.bytes, e);
	if (!cert.text || check_chain(&cert, cert_path, e) == -1 || read_secret(key_path, &key, e) == -1)
		return -1;
	cert_datum = (gnutls_datum_t){ (unsigned char *)cert.text, (unsigned)cert.bytes };
	key_datum = (gnutls_datum_t){ (unsigned char *)key.text, (unsigned)key.bytes };
	code = gnutls_certificate_set_x509_key_mem2(k->certificates, &cert_datum, &key_datum, GNUTLS_X509_FMT_PEM, NULL, 0);
	return code >= 0 ? 0 : tell_gnutls(code, key_path, e);
}

/* Who can write to it lets in whom he likes. */
static int check_writers(const char *path, struct error *e)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return error_errno(e, errno, "%s", path);
	if (st.st_mode & S_IWOTH)
		return error_set(e, EPERM, "%s can be written by everybody on this host: chmod o-w it", path);
	return 0;
}

static int load_trust(struct nbdsrv_keys *k, const char *path, struct error *e)
{
	CLEANUP_SECRET struct secret ca = { 0 };
	gnutls_datum_t datum;
	int count;

	if (check_writers(k->spec.certificates, e) == -1 || check_writers(path, e) == -1)
		return -1;
	ca.text = proc_read_file(path, FILE_MAX, &ca.bytes, e);
	if (!ca.text)
		return -1;
	datum = (gnutls_datum_t){ (unsigned char *)ca.text, (unsigned)ca.bytes };
	count = gnutls_certificate_set_x509_trust_mem(k->certificates, &datum, GNUTLS_X509_FMT_PEM);
	if (count < 0)
		return tell_gnutls(count, path, e);
	return count ? check_chain(&ca, path, e) : error_set(e, EINVAL, "%s has no certificate in it", path);
}

static int load_certificates(struct nbdsrv_keys *k, struct error *e)
{
	static const char *const name[] = { "server-cert.pem", "server-key.pem", "ca-cert.pem" };
	CLEANUP_FREE char *cert = NULL, *key = NULL, *ca = NULL;
	char **path[] = { &cert, &key, &ca };
	int code;

	if (k->spec.certificates[0] != '/')
		return error_set(e, EINVAL, "%s is not an absolute path", k->spec.certificates);
	for (unsigned i = 0; i < ARRAY_LEN(name); i++)
		if (asprintf(path[i], "%s/%s", k->spec.certificates, name[i]) == -1) {
			*path[i] = NULL;
			return error_set(e, ENOMEM, "out of memory for certificates");
		}
	code = gnutls_certificate_allocate_credentials(&k->certificates);
	if (code == 0)
		code = gnutls_certificate_set_known_dh_params(k->certificates, GNUTLS_SEC_PARAM_MEDIUM);
	if (code != 0)
		return tell_gnutls(code, "certificates", e);
	if (load_pair(k, cert, key, e) == -1)
		return -1;
	return k->spec.verifies_peer ? load_trust(k, ca, e) : 0;
}

/* --- both */

static int copy_text(char **out, const char *text)
{
	*out = text ? strdup(text) : NULL;
	return text && !*out ? -1 : 0;
}

static int load(struct nbdsrv_keys *k, const struct nbdsrv_tls *spec, struct error *e)
{
	bool is_shared = spec->psk_username && spec->psk_file && !spec->certificates;
	bool is_certified = spec->certificates && !spec->psk_username && !spec->psk_file;
	int code;

	if (!is_shared && !is_certified)
		return error_set(e, EINVAL, "either a psk_username and a psk_file are given, or certificates");
	if (copy_text(&k->spec.psk_username, spec->psk_username) == -1 || copy_text(&k->spec.psk_file, spec->psk_file) == -1 ||
	    copy_text(&k->spec.certificates, spec->certificates) == -1)
		return error_set(e, ENOMEM, "out of memory");
	k->spec.has_verifies_peer = is_certified;
	k->spec.verifies_peer = is_certified && (spec->verifies_peer || !spec->has_verifies_peer);
	code = gnutls_priority_init(&k->priorities, is_shared ? SHARED : CERTIFIED, NULL);
	if (code != 0)
		return tell_gnutls(code, "ciphers", e);
	return is_shared ? load_shared(k, e) : load_certificates(k, e);
}

struct nbdsrv_keys *nbdsrv_keys_load(const struct nbdsrv_tls *spec, struct error *e)
{
	struct nbdsrv_keys *k = calloc(1, sizeof(*k));

	if (!k) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	k->refs = 1;
	if (load(k, spec, e) == 0)
		return k;
	error_prefix(e, "TLS");
	nbdsrv_keys_unref(k);
	return NULL;
}

struct nbdsrv_keys *nbdsrv_keys_ref(struct nbdsrv_keys *k)
{
	if (k)
		k->refs++;
	return k;
}

void nbdsrv_keys_unref(struct nbdsrv_keys *k)
{
	if (!k || --k->refs)
		return;
	if (k->certificates)
		gnutls_certificate_free_credentials(k->certificates);
	if (k->shared)
		gnutls_psk_free_server_credentials(k->shared);
	if (k->priorities)
		gnutls_priority_deinit(k->priorities);
	gnutls_memset(k->key, 0, sizeof(k->key));
	free(k->spec.psk_username);
	free(k->spec.psk_file);
	free(k->spec.certificates);
	free(k);
}

const struct nbdsrv_tls *nbdsrv_keys_spec(const struct nbdsrv_keys *k)
{
	return &k->spec;
}

bool tls_keys_are_shared(const struct nbdsrv_keys *k)
{
	return k->shared != NULL;
}

/* A certificate made for servers only makes nobody a client. */
int tls_keys_apply(const struct nbdsrv_keys *k, gnutls_session_t session)
{
	static gnutls_typed_vdata_st purpose[] = {
		{ GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT, 0 },
	};
	int code = gnutls_priority_set(session, k->priorities);

	gnutls_session_set_ptr(session, (void *)(uintptr_t)k);
	if (code == 0 && k->shared)
		code = gnutls_credentials_set(session, GNUTLS_CRD_PSK, k->shared);
	if (code == 0 && k->certificates)
		code = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, k->certificates);
	if (k->spec.verifies_peer) {
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
		gnutls_session_set_verify_cert2(session, purpose, 1, 0);
	}
	return code;
}
