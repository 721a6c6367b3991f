/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ssh2-login - keys, passwords and questions, in the order in which ssh tries them
 *
 *      the agent's keys -> keys in files (a passphrase is asked for) -> what the host asks -> a password
 *
 * What was typed and was right is kept for the next connection, which asks nobody; one-time answers do not last, so a host that
 * wants those lets in once.
 * Can fail: the host wants none of what there is: the sentence says what it wants and what was tried.
 * Invariant: secrets are in ssh2_secrets' memory, on the stack of nobody, and in what libssh2 allocates until it frees it.
 */
#include "migrate/carrier-ssh2-private.h"

#include <errno.h>
#include <fcntl.h>
#include <libssh2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/printable.h"
#include "base/proc.h"
#include "migrate/carrier-tty.h"
#include "migrate/known-hosts.h"

#define TRIES 3u
#define PUBLIC_MAX_BYTES 16384u
#define HEAD_BYTES 4096u

struct login {
	struct ssh2_link *link;
	const struct ssh_config *config;
	struct ssh2_secrets *secrets;
	char methods[200];   /* that the host takes, with commas */
	char tried[300];
	bool has_rsa;
	unsigned asked;      /* by the host, in this try */
};

/* --- secrets */

struct ssh2_secrets *ssh2_secrets_new(struct error *e)
{
	struct ssh2_secrets *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	madvise(s, sizeof(*s), MADV_DONTDUMP);
	(void)mlock(s, sizeof(*s)); /* where that is not allowed, better swapped than asked for again and again */
	return s;
}

void ssh2_secrets_free(struct ssh2_secrets *s)
{
	if (!s)
		return;
	explicit_bzero(s, sizeof(*s));
	munmap(s, sizeof(*s));
}

const char *ssh2_secrets_find(const struct ssh2_secrets *s, const char *what)
{
	for (size_t i = 0; i < s->count; i++)
		if (strcmp(s->secret[i].what, what) == 0)
			return s->secret[i].text;
	return NULL;
}

void ssh2_secrets_add(struct ssh2_secrets *s, const char *what, const char *text)
{
	size_t i = 0;

	while (i < s->count && strcmp(s->secret[i].what, what) != 0)
		i++;
	if (i == SSH2_SECRETS_MAX || strlen(what) >= sizeof(s->secret[i].what) || strlen(text) >= sizeof(s->secret[i].text))
		return;
	s->count = MAX(s->count, i + 1);
	strcpy(s->secret[i].what, what);
	strcpy(s->secret[i].text, text);
}

/* --- what was tried, for the sentence */

static void note_tried(struct login *g, const char *what)
{
	size_t used = strlen(g->tried);

	snprintf(g->tried + used, sizeof(g->tried) - used, "%s%s", used ? ", " : "", what);
}

static bool takes(const struct login *g, const char *method)
{
	size_t bytes = strlen(method);

	for (const char *at = g->methods; *at; at += strcspn(at, ","), at += *at == ',')
		if (strncmp(at, method, bytes) == 0 && (at[bytes] == ',' || !at[bytes]))
			return true;
	return false;
}

static bool is_in(const struct login *g)
{
	return libssh2_userauth_authenticated(g->link->session) == 1;
}

/* No use to go on. */
static bool is_over(const struct login *g, int rc)
{
	return g->link->is_lost || rc == LIBSSH2_ERROR_SOCKET_DISCONNECT || rc == LIBSSH2_ERROR_SOCKET_RECV ||
	       rc == LIBSSH2_ERROR_SOCKET_SEND || rc == LIBSSH2_ERROR_TIMEOUT;
}

/* --- the agent */

/* Where it listens; NULL: there is none. */
static const char *find_agent(const struct ssh_config *c)
{
	const char *said = c->identity_agent;

	if (said && strcmp(said, "none") == 0)
		return NULL;
	if (!said || strcmp(said, "SSH_AUTH_SOCK") == 0)
		return getenv("SSH_AUTH_SOCK");
	return *said == '$' ? getenv(said + 1) : said;
}

