/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-nbd-open - the blocking half of a disk whose bytes an NBD server on this host has
 *
 *      KEY.nbd:  "nbd+unix:///EXPORT?socket=PATH"
 *                ["keeps-writes"]
 *
 *      read the line -> lock the file -> lock the URI -> connect, greet -> does it fit? -> is nobody's request left in it?
 *
 * The name decides, never the contents: what a guest writes to a raw image is not looked at for a URI.  The file stands for
 * the disk wherever a path does (its locks, its id, what is kept beside it); only its bytes are elsewhere.
 *
 * Two locks.  The file's keeps a second process off this file.  Two files may name one export: so the URI is locked as well, by
 * a file in SXM_RUN_DIR that is named for it and stays.  Both are held for as long as the disk is open; both compare text, and
 * two spellings of one socket are two disks.  What locks cannot tell, see disk-nbd-fence.c.
 *
 * Only nbd+unix: the server is on this host, and whoever can write to a shared SR cannot make root call other hosts.
 */
#include "disk/disk-nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "disk/disk-qcow2.h"

#define SUFFIX ".nbd"
#define SCHEME "nbd+unix://"
#define PROMISE "keeps-writes"
#define URI_MAX_BYTES 8192u
#define GREETING_MS 5000u
#define SLICE_MS 50u
#define PAUSE_MS 20u
#define MIN_BLOCK_MAX 65536u
#define MAX_BYTES (32u << 20) /* NBD's advice where a server states no sizes, like the next */
#define MIN_BLOCK_UNSTATED 512u

bool disk_nbd_is_named(const char *path)
{
	size_t bytes = strlen(path);

	return bytes > sizeof(SUFFIX) && strcmp(path + bytes - strlen(SUFFIX), SUFFIX) == 0;
}

/* --- the file, and the locks */

/* Cuts the second line off. False: it says something else. */
static bool take_promise(char *text, bool *keeps_writes)
{
	char *second = strchr(text, '\n');

	*keeps_writes = second != NULL;
	if (second)
		*second++ = '\0';
	return !second || strcmp(second, PROMISE) == 0;
}

/* From outside: one line of printable characters, and perhaps the promise, or it is refused. */
static char *read_uri(int fd, const char *path, bool *keeps_writes, struct error *e)
{
	CLEANUP_FREE char *text = calloc(1, URI_MAX_BYTES + 2);
	ssize_t bytes = text ? pread(fd, text, URI_MAX_BYTES + 1, 0) : -1;

	if (bytes < 0) {
		error_errno(e, text ? errno : ENOMEM, "cannot read %s", path);
		return NULL;
	}
	if (bytes > 0 && text[bytes - 1] == '\n')
		text[--bytes] = '\0';
	if (bytes != (ssize_t)strlen(text) || !take_promise(text, keeps_writes))
		text[0] = '\0';
	for (size_t i = 0; text[i]; i++)
		if (text[i] <= ' ' || text[i] == 0x7f)
			text[0] = '\0';
	if (bytes > (ssize_t)URI_MAX_BYTES || strncmp(text, SCHEME, strlen(SCHEME)) != 0) {
		error_set(e, EINVAL, "%s names no export: a file called *" SUFFIX " has one line of at most %u characters, "
			  SCHEME "/EXPORT?socket=PATH, and perhaps a second, " PROMISE, path, URI_MAX_BYTES);
		return NULL;
	}
	return take_ptr(&text);
}

static int open_file(struct disk_file *f, struct error *e)
{
	struct stat st;

	f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (f->fd < 0 || fstat(f->fd, &st) == -1)
		return error_errno(e, errno, "cannot open %s", f->path);
	if (!S_ISREG(st.st_mode))
		return error_set(e, EINVAL, "%s is not a file that names an NBD export, as its name says", f->path);
	return 0;
}

static uint64_t hash_fnv1a(const char *text)
{
	uint64_t hash = UINT64_C(14695981039346656037);

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
	return hash;
}

