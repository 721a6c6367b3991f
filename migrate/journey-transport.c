/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-transport - how the disks' bytes go there: through the tunnel, or by a connection of the mirror's own
 *
 *      ssh       a unix socket of the tunnel's; it ends with who drives the move
 *      tcp+tls   the move's key on both hosts -> the far disk's process listens, with TLS -> nbds://, from the mirror's process
 *      tcp       the same without key and TLS
 *
 * What listens there goes with the domain that receives. All of this may be done again: a key that is there is taken, a listener
 * that is there reads the key's file again. A mirror that has its connection needs none of us.
 * Can fail: the address is not to be had any more; a port that another program took meanwhile.
 * Invariant: what is to go over TLS never goes without.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "migrate/journey-private.h"
#include "migrate/move-key.h"
#include "migrate/question.h"
#include "migrate/way.h"

#define LISTEN_WAIT "\"wait_ms\":60000"

bool journey_is_tcp(const struct journey *j)
{
	return strcmp(j->r.transport, TRANSPORT_SSH) != 0;
}

static bool is_tls(const struct journey *j)
{
	return strcmp(j->r.transport, TRANSPORT_TLS) == 0;
}

static bool has_key(const struct journey *j)
{
	return is_tls(j) && !*j->r.certificates;
}

/* --- the mirror's remote */

static char *socket_path(const struct journey *j, size_t i)
{
	char name[32];

	snprintf(name, sizeof(name), "disk-%zu", i);
	return journey_run_path(j->r.id, name);
}

/* What has a meaning in a URI is escaped. */
static char *escape(const char *path)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
	char *text = path ? malloc(3 * strlen(path) + 1) : NULL, *to = text;

	for (; text && *path; path++)
		to += strchr(plain, *path) ? sprintf(to, "%c", *path) : sprintf(to, "%%%02X", (unsigned)(unsigned char)*path);
	if (text)
		*to = '\0';
	return text;
}

static char *tunnel_remote(const struct journey *j, size_t i)
{
	CLEANUP_FREE char *path = socket_path(j, i);
	CLEANUP_FREE char *escaped = escape(path);
	CLEANUP_FREE char *name = escape(journey_disk(j, i)->far_id); /* the far host's word: it names no other socket */
	char *uri;

	return !escaped || !name || asprintf(&uri, "nbd+unix:///%s?socket=%s", name, escaped) < 0 ? NULL : uri;
}

static char *tcp_remote(const struct journey *j, size_t i)
{
	const struct journey_disk *d = journey_disk(j, i);
	bool is_v6 = strchr(j->r.address, ':');
	CLEANUP_FREE char *path = has_key(j) ? move_key_path(j->r.id) : is_tls(j) ? strdup(j->r.certificates) : strdup("");
	CLEANUP_FREE char *escaped = escape(path);
	CLEANUP_FREE char *name = escape(d->far_id);
	const char *query = has_key(j) ? "?tls-psk-file=" : is_tls(j) ? "?tls-certificates=" : "";
	const char *user = has_key(j) ? j->r.id : "";
	char *uri;

	if (!escaped || !name ||
	    asprintf(&uri, "%s://%s%s%s%s%s:%" PRId64 "/%s%s%s", is_tls(j) ? "nbds" : "nbd", user, *user ? "@" : "",
		     is_v6 ? "[" : "", j->r.address, is_v6 ? "]" : "", d->port, name, query, escaped) < 0)
		return NULL;
	return uri;
}

char *journey_remote(const struct journey *j, size_t i)
{
	return journey_is_tcp(j) ? tcp_remote(j, i) : tunnel_remote(j, i);
}

static bool ends_part(char c)
{
	return c == '\0' || c == '&' || c == '?';
}

/* Of the tunnel by the socket's path, else by the export's name, which is of a volume that was made for this move. */
bool journey_is_remote(const struct journey *j, size_t i, const char *remote)
{
	CLEANUP_FREE char *name = escape(journey_disk(j, i)->far_id);
	CLEANUP_FREE char *part = NULL;
	const char *found;

	if (!name || (journey_is_tcp(j) ? asprintf(&part, "/%s", name)
					: asprintf(&part, "journeys/%s/disk-%zu", j->r.id, i)) < 0) {
		part = NULL;
		return false;
	}
	if (journey_is_tcp(j) && strncmp(remote, is_tls(j) ? "nbds://" : "nbd://", is_tls(j) ? 7 : 6) != 0)
		return false;
	if (has_key(j) && (strncmp(remote + 7, j->r.id, strlen(j->r.id)) != 0 || remote[7 + strlen(j->r.id)] != '@'))
		return false;
	found = strstr(remote, part);
	return found && ends_part(found[strlen(part)]);
}