/* Is it one of the files' keys? By FILE.pub beside it. */
static bool is_named(const struct login *g, const uint8_t *key, size_t bytes)
{
	CLEANUP_FREE char *line = known_hosts_line("x", key, bytes, NULL);
	const char *body = line ? line + 2 : "";
	size_t length = strcspn(body, "\n");
	bool found = false;

	for (size_t i = 0; i < g->config->identity.count && !found && length; i++) {
		CLEANUP_FREE char *path = NULL;
		CLEANUP_FREE char *text = NULL;
		size_t text_bytes;

		if (asprintf(&path, "%s.pub", g->config->identity.path[i]) < 0) {
			path = NULL;
			return false;
		}
		text = proc_read_file(path, PUBLIC_MAX_BYTES, &text_bytes, NULL);
		found = text && strncmp(text, body, length) == 0;
	}
	return found;
}

static int try_agent_keys(struct login *g, LIBSSH2_AGENT *agent)
{
	struct libssh2_agent_publickey *key, *previous = NULL;
	unsigned count = 0;
	char what[40];
	int rc = 0;

	while (libssh2_agent_get_identity(agent, &key, previous) == 0) {
		previous = key;
		if (g->config->has_identities_only && !is_named(g, key->blob, key->blob_len))
			continue;
		count++;
		g->has_rsa |= key->blob_len > 11 && memcmp(key->blob + 4, "ssh-rsa", 7) == 0;
		rc = libssh2_agent_userauth(agent, g->config->user, key);
		if (rc == 0 || is_over(g, rc))
			break;
	}
	snprintf(what, sizeof(what), "%u of the agent's keys", count);
	note_tried(g, what);
	return rc;
}

static int try_agent(struct login *g)
{
	const char *path = find_agent(g->config);
	LIBSSH2_AGENT *agent = path && *path ? libssh2_agent_init(g->link->session) : NULL;
	int rc = 0;

	if (!agent)
		return 0;
	libssh2_agent_set_identity_path(agent, path);
	if (libssh2_agent_connect(agent) == 0) {
		if (libssh2_agent_list_identities(agent) == 0)
			rc = try_agent_keys(g, agent);
		libssh2_agent_disconnect(agent);
	}
	libssh2_agent_free(agent);
	return rc;
}

/* --- keys in files */

enum key_file { KEY_ABSENT, KEY_OPEN, KEY_ENCRYPTED, KEY_EXPOSED };

/* What kind it is; without keeping any of it. */
static enum key_file look_at_key(struct login *g, const char *path)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	char head[HEAD_BYTES + 1];
	enum key_file kind;
	struct stat st;
	ssize_t n;
	const char *body;

	if (fd < 0 || fstat(fd, &st) == -1 || !S_ISREG(st.st_mode))
		return KEY_ABSENT;
	if (st.st_uid == getuid() && (st.st_mode & 077))
		return KEY_EXPOSED;
	n = read(fd, head, HEAD_BYTES);
	head[n > 0 ? n : 0] = '\0';
	body = strchr(head, '\n');
	body = body ? body + 1 : "";
	kind = KEY_OPEN;
	/* OpenSSH's own format names the cipher after 15 bytes of magic; it is base64 of "openssh-key-v1", and of "none". */
	if (strncmp(body, "b3BlbnNzaC1rZXktdjEAAAAA", 24) == 0)
		kind = strncmp(body + 24, "BG5vbmU", 7) == 0 ? KEY_OPEN : KEY_ENCRYPTED;
	else if (strstr(head, "ENCRYPTED"))
		kind = KEY_ENCRYPTED;
	g->has_rsa |= strstr(head, "BEGIN RSA") != NULL;
	explicit_bzero(head, sizeof(head));
	return kind;
}

