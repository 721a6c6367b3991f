/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * datapath - the Datapath.* verbs: each is one question to the image's own process
 *
 *      attach    starts the process when there is none; the answer is where its NBD server will listen for this domain
 *      activate  the server listens, the image is open
 *      deactivate   the barrier: when it returns, everything acknowledged is stored, on the far side too where a mirror runs
 *      detach    the process ends when nobody is left
 *
 * deactivate and detach of what is not there succeed.  They do start a process when the last one was killed and left somebody
 * active: only a process can say whether its mirror had everything.
 */
#include "plugins/datapath.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/uri.h"
#include "overlay/overlay-file.h"
#include "base/backend-kind.h"
#include "plugins/image.h"
#include "plugins/owner-file.h"
#include "plugins/ownership.h"
#include "plugins/smapi.h"
#include "plugins/volume.h"

#define STATUS_WAIT_MS 10000u
#define GIVE_BACK_MS 10000u
#define GIVE_BACK_PAUSE_MS 20u
#define MERGE_MS 60000u
#define EXPECT_WAIT_MS 1000u
#define MAYBE_WAIT_MS 1000u

struct domain_args {
	char *domain;
	bool read_only;
};
static const struct jsonspec_field domain_fields[] = {
	{ "domain", JS_STRING, offsetof(struct domain_args, domain) },
	{ "read_only", JS_BOOL, offsetof(struct domain_args, read_only), .is_optional = true },
	{ NULL },
};
static const struct jsonspec domain_spec = { "domain", sizeof(struct domain_args), domain_fields };

struct attached {
	char *socket, *export_name;
};
static const struct jsonspec_field attached_fields[] = {
	{ "socket", JS_STRING, offsetof(struct attached, socket) },
	{ "export", JS_STRING, offsetof(struct attached, export_name) },
	{ NULL },
};
static const struct jsonspec attached_spec = { "answer to attach", sizeof(struct attached), attached_fields };

struct importing {
	char *socket;
};
static const struct jsonspec_field importing_fields[] = {
	{ "socket", JS_STRING, offsetof(struct importing, socket) },
	{ NULL },
};
static const struct jsonspec importing_spec = { "answer to import", sizeof(struct importing), importing_fields };

struct user {
	char *domain;
	bool active, read_only;
};
static const struct jsonspec_field user_fields[] = {
	{ "domain", JS_STRING, offsetof(struct user, domain) },
	{ "active", JS_BOOL, offsetof(struct user, active) },
	{ "read_only", JS_BOOL, offsetof(struct user, read_only), .is_optional = true },
	{ NULL },
};
static const struct jsonspec user_spec = { "domain", sizeof(struct user), user_fields };

struct users {
	struct jsonspec_records domains;
};
static const struct jsonspec_field users_fields[] = {
	{ "domains", JS_RECORDS, offsetof(struct users, domains), .sub = &user_spec },
	{ NULL },
};
static const struct jsonspec users_spec = { "status", sizeof(struct users), users_fields };

char *datapath_domain(const char *domain)
{
	struct domain_args args = { .domain = (char *)(uintptr_t)domain };

	return jsonspec_encode(&domain_spec, &args);
}

char *datapath_image(const char *uri, struct failure *f)
{
	struct error e;
	CLEANUP_FREE char *path = uri_path(uri, "sxm", &e);
	char *canonical;

	if (!path) {
		failure_from(f, FAILURE_REQUEST, &e);
		return NULL;
	}
	canonical = uri_canonical(path, &e);
	if (canonical)
		return canonical;
	if (e.err == EINVAL || e.err == ENOMEM) {
		failure_from(f, FAILURE_REQUEST, &e);
		return NULL;
	}
	return take_ptr(&path); /* what is no longer there can still be let go of */
}

/* --- open, close: the disk keeps nothing between two lives of a guest but what is on it */

static int check_uri(struct smapi_call *call, char **result, struct failure *f)
{
	CLEANUP_FREE char *path = datapath_image(call->args.uri, f);

	return path ? smapi_unit(result, f) : -1;
}

int datapath_open(struct smapi_call *call, char **result, struct failure *f)
{
	return check_uri(call, result, f);
}

int datapath_close(struct smapi_call *call, char **result, struct failure *f)
{
	return check_uri(call, result, f);
}

