/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * store-lib - see store.h; over libxenstore
 *
 * One watch, on the directory of all backends of the kind: xenstored reports every change below it by its path.  Nothing of the
 * guests' is watched, so what a guest writes to its own keys wakes nobody here.  The first watch starts libxenstore's reader, a
 * thread: xs_check_watch() takes only what that has read, and another thread may ask meanwhile.
 *
 * What is read is read in a transaction that is given up, so that it is of one moment and nobody can make it fail.  What is
 * written is decided by what is read in the same transaction, and is in the toolstack's directory, not the guest's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xenstore.h>

#include "base/cleanup.h"
#include "broker/store.h"

#define RELEASED "@releaseDomain"
#define WRITE_TRIES 5

struct store {
	struct xs_handle *xs; /* owned */
};

static void close_store(struct store *s)
{
	if (s->xs)
		xs_close(s->xs);
	free(s);
}

/* "domid", relative: this domain's. Where nobody has written it, it is dom0's. */
static uint16_t read_own_domain(struct store *s)
{
	CLEANUP_FREE char *text = xs_read(s->xs, XBT_NULL, "domid", NULL);
	unsigned long domain = text ? strtoul(text, NULL, 10) : 0;

	return domain <= UINT16_MAX ? (uint16_t)domain : 0;
}

static struct store *open_store(struct facts_root *r, struct error *e)
{
	struct store *s = calloc(1, sizeof(*s));
	char root[FACTS_PATH_MAX];

	if (!s) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	s->xs = xs_open(XS_UNWATCH_FILTER);
	if (s->xs) {
		r->domain = read_own_domain(s);
		facts_root_path(r, root);
		if (xs_watch(s->xs, root, "") && xs_watch(s->xs, RELEASED, ""))
			return s;
	}
	error_errno(e, errno, "xenstore");
	close_store(s);
	return NULL;
}

static int store_fd(struct store *s)
{
	return xs_fileno(s->xs);
}

static bool next_event(struct store *s, char path[static STORE_EVENT_MAX])
{
	CLEANUP_FREE char **event = xs_check_watch(s->xs);
	size_t bytes;

	if (!event)
		return false;
	bytes = strlen(event[XS_WATCH_PATH]);
	if (bytes >= STORE_EVENT_MAX)
		bytes = STORE_EVENT_MAX - 1; /* it is about nothing that has a name */
	memcpy(path, event[XS_WATCH_PATH], bytes);
	path[bytes] = '\0';
	return true;
}

static bool is_number(const char *text, uint32_t *out)
{
	char *end;
	unsigned long long value;

	if (*text < '0' || *text > '9')
		return false;
	value = strtoull(text, &end, 10);
	*out = (uint32_t)value;
	return !*end && value <= UINT32_MAX;
}

static int read_numbers(struct store *s, const char *path, uint32_t *out, size_t max, size_t *count, struct error *e)
{
	unsigned names = 0;
	CLEANUP_FREE char **name = xs_directory(s->xs, XBT_NULL, path, &names);

	*count = 0;
	if (!name)
		return errno == ENOENT ? 0 : error_errno(e, errno, "list %s", path);
	for (unsigned i = 0; i < names && *count < max; i++)
		if (is_number(name[i], &out[*count]))
			++*count;
	return 0;
}

/* What cannot be read for any reason of the key's own is not there; -1: the store itself. */
static int read_key(struct store *s, xs_transaction_t t, const char *path, struct facts_value *out)
{
	unsigned bytes = 0;
	CLEANUP_FREE char *value = xs_read(s->xs, t, path, &bytes);

	memset(out, 0, sizeof(*out));
	if (!value)
		return errno == ENOENT || errno == EACCES || errno == EINVAL || errno == E2BIG ? 0 : -1;
	out->is_there = true;
	out->is_long = bytes >= sizeof(out->value) || memchr(value, '\0', bytes);
	if (!out->is_long)
		memcpy(out->value, value, bytes);
	return 0;
}

/* 0, or an errno. Where there is no device the rest is not asked for. */
static int read_keys(struct store *s, xs_transaction_t t, const struct facts_root *r, struct broker_key key,
		     struct facts_value *value)
{
	char path[FACTS_PATH_MAX];

	memset(value, 0, FACTS_KEYS * sizeof(*value));
	for (unsigned i = 0; i < FACTS_KEYS && (!i || value[FACTS_FRONTEND].is_there); i++) {
		facts_key_path(r, key, (enum facts_key)i, path);
		if (read_key(s, t, path, &value[i]) == -1)
			return errno;
	}
	return 0;
}

static int is_alive(struct store *s, uint16_t domain)
{
	return xs_is_domain_introduced(s->xs, domain);
}

static int read_device(struct store *s, const struct facts_root *r, struct broker_key key, struct facts_value *value, bool *alive,
		       struct error *e)
{
	xs_transaction_t t = xs_transaction_start(s->xs);
	int err = t == XBT_NULL ? errno : read_keys(s, t, r, key, value);

	if (t != XBT_NULL)
		xs_transaction_end(s->xs, t, true);
	if (err)
		return error_errno(e, err, "read %s/%u/%u", r->kind, key.domain, key.device);
	*alive = is_alive(s, key.domain);
	return 0;
}

static int write_settled(struct store *s, xs_transaction_t t, const struct facts_root *r, struct broker_key key)
{
	char path[FACTS_PATH_MAX];

	facts_key_path(r, key, FACTS_STATE, path);
	if (!xs_write(s->xs, t, path, "6", 1))
		return errno;
	facts_key_path(r, key, FACTS_HOTPLUG, path);
	return xs_rm(s->xs, t, path) || errno == ENOENT ? 0 : errno;
}

static int settle_once(struct store *s, const struct facts_root *r, struct broker_key key)
{
	bool alive = is_alive(s, key.domain);
	xs_transaction_t t = xs_transaction_start(s->xs);
	struct facts_value value[FACTS_KEYS];
	struct broker_facts f;
	int err;

	if (t == XBT_NULL)
		return errno;
	err = read_keys(s, t, r, key, value);
	if (!err) {
		facts_read(&f, r, key, value);
		f.is_alive = alive;
		err = plan_must_settle(&f) ? write_settled(s, t, r, key) : EAGAIN;
	}
	if (!xs_transaction_end(s->xs, t, err != 0) && !err)
		err = errno == EAGAIN ? EINTR : errno;
	return err;
}

static int settle(struct store *s, const struct facts_root *r, struct broker_key key)
{
	int err = EINTR;

	for (unsigned tries = 0; err == EINTR && tries < WRITE_TRIES; tries++)
		err = settle_once(s, r, key);
	return err == EINTR ? EAGAIN : err;
}

static bool get_key(struct store *s, const char *path, char *out, size_t room)
{
	unsigned bytes = 0;
	CLEANUP_FREE char *value = xs_read(s->xs, XBT_NULL, path, &bytes);

	if (!value || bytes >= room)
		return false;
	memcpy(out, value, bytes);
	out[bytes] = '\0';
	return true;
}

static int put_key(struct store *s, const char *path, const char *value, struct error *e)
{
	return xs_write(s->xs, XBT_NULL, path, value, (unsigned)strlen(value)) ? 0 : error_errno(e, errno, "write %s", path);
}

static const struct store_ops ops = {
	.open = open_store, .close = close_store, .fd = store_fd, .event = next_event, .numbers = read_numbers,
	.read = read_device, .is_alive = is_alive, .settle = settle, .get = get_key, .put = put_key,
};

const struct store_ops *store_ops(void)
{
	return &ops;
}