static int offer_file(struct login *g, const char *path, const char *passphrase)
{
	const char *user = g->config->user;

	return libssh2_userauth_publickey_fromfile_ex(g->link->session, user, (unsigned)strlen(user), NULL, path, passphrase);
}

static int try_encrypted(struct login *g, const char *path)
{
	const char *known = ssh2_secrets_find(g->secrets, path);
	char text[SSH_CONFIG_NAME_MAX + 40];
	int rc = LIBSSH2_ERROR_FILE;

	if (known)
		return offer_file(g, path, known);
	snprintf(text, sizeof(text), "Passphrase of the key %.256s: ", path);
	for (unsigned i = 0; i < TRIES && g->link->way->may_ask && rc == LIBSSH2_ERROR_FILE; i++) {
		if (carrier_tty_ask(text, false, g->secrets->typed, sizeof(g->secrets->typed), NULL) == -1 || !*g->secrets->typed)
			break;
		rc = offer_file(g, path, g->secrets->typed);
		if (rc == 0)
			ssh2_secrets_add(g->secrets, path, g->secrets->typed);
		explicit_bzero(g->secrets->typed, sizeof(g->secrets->typed));
	}
	return rc;
}

static int try_files(struct login *g)
{
	int rc = 0;

	for (size_t i = 0; i < g->config->identity.count && !is_in(g) && !is_over(g, rc); i++) {
		const char *path = g->config->identity.path[i];
		enum key_file kind = look_at_key(g, path);
		char what[120];

		if (kind == KEY_ABSENT)
			continue;
		if (kind == KEY_EXPOSED) {
			snprintf(what, sizeof(what), "not %.80s, which others may read", path);
		} else {
			rc = kind == KEY_ENCRYPTED ? try_encrypted(g, path) : offer_file(g, path, NULL);
			snprintf(what, sizeof(what), rc == LIBSSH2_ERROR_FILE ? "not %.80s, which could not be used" : "%.80s",
				 path);
		}
		note_tried(g, what);
	}
	return rc;
}

/* --- questions */

static void answer_one(struct login *g, const LIBSSH2_USERAUTH_KBDINT_PROMPT *prompt, LIBSSH2_USERAUTH_KBDINT_RESPONSE *response)
{
	char text[SSH_CONFIG_NAME_MAX];
	const char *answer;

	snprintf(text, sizeof(text), "%.*s", (int)MIN(prompt->length, sizeof(text) - 1), prompt->text);
	printable_make(text, '?');
	answer = ssh2_secrets_find(g->secrets, text);
	if (!answer && g->link->way->may_ask &&
	    carrier_tty_ask(text, prompt->echo, g->secrets->typed, sizeof(g->secrets->typed), NULL) == 0) {
		ssh2_secrets_add(g->secrets, text, g->secrets->typed);
		answer = g->secrets->typed;
	}
	response->text = strdup(answer ? answer : "");
	response->length = response->text ? (unsigned)strlen(response->text) : 0;
	explicit_bzero(g->secrets->typed, sizeof(g->secrets->typed));
}

static struct login *answering; /* libssh2 hands the callback no more than the session */

static void on_questions(const char *name UNUSED, int name_bytes UNUSED, const char *text UNUSED, int text_bytes UNUSED,
			 int count, const LIBSSH2_USERAUTH_KBDINT_PROMPT *prompts, LIBSSH2_USERAUTH_KBDINT_RESPONSE *responses,
			 void **abstract UNUSED)
{
	for (int i = 0; i < count; i++)
		answer_one(answering, &prompts[i], &responses[i]);
	answering->asked += (unsigned)MAX(count, 0);
}