/* --- attach, activate */

/* Whoever may put a link into an SR's directory must not make us serve what is elsewhere. */
static bool is_link_in_sr(const char *path)
{
	CLEANUP_FREE char *dir = strdup(path);
	CLEANUP_FREE char *record = NULL;
	struct stat st;

	if (!dir || lstat(path, &st) == -1 || !S_ISLNK(st.st_mode))
		return false;
	*strrchr(dir, '/') = '\0';
	record = meta_sr_path(dir);
	return !record || access(record, F_OK) == 0;
}

static int check_image(const char *path, struct failure *f)
{
	struct stat st;

	if (stat(path, &st) == -1 && errno == ENOENT && volume_is_data_destroyed(path))
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, ENODATA,
				   "the data of %s was destroyed (Volume.data_destroy); what changed up to it can still be "
				   "listed, and it can be removed", path);
	if (is_link_in_sr(path))
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, ELOOP, "image %s is a symbolic link, not a file of the SR's; "
				   "`sxm fsck` moves it out of the way", path);
	if (stat(path, &st) == -1)
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, errno, "image %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, EINVAL, "image %s is neither a file nor a block device", path);
	return 0;
}

/* Asks the image's process, which is started when it is not there. NULL + f. */
static char *ask_started(struct smapi_call *call, const char *verb, bool is_read_only, struct failure *f)
{
	CLEANUP_FREE char *path = datapath_image(call->args.uri, f);
	struct domain_args args = { .domain = call->args.domain, .read_only = is_read_only };
	CLEANUP_FREE char *text = jsonspec_encode(&domain_spec, &args);
	struct process p;
	struct error e;
	char *ok;

	if (!path || check_image(path, f) == -1 || (!is_read_only && ownership_prepare(path, f) == -1))
		return NULL;
	if (!text) {
		failure_set(f, FAILURE_VDI_UNAVAILABLE, ENOMEM, "out of memory");
		return NULL;
	}
	ok = process_by_path(&p, path, &e) == 0 ? process_call(&p, verb, text, PROCESS_START, 0, &e) : NULL;
	if (!ok)
		ownership_explain(path, f, FAILURE_VDI_UNAVAILABLE, &e);
	return ok;
}

int datapath_attach(struct smapi_call *call, char **result, struct failure *f)
{
	CLEANUP_FREE char *ok = ask_started(call, "attach", false, f);
	CLEANUP_FREE char *uri = NULL;
	char kind[BACKEND_KIND_MAX];
	struct attached attached;
	struct error e;

	if (!ok)
		return -1;
	if (jsonspec_decode(&attached_spec, ok, strlen(ok), &attached, &e) == -1)
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	if (asprintf(&uri, "nbd:unix:%s:exportname=%s", attached.socket, attached.export_name) < 0)
		uri = NULL;
	jsonspec_clear(&attached_spec, &attached);
	backend_kind(kind);
	return smapi_result(uri ? types_backend(uri, kind) : NULL, result, f);
}

/* The answer is where xapi passes the connection of a mirror from a SMAPIv1 host. */
int datapath_import_activate(struct smapi_call *call, char **result, struct failure *f)
{
	CLEANUP_FREE char *ok = ask_started(call, "import", false, f);
	struct importing importing;
	struct error e;
	int r;

	if (!ok)
		return -1;
	if (jsonspec_decode(&importing_spec, ok, strlen(ok), &importing, &e) == -1)
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	r = smapi_result(jsonspec_string(importing.socket), result, f);
	jsonspec_clear(&importing_spec, &importing);
	return r;
}

/* A full SR starts guests all the same; for that a new content_id needs no room. */
static int note_writer(const char *path, bool *is_read_only, struct failure *f)
{
	struct error e;
	int r = volume_note_writer(path, is_read_only, &e);

	if (r)
		log_error("%s has no new content_id: %s", path, e.text);
	if (*is_read_only)
		log_info("%s is read-only, and is served so", path);
	if (r == 0 || (r == 1 && !ownership_applies(path)))
		return 0;
	return failure_set(f, FAILURE_VDI_UNAVAILABLE, e.err, "%s is not activated, as its content_id cannot be changed, and by "
			   "that it would be taken for what it was before: %s", path, e.text);
}