/* --- the way is opened */

static int serve_by_tunnel(struct journey *j, struct error *e)
{
	CLEANUP_FREE char *dir = journey_run_path(j->r.id, "");

	if (!dir || proc_make_dir(dir, e) == -1)
		return dir ? -1 : error_set(e, ENOMEM, "out of memory");
	for (size_t i = 0; i < j->r.disks.count; i++) {
		CLEANUP_FREE char *path = socket_path(j, i);

		if (!path)
			return error_set(e, ENOMEM, "out of memory");
		if (tunnel_serve(j->tunnel, path, journey_disk(j, i)->far_uri, j->r.receiver, j->r.is_squeezed, e) == -1)
			return -1;
	}
	return 0;
}

struct put {
	char *file;
};
static const struct jsonspec_field put_fields[] = { { "file", JS_STRING, offsetof(struct put, file) }, { NULL } };
static const struct jsonspec put_spec = { "key.put", sizeof(struct put), put_fields };

/* Made once; one that was lost here (a reboot) is made anew, and is the one there from then on. */
static int have_key(const struct journey *j, struct move_key *k, struct error *e)
{
	struct error why;

	if (move_key_read(j->r.id, k, &why) == 0)
		return 0;
	return move_key_make(k, e) == 0 ? move_key_write(j->r.id, k->digits, e) : -1;
}

/* is_patient: for as long as the far host may be away. */
static char *ask_there(struct journey *j, const char *verb, const char *args, bool is_patient, struct error *e)
{
	if (!args) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	return is_patient ? journey_ask_there(j, verb, args, e) : peer_ask(&j->there, verb, args, JOURNEY_LONG_MS, e);
}

/* The name of its file there: heap. */
static char *share_key(struct journey *j, bool is_patient, struct error *e)
{
	struct move_key k;
	CLEANUP_FREE char *ok = NULL;
	char *args = NULL;
	struct put put;

	if (have_key(j, &k, e) == 0) {
		args = question_new(NULL, "move", j->r.id, "key", k.digits, NULL);
		ok = ask_there(j, "key.put", args, is_patient, e);
	}
	move_key_wipe(&k);
	if (args)
		explicit_bzero(args, strlen(args));
	free(args);
	return ok && jsonspec_decode(&put_spec, ok, strlen(ok), &put, e) == 0 ? put.file : NULL;
}

static char *tls_args(const struct journey *j, const char *file)
{
	return *j->r.certificates ? question_new(NULL, "certificates", j->r.certificates, NULL)
				  : question_new(NULL, "psk_username", j->r.id, "psk_file", file, NULL);
}

/* file: the key's there; "": none. */
static char *listen_question(const struct journey *j, size_t i, const char *file)
{
	CLEANUP_FREE char *tls = is_tls(j) ? tls_args(j, file) : strdup("null");
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *raw = NULL;
	CLEANUP_FREE char *inner = NULL;

	if (!tls || asprintf(&inner, is_tls(j) ? "\"port\":0,\"tls\":%s" : "\"port\":0", tls) < 0) {
		inner = NULL;
		return NULL;
	}
	args = question_new(inner, "domain", j->r.receiver, "host", j->r.address, NULL);
	if (!args || asprintf(&raw, "\"args\":%s," LISTEN_WAIT, args) < 0) {
		raw = NULL;
		return NULL;
	}
	return question_new(raw, "uri", journey_disk(j, i)->far_uri, "verb", "listen", NULL);
}

struct bound {
	int64_t port;
};
static const struct jsonspec_field bound_fields[] = { { "port", JS_INT64, offsetof(struct bound, port) }, { NULL } };
static const struct jsonspec bound_spec = { "listen", sizeof(struct bound), bound_fields };
struct listening {
	struct bound answer;
};
static const struct jsonspec_field listening_fields[] = {
	{ "answer", JS_RECORD, offsetof(struct listening, answer), .sub = &bound_spec }, { NULL },
};
static const struct jsonspec listening_spec = { "listen", sizeof(struct listening), listening_fields };