static int try_questions(struct login *g)
{
	const char *user = g->config->user;
	size_t known = g->secrets->count;
	int rc = 0;

	for (unsigned i = 0; i < TRIES && !is_in(g) && !is_over(g, rc); i++) {
		answering = g;
		g->asked = 0;
		rc = libssh2_userauth_keyboard_interactive_ex(g->link->session, user, (unsigned)strlen(user), on_questions);
		answering = NULL;
		if (rc == 0 || !g->link->way->may_ask || !g->asked)
			break;
		while (g->secrets->count > known) /* they were wrong */
			explicit_bzero(&g->secrets->secret[--g->secrets->count], sizeof(g->secrets->secret[0]));
	}
	note_tried(g, "answers");
	return rc;
}

static int send_password(struct login *g, const char *password)
{
	const char *user = g->config->user;

	return libssh2_userauth_password_ex(g->link->session, user, (unsigned)strlen(user), password, (unsigned)strlen(password),
					    NULL);
}

static int try_password(struct login *g)
{
	const char *known = ssh2_secrets_find(g->secrets, SSH2_PASSWORD);
	char text[2 * SSH_CONFIG_NAME_MAX + 40];
	int rc = 0;

	if (known)
		return send_password(g, known);
	snprintf(text, sizeof(text), "Password of %s at %s: ", g->config->user, g->link->way->name);
	for (unsigned i = 0; i < TRIES && g->link->way->may_ask && !is_in(g) && !is_over(g, rc); i++) {
		if (carrier_tty_ask(text, false, g->secrets->typed, sizeof(g->secrets->typed), NULL) == -1)
			break;
		rc = send_password(g, g->secrets->typed);
		if (rc == 0)
			ssh2_secrets_add(g->secrets, SSH2_PASSWORD, g->secrets->typed);
		explicit_bzero(g->secrets->typed, sizeof(g->secrets->typed));
		if (i == 0)
			note_tried(g, "a password");
	}
	return rc;
}

/* --- in */

static int say_not_in(const struct login *g, int rc, struct error *e)
{
	bool is_old = !libssh2_version(0x010b00);

	if (is_over(g, rc) && !*g->tried)
		return ssh2_error(g->link, EHOSTUNREACH, e, "it does not answer while we log in");
	if (is_over(g, rc))
		return error_set(e, EACCES, "it does not let %s in, and ended the connection: %s; tried: %s%s", g->config->user,
				 *g->link->goodbye ? g->link->goodbye : "no reason is given", g->tried,
				 g->config->has_identities_only ? "" : "; with many keys in the agent, IdentitiesOnly helps");
	return error_set(e, EACCES, "it does not let %s in: it wants %s; tried: %s%s%s", g->config->user, g->methods,
			 *g->tried ? g->tried : "nothing, as there is no key",
			 g->link->way->may_ask ? "" : "; there is no terminal to ask at for more",
			 g->has_rsa && is_old ? "; this libssh2 is too old to sign with RSA keys as hosts want it today: use "
						"another key, or --carrier ssh" : "");
}

int ssh2_login(struct ssh2_link *l, struct error *e)
{
	struct login g = { .link = l, .config = &l->way->config, .secrets = l->way->secrets };
	const char *user = g.config->user, *methods;
	int rc = 0;

	methods = libssh2_userauth_list(l->session, user, (unsigned)strlen(user));
	if (is_in(&g))
		return 0;
	if (!methods)
		return ssh2_error(l, EPROTO, e, "it does not say how to log in");
	snprintf(g.methods, sizeof(g.methods), "%s", methods);
	printable_make(g.methods, '?');
	if (takes(&g, "publickey") && !g.config->has_no_public_key) {
		rc = try_agent(&g);
		if (!is_in(&g) && !is_over(&g, rc))
			rc = try_files(&g);
	}
	if (!is_in(&g) && !is_over(&g, rc) && takes(&g, "keyboard-interactive") && !g.config->has_no_keyboard &&
	    (l->way->may_ask || g.secrets->count))
		rc = try_questions(&g);
	if (!is_in(&g) && !is_over(&g, rc) && takes(&g, "password") && !g.config->has_no_password)
		rc = try_password(&g);
	return is_in(&g) ? 0 : say_not_in(&g, rc, e);
}