/* On an SR that hosts share another host does not see that it is attached here (volume_is_doubted()), and may take it for unused
 * until its lease is ours. What was taken meanwhile has the content_id of then: so the guest does not start under that one. */
static int activate(struct smapi_call *call, bool is_read_only, char **result, struct failure *f)
{
	CLEANUP_FREE char *path = datapath_image(call->args.uri, f);
	CLEANUP_FREE char *ok = NULL;
	struct failure why;

	if (!path || (!is_read_only && note_writer(path, &is_read_only, f) == -1))
		return -1;
	ok = ask_started(call, "activate", is_read_only, f);
	if (ok && !is_read_only && ownership_applies(path))
		note_writer(path, &is_read_only, &why);
	return ok ? smapi_unit(result, f) : -1;
}

int datapath_activate(struct smapi_call *call, char **result, struct failure *f)
{
	return activate(call, false, result, f);
}

int datapath_activate_readonly(struct smapi_call *call, char **result, struct failure *f)
{
	return activate(call, true, result, f);
}

/* --- deactivate, detach */

static int let_go(const char *path, const char *verb, const char *domain, struct failure *f)
{
	CLEANUP_FREE char *args = datapath_domain(domain);
	CLEANUP_FREE char *ok = NULL;
	struct process p;
	struct error e;

	if (!args)
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, ENOMEM, "out of memory");
	if (process_by_path(&p, path, &e) == 0)
		ok = process_call(&p, verb, args, PROCESS_RESTART, 0, &e);
	return ok || e.err == ESRCH ? 0 : failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
}

static int let_go_by_uri(struct smapi_call *call, const char *verb, char **result, struct failure *f)
{
	CLEANUP_FREE char *path = datapath_image(call->args.uri, f);

	return path && let_go(path, verb, call->args.domain, f) == 0 ? smapi_unit(result, f) : -1;
}

int datapath_deactivate(struct smapi_call *call, char **result, struct failure *f)
{
	return let_go_by_uri(call, "deactivate", result, f);
}

int datapath_detach(struct smapi_call *call, char **result, struct failure *f)
{
	return let_go_by_uri(call, "detach", result, f);
}

/* --- release */

/* xapi's name for the far end of a move: MIR and 6 hexadecimal digits. It destroys that volume without letting go of it. */
static bool is_far_end(const char *domain)
{
	return strncmp(domain, "MIR", 3) == 0;
}

static int release_users(const char *path, const struct users *users, struct failure *f)
{
	const struct user *user = users->domains.item;

	for (size_t i = 0; i < users->domains.count; i++)
		if (!is_far_end(user[i].domain))
			return failure_set(f, FAILURE_VDI_IN_USE, EBUSY, "%s is %s for domain %s; %s it first", path,
					   user[i].active ? "active" : "attached", user[i].domain,
					   user[i].active ? "deactivate and detach" : "detach");
	for (size_t i = 0; i < users->domains.count; i++) {
		log_info("%s is to be removed: domain %s is let go of", path, user[i].domain);
		if (let_go(path, "deactivate", user[i].domain, f) == -1 || let_go(path, "detach", user[i].domain, f) == -1)
			return -1;
	}
	return 0;
}

/* What is nobody's but ours, and has not been promised to anybody, may go; of the rest its process knows. */
static bool is_plainly_ours(const char *path)
{
	struct owner_file owner;
	struct error e;
	bool is_ours;

	if (owner_file_read(path, &owner, &e) == -1)
		return false;
	is_ours = owner_file_is(&owner, "owned") && !owner.told;
	owner_file_clear(&owner);
	return is_ours;
}

/* What is eligible is given back to its source first, which takes a moment. */
static int release_owner(const struct process *p, struct failure *f)
{
	struct error e = { 0 };

	if (is_plainly_ours(p->path) || access(p->path, F_OK) == -1)
		return 0;
	for (unsigned ms = 0; ms < GIVE_BACK_MS; ms += GIVE_BACK_PAUSE_MS) {
		const struct timespec pause = { .tv_nsec = GIVE_BACK_PAUSE_MS * (long)NS_PER_MS };
		CLEANUP_FREE char *ok = process_call(p, "destroy", NULL, PROCESS_START, STATUS_WAIT_MS, &e);

		if (ok)
			return 0;
		if (e.err != EAGAIN)
			break;
		nanosleep(&pause, NULL);
	}
	return failure_from(f, FAILURE_VDI_DELETE, &e);
}

