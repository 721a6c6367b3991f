/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-hosts - see fake-hosts.h
 *
 *      question -> counted: dies the driver here? -> a function of the table, on the shared world -> answer
 *
 * What a disk does is told in a few lines: no bytes go anywhere; `version` is what a guest wrote last, and the far disk has it when
 * the source is given. A mirror is linked as long as somebody listens at the journey's socket for that disk, or not before it was
 * looked at so often (link_takes); who asks for the handover meanwhile is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "migrate/relay.h"
#include "tests/unit/fake-hosts.h"

struct hosts *hosts;
static bool is_far; /* of this relay */

void hosts_begin(void)
{
	hosts = mmap(NULL, sizeof(*hosts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(hosts != MAP_FAILED);
}

void hosts_reset(void)
{
	*hosts = (struct hosts) { .busy = ATOMIC_FLAG_INIT };
	for (size_t i = 0; i < HOSTS_DISKS; i++) {
		hosts->disk[i].epoch = hosts->disk[i].version = 1;
		strcpy(hosts->disk[i].writer, "3");
	}
}

/* --- arguments */

struct args {
	char *uri, *verb, *args, *mark, *mirror, *epoch, *domain, *group, *remote;
	bool resume;
};
#define OPTIONAL(member, kind) { #member, kind, offsetof(struct args, member), .is_optional = true }
static const struct jsonspec_field fields[] = {
	OPTIONAL(uri, JS_STRING), OPTIONAL(verb, JS_STRING), OPTIONAL(args, JS_TEXT), OPTIONAL(mark, JS_STRING),
	OPTIONAL(mirror, JS_STRING), OPTIONAL(epoch, JS_STRING), OPTIONAL(domain, JS_STRING), OPTIONAL(group, JS_STRING),
	OPTIONAL(remote, JS_STRING), OPTIONAL(resume, JS_BOOL), { NULL },
};
static const struct jsonspec spec = { "args", sizeof(struct args), fields };

/* The last digit but the suffix: "...k0.raw", "m1-0". */
static size_t index_of(const char *text)
{
	const char *dot = strrchr(text, '.');

	return (size_t)((dot ? dot : text + strlen(text))[-1] - '0');
}

static struct hosts_disk *disk_of(const char *text)
{
	size_t i = index_of(text);

	return i < HOSTS_DISKS ? &hosts->disk[i] : NULL;
}

/* --- the mirror */

/* Somebody listens at the socket for it. */
static bool is_linked(const struct hosts_disk *d)
{
	CLEANUP_FREE char *end = NULL;
	char line[512];
	bool is_it = false;
	FILE *f = fopen("/proc/net/unix", "re");

	if (asprintf(&end, "/disk-%td\n", d - hosts->disk) < 0)
		abort();
	while (f && fgets(line, sizeof(line), f))
		is_it |= strstr(line, proc_run_dir()) && strstr(line, " 00010000 ") && strstr(line, end);
	if (f)
		fclose(f);
	return is_it && d->is_receiver_there;
}

static void give(struct hosts_disk *d, uint64_t epoch)
{
	d->here = HERE_GIVEN;
	d->epoch = d->far_epoch = epoch;
	d->there = FAR_ELIGIBLE;
	d->far_version = d->version;
	d->writer[0] = '\0';
}

static void withdraw(struct hosts_disk *d)
{
	d->here = HERE_OWNED;
	d->epoch++;
	d->group[0] = '\0';
}

/* A guest that is not held writes between any two questions. */
static void write_on(void)
{
	for (size_t i = 0; i < HOSTS_DISKS; i++)
		hosts->disk[i].version += hosts->disk[i].here == HERE_OWNED && strcmp(hosts->disk[i].writer, "3") == 0;
}

/* --- control verbs, of a disk here */

static int refuse(struct error *e, int err, const char *text)
{
	return error_set(e, err, "%s", text);
}

static const char *state_of(const struct hosts_disk *d)
{
	return d->here == HERE_OWNED ? "owned" : d->here == HERE_OFFERED ? "offered" : "given";
}

static void look(struct hosts_disk *d)
{
	pid_t to = is_linked(d) ? hosts->driver : 0;

	d->looks = to && to == d->linked_to ? d->looks + 1 : 1;
	d->linked_to = to;
}

static bool is_up(const struct hosts_disk *d)
{
	return is_linked(d) && (!hosts->link_takes || (d->linked_to == hosts->driver && d->looks > hosts->link_takes));
}

static char *status(struct hosts_disk *d, const char *id)
{
	CLEANUP_FREE char *operation = NULL;
	const char *lost = d->is_lost ? "true" : "false";
	char *text;

	if (d->has_mirror && asprintf(&operation, "{\"id\":\"op\",\"remote\":\"nbd+unix:///x?socket=/journeys/%s/disk-%td\",\"copy\":false,"
				      "\"why\":\"\",\"failed\":%s,\"complete\":true,\"remembered\":%s,\"linked\":%s,\"sync\":false,"
				      "\"lagging\":false,\"ended\":false,\"given\":false,\"lag_bytes\":0,\"dirty_bytes\":0}", id,
				      d - hosts->disk, lost, lost, is_up(d) ? "true" : "false") < 0)
		abort();
	look(d);
	if (asprintf(&text, "{\"owner\":{\"state\":\"%s\",\"group\":\"%s\"},\"domains\":[%s%s%s],\"operations\":[%s]}", state_of(d),
		     d->group, *d->writer ? "{\"domain\":\"" : "", d->writer,
		     *d->writer ? "\",\"active\":true,\"read_only\":false}" : "", operation ? operation : "") < 0)
		abort();
	return text;
}

static int prepare(struct hosts_disk *d, const struct args *a, struct error *e)
{
	if (!d->has_mirror || d->is_lost || !is_up(d) || d->here != HERE_OWNED || strcmp(d->writer, a->domain) != 0)
		return refuse(e, ENOTCONN, "the far side does not answer now");
	d->here = HERE_OFFERED;
	d->epoch++;
	snprintf(d->group, sizeof(d->group), "%s", a->group);
	return 0;
}

static int follow(struct hosts_disk *d, const struct args *a, bool is_commit, struct error *e)
{
	bool is_ours = strcmp(d->group, a->group) == 0;
	enum decision what;

	if (!is_ours || d->here != HERE_OFFERED)
		return is_commit && !(is_ours && d->here == HERE_GIVEN) ? refuse(e, ENOENT, "it is not prepared") : 0;
	what = is_commit ? decision_read(a->group, e) : decision_make(a->group, DECISION_CANCEL, e);
	if (what == DECISION_NONE)
		return refuse(e, ENOENT, "nothing is decided");
	if (what == DECISION_CANCEL) {
		withdraw(d);
		return is_commit ? refuse(e, ECANCELED, "it was cancelled") : 0;
	}
	if (!is_linked(d))
		return refuse(e, EAGAIN, "COMMIT cannot be had now");
	give(d, d->epoch);
	return is_commit ? 0 : refuse(e, EALREADY, "it was decided to be handed over");
}

static int start(struct hosts_disk *d, const struct args *a, struct error *e)
{
	if (d->here != HERE_OWNED)
		return refuse(e, EPERM, "it is not owned here");
	if (d->has_mirror && !d->is_lost)
		return refuse(e, EBUSY, "one runs");
	if (a->resume != (d->has_mirror && d->is_lost))
		return refuse(e, ENOENT, "there is nothing to resume, or there is");
	d->has_mirror = true;
	d->is_lost = false;
	if (is_linked(d) && d->there != FAR_ELIGIBLE) {
		d->there = FAR_RECEIVING;
		d->far_epoch = d->epoch;
	}
	return 0;
}

static int control(struct hosts_disk *d, const char *id, const struct args *a, char **answer, struct error *e)
{
	const char *verb = a->verb;
	struct args inner;
	int r = 0;

	if (jsonspec_decode(&spec, a->args, strlen(a->args), &inner, e) == -1)
		return -1;
	if (strcmp(verb, "status") == 0)
		*answer = status(d, id);
	else if (strcmp(verb, "mirror.start") == 0)
		r = start(d, &inner, e);
	else if (strcmp(verb, "handover.prepare") == 0)
		r = prepare(d, &inner, e);
	else if (strncmp(verb, "handover.", 9) == 0)
		r = follow(d, &inner, strcmp(verb, "handover.commit") == 0, e);
	else if (strcmp(verb, "mirror.destroy") == 0)
		d->has_mirror = d->is_lost = false;
	jsonspec_clear(&spec, &inner);
	if (r == 0 && !*answer)
		*answer = strdup("{\"id\":\"op\"}");
	return r;
}

/* --- the plugins' verbs */

static int activate_here(struct hosts_disk *d, const char *domain, struct error *e)
{
	if (d->here == HERE_GIVEN) {
		if (d->there != FAR_ELIGIBLE || !is_linked(d))
			return refuse(e, EPERM, "it was moved to another host");
		d->there = FAR_RECEIVING;
		withdraw(d);
		d->far_epoch = d->epoch;
	}
	if (d->here != HERE_OWNED)
		return refuse(e, EPERM, "it is being handed over");
	snprintf(d->writer, sizeof(d->writer), "%s", domain);
	return 0;
}

static int deactivate_here(struct hosts_disk *d, const char *domain)
{
	if (strcmp(d->writer, domain) != 0)
		return 0;
	d->writer[0] = '\0';
	if (d->has_mirror && !d->is_lost && is_linked(d) && d->here == HERE_OWNED)
		give(d, d->epoch + 1);
	return 0;
}

static int activate_there(struct hosts_disk *d, const char *domain, struct error *e)
{
	if (strncmp(domain, "MIR", 3) == 0) {
		d->is_receiver_there = true;
		return 0;
	}
	if (d->there != FAR_ELIGIBLE && d->there != FAR_STARTED)
		return refuse(e, EPERM, "it is not complete");
	d->there = FAR_STARTED;
	return 0;
}

static int deactivate_there(struct hosts_disk *d, const char *domain)
{
	if (strncmp(domain, "MIR", 3) != 0)
		return 0;
	d->is_receiver_there = false;
	if (d->there == FAR_RECEIVING)
		d->there = FAR_INCOMPLETE;
	return 0;
}

static int smapi(const struct args *a, struct error *e)
{
	struct hosts_disk *d;
	struct args inner;
	int r = 0;

	if (jsonspec_decode(&spec, a->args, strlen(a->args), &inner, e) == -1)
		return -1;
	d = disk_of(inner.uri);
	if (strcmp(a->verb, "Datapath.activate") == 0)
		r = is_far ? activate_there(d, inner.domain, e) : activate_here(d, inner.domain, e);
	else if (strcmp(a->verb, "Datapath.deactivate") == 0)
		r = is_far ? deactivate_there(d, inner.domain) : deactivate_here(d, inner.domain);
	jsonspec_clear(&spec, &inner);
	return r;
}

/* --- the far volume, the source */

static const char *const far_owners[] = { "", "owned", "receiving", "eligible", "incomplete", "owned" };

static char *describe(const struct hosts_disk *d)
{
	char *text;

	if (asprintf(&text, "{\"sr\":\"file:///b\",\"key\":\"f\",\"name\":\"x\",\"description\":\"\",\"uri\":\"sxm:///b/f%td.raw\","
		     "\"path\":\"/b/f.raw\",\"id\":\"f-%td\",\"format\":\"raw\",\"owner\":\"%s\",\"operation\":\"\","
		     "\"size_bytes\":4096,\"allocated_bytes\":0,\"read_write\":true,\"sharable\":false,\"cbt\":false,"
		     "\"operation_failed\":false,\"keys\":{},\"domains\":[]}", d - hosts->disk, d - hosts->disk,
		     far_owners[d->there]) < 0)
		abort();
	return text;
}

static int make(struct hosts_disk *d, struct error *e)
{
	if (d->is_undone)
		return refuse(e, EPERM, "it was undone");
	if (d->there == FAR_NONE)
		d->there = FAR_MADE;
	return 0;
}

static int undo(struct hosts_disk *d, const struct args *a, struct error *e)
{
	d->is_undone = true;
	if (d->there == FAR_ELIGIBLE && a->epoch && strtoull(a->epoch, NULL, 10) > d->far_epoch)
		d->there = FAR_INCOMPLETE;
	if (d->there == FAR_ELIGIBLE || d->there == FAR_STARTED)
		return refuse(e, EPERM, "it was handed over, and is not removed");
	d->there = FAR_NONE;
	d->is_named = false;
	return 0;
}

static int name(struct hosts_disk *d, struct error *e)
{
	if (d->there != FAR_ELIGIBLE && d->there != FAR_STARTED)
		return refuse(e, EPERM, "it was not handed over");
	d->is_named = true;
	return 0;
}

static int keep(struct hosts_disk *d, const struct args *a, struct error *e)
{
	if (d->here != HERE_GIVEN)
		return refuse(e, EPERM, "it is not given away");
	snprintf(d->kept, sizeof(d->kept), "%s", a->mark);
	return 0;
}

static char *say_owner(const struct hosts_disk *d)
{
	char *text;

	if (asprintf(&text, "{\"state\":\"%s\",\"epoch\":\"%" PRIu64 "\",\"mirror\":\"m\"}",
		     is_far ? far_owners[d->there] : state_of(d), is_far ? d->far_epoch : d->epoch) < 0)
		abort();
	return text;
}

static int answer(const char *verb, const struct args *a, char **ok, struct error *e)
{
	struct hosts_disk *d = a->uri ? disk_of(a->uri) : a->mark ? disk_of(a->mark) : NULL;
	int r = 0;

	if (strcmp(verb, "smapi") == 0)
		return smapi(a, e);
	if (!d)
		return refuse(e, EINVAL, "of which disk?");
	if (strcmp(verb, "control") == 0)
		return control(d, "m0", a, ok, e);
	if (strcmp(verb, "volume.make") == 0) {
		r = make(d, e);
		*ok = r == 0 ? describe(d) : NULL;
	} else if (strcmp(verb, "volume.owner") == 0) {
		*ok = say_owner(d);
	} else if (strcmp(verb, "volume.undo") == 0) {
		r = undo(d, a, e);
	} else if (strcmp(verb, "volume.name") == 0) {
		r = name(d, e);
	} else if (strcmp(verb, "volume.keep") == 0) {
		r = keep(d, a, e);
	}
	return r;
}

/* --- the relay */

/* True: whoever asked is no more. */
static bool dies(bool is_after)
{
	if (hosts->questions != hosts->dies_at || hosts->dies_after != is_after || hosts->has_died)
		return false;
	hosts->has_died = true;
	kill(hosts->driver, SIGKILL);
	return true;
}

static int ask(const char *verb, const char *text, struct relay_reply *r, struct error *e)
{
	bool has_died;
	struct args a;
	int result = -1;

	if (jsonspec_decode(&spec, text, strlen(text), &a, e) == -1)
		return -1;
	while (atomic_flag_test_and_set(&hosts->busy))
		usleep(100);
	hosts->questions++;
	write_on();
	has_died = dies(false);
	if (!has_died) {
		result = answer(verb, &a, &r->ok, e);
		has_died = dies(true);
	}
	atomic_flag_clear(&hosts->busy);
	jsonspec_clear(&spec, &a);
	if (has_died)
		_exit(0);
	if (strcmp(verb, "control") == 0 && r->ok) {
		CLEANUP_FREE char *inner = take_ptr(&r->ok);

		if (asprintf(&r->ok, "{\"answer\":%s}", inner) < 0)
			abort();
	}
	return result;
}

#define VERB(function, verb) \
	static int function(const char *args, struct relay_reply *r, struct error *e) \
	{ \
		return ask(verb, args, r, e); \
	}
VERB(on_smapi, "smapi")
VERB(on_control, "control")
VERB(on_make, "volume.make")
VERB(on_undo, "volume.undo")
VERB(on_name, "volume.name")
VERB(on_keep, "volume.keep")
VERB(on_track, "volume.track")
VERB(on_owner, "volume.owner")

static int hello(const char *args UNUSED, struct relay_reply *r, struct error *e UNUSED)
{
	r->ok = strdup("{\"protocol\":1,\"oldest\":1,\"version\":\"9\",\"hostname\":\"b\",\"host\":\"h\",\"now_ms\":1,"
		       "\"run_dir\":\"/run/sxm\"}");
	return 0;
}

static const struct relay_verb verbs[] = {
	{ "hello", hello }, { "smapi", on_smapi }, { "control", on_control }, { "volume.make", on_make }, { "volume.undo", on_undo },
	{ "volume.name", on_name }, { "volume.keep", on_keep }, { "volume.track", on_track }, { "volume.owner", on_owner },
	{ NULL, NULL },
};

/* Nobody else's channel is kept open by it. */
static void serve(int fd, bool is_of_far)
{
	static const struct relay_table table = { verbs };

	is_far = is_of_far;
	signal(SIGTERM, SIG_DFL);
	if (dup2(fd, 3) != 3 || close_range(4, ~0u, 0) == -1)
		_exit(1);
	_exit(relay_serve(&table, 3, 3));
}

static int channel(bool is_of_far, struct error *e)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		return error_errno(e, errno, "make a pair of sockets");
	pid = fork();
	if (pid == 0)
		serve(ends[1], is_of_far);
	close(ends[1]);
	if (pid > 0)
		return ends[0];
	close(ends[0]);
	return error_errno(e, errno, "fork");
}

int hosts_channel_here(void *arg UNUSED, struct error *e)
{
	return channel(false, e);
}

static int channel_there(struct carrier *c UNUSED, struct error *e)
{
	return channel(true, e);
}

static bool is_alive(struct carrier *c UNUSED)
{
	return true;
}

static void free_carrier(struct carrier *c)
{
	free(c);
}

struct carrier *hosts_carrier(void)
{
	static const struct carrier_ops ops = { .kind = "fake", .channel = channel_there, .is_alive = is_alive,
						.free = free_carrier };
	struct carrier *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	c->ops = &ops;
	return c;
}

/* --- persons */

void hosts_take_back(size_t i)
{
	struct hosts_disk *d = &hosts->disk[i];

	withdraw(d);
	d->has_mirror = d->is_lost = false;
	strcpy(d->writer, "3");
	d->version++;
}

void hosts_shut_down(size_t i)
{
	struct hosts_disk *d = &hosts->disk[i];

	d->writer[0] = '\0';
	give(d, d->epoch + 1);
}

void hosts_start_there(size_t i)
{
	hosts->disk[i].there = FAR_STARTED;
	hosts->disk[i].far_version++;
}