static int listen_one(struct journey *j, size_t i, const char *file, bool is_patient, struct error *e)
{
	struct journey_disk *d = journey_disk(j, i);
	CLEANUP_FREE char *question = listen_question(j, i, file);
	CLEANUP_FREE char *ok = ask_there(j, "control", question, is_patient, e);
	struct listening l;

	if (!ok || jsonspec_decode(&listening_spec, ok, strlen(ok), &l, e) == -1)
		return error_prefix(e, "let %s listen there, at %s", d->name, j->r.address);
	if (l.answer.port < 1 || l.answer.port > UINT16_MAX)
		return error_set(e, EPROTO, "%s listens at no port there", d->name);
	if (d->port == l.answer.port)
		return 0;
	d->port = l.answer.port;
	return journey_save(j, e);
}

static int open_all(struct journey *j, bool is_patient, struct error *e)
{
	CLEANUP_FREE char *file = has_key(j) ? share_key(j, is_patient, e) : strdup("");

	for (size_t i = 0; file && i < j->r.disks.count; i++)
		if (listen_one(j, i, file, is_patient, e) == -1)
			return -1;
	return file ? 0 : -1;
}

/* Once the disks are about to be handed over, and maybe were, what is there may listen no more, and need not. */
int journey_open_way(struct journey *j, struct error *e)
{
	struct error why = { 0 };

	if (!journey_is_tcp(j))
		return serve_by_tunnel(j, e);
	if (journey_step_of(&j->r) < JOURNEY_SWITCHING)
		return open_all(j, true, e);
	if (open_all(j, false, &why) == -1)
		journey_say(j, "%s", why.text);
	return 0;
}

void journey_reopen_way(struct journey *j)
{
	struct error why = { 0 };

	if (journey_is_tcp(j) && open_all(j, false, &why) == -1)
		snprintf(j->view.why, sizeof(j->view.why), "%.200s", why.text);
}

/* --- the end of it */

void journey_close_way(struct journey *j)
{
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct error e = { 0 };

	if (!has_key(j))
		return;
	if (move_key_drop(j->r.id, &e) == -1)
		journey_say(j, "%s", e.text);
	args = question_new(NULL, "move", j->r.id, NULL);
	ok = ask_there(j, "key.drop", args, false, &e);
	if (!ok)
		journey_say(j, "the key of this move is left there, and worth nothing any more (sxm doctor --fix): %s", e.text);
}

/* --- before all */

struct opened {
	int64_t port;
	char *word;
};
static const struct jsonspec_field opened_fields[] = {
	{ "port", JS_INT64, offsetof(struct opened, port) }, { "word", JS_STRING, offsetof(struct opened, word) }, { NULL },
};
static const struct jsonspec opened_spec = { "way.open", sizeof(struct opened), opened_fields };

/* Where sshd was reached is where the disks are to be, if nobody says otherwise. */
static int find_address(struct journey *j, struct error *e)
{
	if (*j->r.address)
		return 0;
	if (strcmp(j->r.kind, "exec") == 0 || !*j->there.greeting.address)
		return error_set(e, EDESTADDRREQ, "it is not known at which address %s is reached: say it with --listen",
				 j->r.host);
	if (!way_is_address(j->there.greeting.address))
		return error_set(e, EDESTADDRREQ, "%s is reached at %s, where no process can be told to listen: say another "
				 "address of it with --listen", j->r.host, j->there.greeting.address);
	return journey_set(&j->r.address, j->there.greeting.address, e);
}

static int try_address(struct journey *j, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "address", j->r.address, NULL);
	CLEANUP_FREE char *ok = ask_there(j, "way.open", args, false, e);
	struct opened o;
	int r;

	if (!ok || jsonspec_decode(&opened_spec, ok, strlen(ok), &o, e) == -1)
		return -1;
	r = o.port > 0 && o.port <= UINT16_MAX ? way_try(j->r.address, (uint16_t)o.port, o.word, e)
					       : error_set(e, EPROTO, "%s listens at no port", j->r.host);
	jsonspec_clear(&opened_spec, &o);
	return r == 0 ? 0 : error_prefix(e, "%s is not reached from here at %s, where its disks would listen (a firewall? "
					 "--listen names another address of it, --transport ssh needs none)", j->r.host,
					 j->r.address);
}

int journey_try_way(struct journey *j, struct error *e)
{
	const struct peer_greeting *g = &j->there.greeting;

	if (!journey_is_tcp(j))
		return 0;
	if (!g->has_tcp || (is_tls(j) && !g->has_tls))
		return error_set(e, ENOTSUP, "sxm %s on %s %s: --transport ssh", g->version, j->r.host,
				 g->has_tcp ? "was built without TLS" : "knows only --transport ssh");
	return find_address(j, e) == 0 ? try_address(j, e) : -1;
}