/* As long as that goes on its process has the image, though nobody has it attached. */
static void merge_before_removal(const char *path)
{
	enum overlay_state state;
	struct error e = { 0 };

	if (overlay_state(path, &state, &e) == 0 && state == OVERLAY_COMPOSED && datapath_merge(path, &e) == -1)
		log_warn("%s; it is to be removed all the same", e.text);
}

int datapath_release(const char *path, struct failure *f)
{
	CLEANUP_FREE char *canonical = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct users users;
	struct process p;
	struct error e;
	int r;

	canonical = uri_canonical(path, &e);
	if (!canonical || process_by_path(&p, canonical, &e) == -1)
		return failure_from(f, FAILURE_VDI_DELETE, &e);
	merge_before_removal(canonical);
	ok = process_call(&p, "status", NULL, PROCESS_RESTART, STATUS_WAIT_MS, &e);
	if (!ok)
		return e.err == ESRCH ? release_owner(&p, f) : failure_from(f, FAILURE_VDI_IN_USE, &e);
	if (jsonspec_decode(&users_spec, ok, strlen(ok), &users, &e) == -1)
		return failure_from(f, FAILURE_VDI_IN_USE, &e);
	r = release_users(canonical, &users, f);
	jsonspec_clear(&users_spec, &users);
	return r == 0 ? release_owner(&p, f) : -1;
}

bool datapath_owes(const char *path)
{
	return !is_plainly_ours(path) && access(path, F_OK) == 0;
}

/* --- for the volume's verbs */

struct snapshot_args {
	char *path, *volume;
};
static const struct jsonspec_field snapshot_fields[] = {
	{ "path", JS_STRING, offsetof(struct snapshot_args, path) },
	{ "volume", JS_STRING, offsetof(struct snapshot_args, volume), .is_optional = true },
	{ NULL },
};
static const struct jsonspec snapshot_spec = { "snapshot", sizeof(struct snapshot_args), snapshot_fields };

struct resize_args {
	int64_t size_bytes;
};
static const struct jsonspec_field resize_fields[] = {
	{ "size_bytes", JS_INT64, offsetof(struct resize_args, size_bytes) }, { NULL }
};
static const struct jsonspec resize_spec = { "resize", sizeof(struct resize_args), resize_fields };

/* Takes args. */
static int ask_process(const char *image, const char *verb, char *args, struct error *e)
{
	CLEANUP_FREE char *text = args;
	CLEANUP_FREE char *canonical = uri_canonical(image, e);
	CLEANUP_FREE char *ok = NULL;
	struct process p;

	if (!text)
		return error_set(e, ENOMEM, "out of memory");
	if (!canonical || process_by_path(&p, canonical, e) == -1)
		return -1;
	ok = process_call(&p, verb, text, PROCESS_RESTART, 0, e);
	return ok ? 0 : e->err == ESRCH || e->err == EAGAIN ? 1 : -1;
}

int datapath_snapshot(const char *image, const char *to, const char *key, struct error *e)
{
	const struct snapshot_args args = { .path = (char *)(uintptr_t)to, .volume = (char *)(uintptr_t)key };

	return ask_process(image, "snapshot", jsonspec_encode(&snapshot_spec, &args), e);
}

int datapath_track(const char *image, bool is_wanted, struct error *e)
{
	return ask_process(image, is_wanted ? "cbt.enable" : "cbt.disable", strdup("{}"), e);
}

int datapath_save_log(const char *image, const char *to, struct error *e)
{
	const struct snapshot_args args = { .path = (char *)(uintptr_t)to };

	return ask_process(image, "cbt.save", jsonspec_encode(&snapshot_spec, &args), e);
}

int datapath_resize(const char *image, int64_t bytes, struct error *e)
{
	const struct resize_args args = { .size_bytes = bytes };

	return ask_process(image, "resize", jsonspec_encode(&resize_spec, &args), e);
}