static int lock_uri(struct disk_nbd *n, unsigned wait_ms, struct error *e)
{
	CLEANUP_FREE char *path = NULL;

	if (proc_make_dir(proc_run_dir(), e) == -1)
		return -1;
	if (asprintf(&path, "%s/nbd-%016jx.lock", proc_run_dir(), (uintmax_t)hash_fnv1a(n->uri)) == -1) {
		path = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	n->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (n->lock_fd < 0)
		return error_errno(e, errno, "cannot open %s", path);
	if (disk_file_lock(n->lock_fd, path, n->is_read_only, wait_ms, e) == -1)
		return error_prefix(e, "the lock on %s", n->uri);
	return 0;
}

/* --- the connection */

static int tell_libnbd(struct error *e)
{
	const char *text = nbd_get_error();
	int err = nbd_get_errno();

	return error_set(e, err ? err : EIO, "%s", text ? text : "libnbd gives no reason");
}

/* 0: go on waiting. */
static int check_time(const struct disk_nbd_reach *r, uint64_t until_ns, const char *what, struct error *e)
{
	if (atomic_load_explicit(&r->is_cancelled, memory_order_relaxed))
		return error_set(e, ECANCELED, "given up");
	if (loop_now_ns() >= until_ns)
		return error_set(e, ETIMEDOUT, "%s", what);
	return 0;
}

static int prepare(struct nbd_handle *nbd)
{
	if (nbd_set_uri_allow_transports(nbd, LIBNBD_ALLOW_TRANSPORT_UNIX) == -1 ||
	    nbd_set_uri_allow_tls(nbd, LIBNBD_TLS_DISABLE) == -1 ||
	    nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1)
		return -1;
#ifdef LIBNBD_HAVE_NBD_SET_PREAD_INITIALIZE
	/* A read that fails is not looked at: no need to clear its memory before. */
	if (nbd_set_pread_initialize(nbd, false) == -1)
		return -1;
#endif
	return 0;
}

static int greet(struct disk_nbd_reach *r, struct error *e)
{
	uint64_t until_ns = loop_now_ns() + GREETING_MS * NS_PER_MS;

	r->nbd = nbd_create();
	if (!r->nbd || prepare(r->nbd) == -1 || nbd_aio_connect_uri(r->nbd, r->uri) == -1)
		return tell_libnbd(e);
	while (!nbd_aio_is_ready(r->nbd)) {
		if (check_time(r, until_ns, "the server does not greet", e) == -1)
			return -1;
		if (nbd_poll(r->nbd, SLICE_MS) == -1)
			return tell_libnbd(e);
	}
	return 0;
}

static void hang_up(struct disk_nbd_reach *r)
{
	nbd_close(take_ptr(&r->nbd));
}

/* A server that is being started again binds its socket in a moment. */
static int greet_patiently(struct disk_nbd_reach *r, uint64_t until_ns, struct error *e)
{
	while (greet(r, e) == -1) {
		struct error late;

		hang_up(r);
		if ((e->err != ENOENT && e->err != ECONNREFUSED) || check_time(r, until_ns, "", &late) == -1)
			return -1;
		error_clear(e); /* it may be there the next time */
		poll(NULL, 0, PAUSE_MS);
	}
	return 0;
}

static int learn_blocks(struct disk_nbd_reach *r, struct error *e)
{
	struct disk_nbd_facts *facts = &r->facts;
	int64_t min = nbd_get_block_size(r->nbd, LIBNBD_SIZE_MINIMUM), max = nbd_get_block_size(r->nbd, LIBNBD_SIZE_MAXIMUM);
	int64_t preferred = nbd_get_block_size(r->nbd, LIBNBD_SIZE_PREFERRED);

	if (min == -1 || max == -1 || preferred == -1)
		return tell_libnbd(e);
	if (min == 0)
		min = facts->size_bytes % MIN_BLOCK_UNSTATED == 0 ? MIN_BLOCK_UNSTATED : 1;
	if (min > MIN_BLOCK_MAX || (min & (min - 1)) != 0)
		return error_set(e, EINVAL, "its smallest block of %jd bytes is not a power of two of at most %u", (intmax_t)min,
				 MIN_BLOCK_MAX);
	if (facts->size_bytes % (uint64_t)min != 0)
		return error_set(e, EINVAL, "its size of %ju bytes is no multiple of its smallest block of %jd bytes",
				 (uintmax_t)facts->size_bytes, (intmax_t)min);
	if (max == 0 || max > MAX_BYTES)
		max = MAX_BYTES;
	if (max < min)
		return error_set(e, EINVAL, "its longest request of %jd bytes is shorter than its smallest block of %jd",
				 (intmax_t)max, (intmax_t)min);
	if (preferred < 4096 || preferred > 4 * (int64_t)MiB || (preferred & (preferred - 1)) != 0)
		preferred = 4096;
	facts->min_block_bytes = (uint32_t)min;
	facts->max_bytes = (uint32_t)(max & ~(min - 1));
	facts->optimal_bytes = (uint32_t)MAX(preferred, min);
	return 0;
}

static int learn(struct disk_nbd_reach *r, struct error *e)
{
	int64_t size = nbd_get_size(r->nbd);

	if (size == -1)
		return tell_libnbd(e);
	r->facts = (struct disk_nbd_facts){ .size_bytes = (uint64_t)size };
	if (!r->is_read_only && nbd_is_read_only(r->nbd) != 0)
		return error_set(e, EROFS, "it is read-only");
	if (learn_blocks(r, e) == -1)
		return -1;
	r->facts.can_zero = nbd_can_zero(r->nbd) == 1;
	r->facts.can_flush = nbd_can_flush(r->nbd) == 1;
	r->facts.can_fua = nbd_can_fua(r->nbd) == 1;
	r->facts.can_extents = nbd_can_meta_context(r->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
	return 0;
}

/* Nothing is sent before what others sent has ended. */
static int wait_for_orphans(struct disk_nbd_reach *r, uint64_t until_ns, struct error *e)
{
	static struct log_limit limit = LOG_LIMIT(1);
	int count;

	while ((count = disk_nbd_orphans(nbd_aio_get_fd(r->nbd))) > 0) {
		if (check_time(r, until_ns, "the server still works on requests of a client that is gone; they may write over "
			       "what comes now", e) == -1)
			return -1;
		poll(NULL, 0, PAUSE_MS);
	}
	if (count == -1 && log_allowed(&limit))
		log_warn("%s: the kernel does not tell whether requests of an earlier process are still under way there", r->uri);
	return 0;
}

static int reach(struct disk_nbd_reach *r, struct error *e)
{
	uint64_t until_ns = loop_now_ns() + r->patience_ms * NS_PER_MS;

	if (greet_patiently(r, until_ns, e) == -1)
		return -1;
	if (learn(r, e) == 0 && wait_for_orphans(r, until_ns, e) == 0 && (!r->server || disk_qcow2_served(r->server, e) == 0))
		return 0;
	hang_up(r);
	return -1;
}

/* One that was taken up while it was dying (a kill takes a moment) is no more: what it held is lost, as if it had been
 * found dead. */
static int run_server(struct disk_nbd_reach *r, struct error *e)
{
	bool may_be_lost = r->is_taken_up && !r->is_read_only;
	int outcome = disk_qcow2_run(r->server, r->was_lost || may_be_lost, &r->is_cancelled, e);

	if (outcome == 1)
		r->was_lost |= may_be_lost;
	return outcome;
}

int disk_nbd_reach(struct disk_nbd_reach *r, struct error *e)
{
	bool is_worth_another;

	assert(!r->nbd && e);
	do {
		if (r->server && run_server(r, e) == -1)
			return -1;
		if (reach(r, e) == 0)
			return 0;
		error_prefix(e, "%s", r->uri);
		is_worth_another = r->server && disk_qcow2_give_up(r->server, e);
		if (is_worth_another) {
			log_info("%s; it is started in another way", e->text);
			error_clear(e);
		}
	} while (is_worth_another);
	return -1;
}

/* --- open, close */

/* As a block device: whole blocks only, and nothing of it in our kernel's page cache. */
static void fill_in(struct disk_file *f, const struct disk_nbd_facts *facts)
{
	f->is_nbd = true;
	f->is_block_device = true;
	f->size_bytes = f->tail_start = facts->size_bytes;
	f->align = f->fallocate_align = facts->min_block_bytes;
	f->memory_align = 1;
	f->block_bytes = MAX(facts->min_block_bytes, 512u);
	f->optimal_bytes = MAX(facts->optimal_bytes, f->block_bytes);
	f->can_punch = facts->can_zero && !f->is_read_only;
}

/* The last step: f->nbd is all but connected. */
static int connect_it(struct disk_file *f, unsigned patience_ms, struct error *e)
{
	struct disk_nbd *n = f->nbd;
	struct disk_nbd_reach r = { .uri = n->uri, .server = n->server, .was_lost = n->was_lost, .is_taken_up = n->is_taken_up,
				    .is_read_only = n->is_read_only, .patience_ms = patience_ms };

	if (disk_nbd_reach(&r, e) == -1)
		return -1;
	n->nbd = r.nbd;
	n->facts = r.facts;
	n->was_lost = r.was_lost;
	if (!n->facts.can_flush && !f->is_read_only)
		log_warn("%s offers no flush: what it acknowledged is taken for durable", n->uri);
	fill_in(f, &n->facts);
	return 0;
}

int disk_nbd_open_server(struct disk_file *f, const struct disk_spec *spec, struct disk_qcow2 *s, bool was_lost, bool is_taken_up,
			 struct error *e)
{
	struct disk_nbd *n = calloc(1, sizeof(*n));

	if (!n) {
		disk_qcow2_free(s);
		return error_set(e, ENOMEM, "out of memory");
	}
	*n = (struct disk_nbd){ .lock_fd = -1, .is_read_only = spec->is_read_only, .server = s, .was_lost = was_lost,
				.is_taken_up = is_taken_up };
	f->nbd = n;
	n->uri = strdup(s->uri);
	return n->uri ? connect_it(f, spec->lock_wait_ms, e) : error_set(e, ENOMEM, "out of memory");
}

int disk_nbd_open(struct disk_file *f, const struct disk_spec *spec, struct error *e)
{
	struct disk_nbd *n = calloc(1, sizeof(*n));

	if (!n)
		return error_set(e, ENOMEM, "out of memory");
	*n = (struct disk_nbd){ .lock_fd = -1, .is_read_only = spec->is_read_only };
	f->nbd = n;
	if (open_file(f, e) == -1 || disk_file_lock(f->fd, f->path, f->is_read_only, spec->lock_wait_ms, e) == -1)
		return -1;
	n->uri = read_uri(f->fd, f->path, &n->keeps_writes, e);
	if (!n->uri || lock_uri(n, spec->lock_wait_ms, e) == -1)
		return -1;
	return connect_it(f, spec->lock_wait_ms, e);
}

void disk_nbd_close(struct disk_nbd *n)
{
	if (!n)
		return;
	if (n->nbd)
		nbd_aio_disconnect(n->nbd, 0);
	nbd_close(n->nbd);
	if (n->lock_fd >= 0)
		close(n->lock_fd);
	disk_qcow2_free(n->server);
	free(n->uri);
	free(n);
}