int datapath_merge(const char *image, struct error *e)
{
	CLEANUP_FREE char *canonical = NULL;
	CLEANUP_FREE char *ok = NULL;
	enum overlay_state state;
	struct process p;

	if (overlay_state(image, &state, e) == -1)
		return -1;
	if (state == OVERLAY_NONE)
		return 0;
	canonical = uri_canonical(image, e);
	if (!canonical || process_by_path(&p, canonical, e) == -1)
		return -1;
	ok = process_call(&p, "merge", NULL, PROCESS_START, MERGE_MS, e);
	return ok ? 0 : error_prefix(e, "what was mirrored to %s", image);
}

void datapath_expect(const char *image)
{
	struct error e;
	CLEANUP_FREE char *canonical = uri_canonical(image, &e);
	CLEANUP_FREE char *ok = NULL;
	struct process p;

	if (canonical && process_by_path(&p, canonical, &e) == 0)
		ok = process_ask(&p, "expect", NULL, EXPECT_WAIT_MS, &e);
}

int datapath_check_whole(const char *path, struct error *e)
{
	enum overlay_state state;
	struct owner_file owner;
	bool is_whole;

	if (overlay_state(path, &state, e) == -1)
		return -1;
	if (state != OVERLAY_NONE)
		return error_set(e, EAGAIN, "what was mirrored to %s is not merged into it yet; ask again", path);
	if (owner_file_read(path, &owner, e) == -1)
		return error_prefix(e, "whose %s is", path);
	is_whole = !owner_file_is(&owner, "receiving") && !owner_file_is(&owner, "incomplete") &&
		   !owner_file_is(&owner, "released");
	owner_file_clear(&owner);
	return is_whole ? 0 : error_set(e, EPERM, "%s is the far side of a mirror, and has not everything; it can be cloned when "
					"it has", path);
}

static int check_unused(const struct users *users, const char *path, struct failure *f)
{
	const struct user *user = users->domains.item;

	if (!users->domains.count)
		return 0;
	return failure_set(f, FAILURE_VDI_IN_USE, EBUSY, "%s is %s for domain %s; %s it first", path,
			   user->active ? "active" : "attached", user->domain, user->active ? "deactivate and detach" : "detach");
}

static bool has_user(const char *path, bool is_active, unsigned wait_ms)
{
	struct error e;
	CLEANUP_FREE char *canonical = uri_canonical(path, &e);
	CLEANUP_FREE char *ok = NULL;
	const struct user *user;
	struct users users;
	struct process p;
	bool has = false;

	if (!canonical || process_by_path(&p, canonical, &e) == -1)
		return false;
	ok = process_call(&p, "status", NULL, PROCESS_RESTART, wait_ms, &e);
	if (!ok || jsonspec_decode(&users_spec, ok, strlen(ok), &users, &e) == -1)
		return e.err != ESRCH;
	user = users.domains.item;
	for (size_t i = 0; i < users.domains.count; i++)
		has |= user[i].active ? !user[i].read_only : !is_active;
	jsonspec_clear(&users_spec, &users);
	return has;
}

bool datapath_has_writer(const char *path)
{
	return has_user(path, true, STATUS_WAIT_MS);
}

bool datapath_may_get_writer(const char *path)
{
	return has_user(path, false, MAYBE_WAIT_MS);
}

int datapath_check_idle(const char *path, struct failure *f)
{
	CLEANUP_FREE char *canonical = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct users users;
	struct process p;
	struct error e;
	int r;

	canonical = uri_canonical(path, &e);
	if (!canonical || process_by_path(&p, canonical, &e) == -1)
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	ok = process_call(&p, "status", NULL, PROCESS_RESTART, STATUS_WAIT_MS, &e);
	if (ok && jsonspec_decode(&users_spec, ok, strlen(ok), &users, &e) == 0) {
		r = check_unused(&users, canonical, f);
		jsonspec_clear(&users_spec, &users);
		if (r == -1)
			return -1;
	} else if (e.err != ESRCH) {
		return failure_from(f, FAILURE_VDI_IN_USE, &e);
	}
	if (datapath_owes(canonical))
		return failure_set(f, FAILURE_VDI_IN_USE, EBUSY,
				   "%s was moved, or a mirror of it is not settled; activate it, or end the mirror, first", path);
	return 0;
}
