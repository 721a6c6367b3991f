/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-qcow2 - an image *.qcow2 as a disk: qemu reads and writes it, disk-nbd.c talks to qemu
 *
 *      open       a server on record that lives and has this image?  -> take its lock's description, connect to it
 *                 else end it;  image: open, lock, look again  -> its chain: open, check  -> start one, connect
 *      run        (a link that was lost) nobody lives?  -> the chain again, start one
 *      settle     (the disk is closed)  -> end it, cleanly
 *
 * The server is a process of its own, and is meant to outlive us: what it acknowledged lies in its memory until a flush.  Killed,
 * we leave it, and the next process of this disk finds it on record and goes on with it.  It has our lock on the image, as it
 * inherited the description: so nobody else opens the image while it lives.
 *
 * On NFS the lock has to be on what qemu opens by itself: a write carries the state of its own description's lock, and by that
 * the server refuses what comes late from a host that has lost the lock; what has none is let through. So when qemu has opened
 * the image, and nobody is let in yet, the lock goes over to that description. Who gets it meanwhile has it: qemu is ended.
 *
 * Where it died (its record is there, its process is not) nobody knows what it had not stored: was_lost, and disk-nbd.c's flushes
 * fail until the disk is opened anew.  Not if it had let nobody in yet, and not if nobody could write.
 *
 * Nothing that an image names is opened but what src/qcow2 allows, and by qemu nothing but what we opened.
 *
 * Can fail: what the image is (a sentence), the lock, no qemu, a qemu that ends at once: then its last words are the reason.
 */
#include "disk/disk-qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "disk/disk-nbd.h"

#define REPLACED_MAX 100u
#define REFUSAL_MS 1000u /* from the moment that its socket is closed */

bool disk_qcow2_is_named(const char *path)
{
	return qcow2_is_named(path);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* --- the object */

/* nbd+unix:///disk?socket=PATH, the path's odd characters as %XX. */
static char *make_uri(const char *socket)
{
	static const char hex[] = "0123456789ABCDEF", head[] = "nbd+unix:///disk?socket=";
	char *uri = malloc(sizeof(head) + 3 * strlen(socket)), *to = uri;

	if (!uri)
		return NULL;
	to += sprintf(to, "%s", head);
	for (const unsigned char *c = (const unsigned char *)socket; *c; c++) {
		if ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("/._-", *c)) {
			*to++ = (char)*c;
		} else {
			*to++ = '%';
			*to++ = hex[*c >> 4];
			*to++ = hex[*c & 15];
		}
	}
	*to = '\0';
	return uri;
}

static struct disk_qcow2 *make(const struct disk_spec *spec, struct error *e)
{
	struct disk_qcow2 *s = calloc(1, sizeof(*s));
	char socket[108];

	if (!spec->run_dir) {
		free(s);
		error_set(e, EINVAL, "%s: there is no directory for its server", spec->path);
		return NULL;
	}
	if (!s || disk_server_socket(spec->run_dir, socket, e) == -1) {
		free(s);
		return NULL;
	}
	s->dir_fd = s->fd = -1;
	s->is_read_only = spec->is_read_only;
	s->path = strdup(spec->path);
	s->run_dir = strdup(spec->run_dir);
	s->uri = make_uri(socket);
	if (s->path && s->run_dir && s->uri)
		return s;
	disk_qcow2_free(s);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

struct disk_qcow2 *disk_qcow2_copy(const struct disk_qcow2 *s)
{
	struct disk_qcow2 *copy = calloc(1, sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *s;
	copy->path = strdup(s->path);
	copy->run_dir = strdup(s->run_dir);
	copy->uri = strdup(s->uri);
	copy->dir_fd = fcntl(s->dir_fd, F_DUPFD_CLOEXEC, 0);
	copy->fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	if (copy->path && copy->run_dir && copy->uri && copy->dir_fd >= 0 && copy->fd >= 0)
		return copy;
	disk_qcow2_free(copy);
	return NULL;
}

void disk_qcow2_free(struct disk_qcow2 *s)
{
	if (!s)
		return;
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	free(s->run_dir);
	free(s->uri);
	free(s);
}

/* --- the image */

static int open_dir(struct disk_qcow2 *s, struct error *e)
{
	size_t bytes = (size_t)(base_name(s->path) - s->path);
	CLEANUP_FREE char *dir = bytes ? strndup(s->path, bytes) : strdup(".");

	if (!dir)
		return error_set(e, ENOMEM, "out of memory");
	s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return s->dir_fd < 0 ? error_errno(e, errno, "cannot open %s", dir) : 0;
}

static bool is_at_its_name(const struct disk_qcow2 *s, int64_t dev, int64_t ino)
{
	struct stat st;

	return fstatat(s->dir_fd, base_name(s->path), &st, AT_SYMLINK_NOFOLLOW) == 0 && (int64_t)st.st_dev == dev &&
	       (int64_t)st.st_ino == ino;
}

static int open_image(struct disk_qcow2 *s, struct error *e)
{
	s->fd = qcow2_open(s->dir_fd, base_name(s->path), s->is_read_only ? O_RDONLY : O_RDWR, e);
	return s->fd;
}

/* As disk-open.c does: whoever waited for the lock may have got that of a file that was replaced meanwhile. */
static int lock_image(struct disk_qcow2 *s, unsigned wait_ms, struct error *e)
{
	struct stat st;

	for (unsigned tries = 0; tries < REPLACED_MAX; tries++) {
		if (open_image(s, e) < 0 || disk_file_lock(s->fd, s->path, s->is_read_only, wait_ms, e) == -1)
			return -1;
		if (fstat(s->fd, &st) == 0 && is_at_its_name(s, (int64_t)st.st_dev, (int64_t)st.st_ino))
			return 0;
		close(take_fd(&s->fd));
	}
	return error_set(e, EBUSY, "%s is replaced again and again", s->path);
}

static void ask_direct(struct disk_qcow2 *s, bool is_unwanted)
{
	const char *direct = getenv("SXM_DIRECT");
	CLEANUP_CLOSE int fd = -1;
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", s->fd);
	if (!is_unwanted && !(direct && strcmp(direct, "0") == 0))
		fd = open(self, O_RDONLY | O_CLOEXEC | O_DIRECT);
	s->is_direct = fd >= 0;
}

/* --- a server of an earlier process */

static bool is_ours(const struct disk_qcow2 *s, const struct disk_server *found)
{
	return found->is_read_only == s->is_read_only && is_at_its_name(s, found->dev, found->ino) && disk_server_is_alive(found);
}

static int take_up(struct disk_qcow2 *s, const struct disk_server *found, struct error *e)
{
	log_info("%s: its server, process %ld, is there from before", s->path, (long)found->pid);
	s->fd = disk_server_take_fd(found);
	if (s->fd >= 0)
		return 0;
	s->must_lock = true;
	return open_image(s, e) < 0 ? -1 : 0;
}

/* Whether there is one, and what one that died may have lost. Ends one that is not for this image, or not opened so. */
static int look_for_server(struct disk_qcow2 *s, bool *was_lost, struct error *e)
{
	struct disk_server found;
	int outcome = 0;

	if (!disk_server_load(s->run_dir, &found))
		return 0;
	if (is_ours(s, &found)) {
		*was_lost = found.was_lost;
		outcome = take_up(s, &found, e);
	} else if (disk_server_is_alive(&found)) {
		outcome = disk_server_end(s->run_dir, &found, e);
	} else {
		*was_lost = found.was_lost || (found.is_served && !found.is_read_only);
	}
	disk_server_clear(&found);
	return outcome;
}

static int find_or_lock(struct disk_qcow2 *s, const struct disk_spec *spec, bool *was_lost, bool *is_taken_up, struct error *e)
{
	CLEANUP_CLOSE int lock = disk_server_lock(s->run_dir, e);
	struct qcow2_chain c = { 0 };

	if (lock < 0 || open_dir(s, e) == -1 || look_for_server(s, was_lost, e) == -1)
		return -1;
	*is_taken_up = s->fd >= 0;
	if (s->fd < 0 && lock_image(s, spec->lock_wait_ms, e) == -1)
		return -1;
	if (qcow2_chain_open(&c, s->dir_fd, s->fd, base_name(s->path), e) == -1) /* refused before anything is started */
		return -1;
	qcow2_chain_close(&c);
	ask_direct(s, spec->no_direct);
	return 0;
}

int disk_qcow2_open(struct disk_file *f, const struct disk_spec *spec, struct error *e)
{
	struct disk_qcow2 *s = make(spec, e);
	bool was_lost = false, is_taken_up = false;

	if (!s)
		return -1;
	if (find_or_lock(s, spec, &was_lost, &is_taken_up, e) == -1) {
		disk_qcow2_free(s);
		return error_prefix(e, "%s", spec->path);
	}
	f->fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	f->is_direct = s->is_direct;
	if (f->fd < 0) {
		disk_qcow2_free(s);
		return error_errno(e, errno, "%s", spec->path);
	}
	return disk_nbd_open_server(f, spec, s, was_lost, is_taken_up, e);
}

/* --- a server that is to run */

/* A server's own description may have the lock; when it is gone nothing has. */
static bool has_lock_elsewhere(const struct disk_qcow2 *s)
{
	return !s->is_read_only && disk_command_is_on_nfs(s->fd);
}

int disk_qcow2_move_lock(struct disk_qcow2 *s, const struct disk_server *server, struct error *e)
{
	CLEANUP_CLOSE int own = disk_server_own_fd(server);

	if (own < 0) {
		log_warn("%s: the kernel does not let its server have the lock: should this host be cut off, what is under way "
			 "may reach the image when another host has it", s->path);
		return 0;
	}
	if (flock(own, LOCK_EX | LOCK_NB) == -1) { /* as a rule: s->fd has it; or else it had it before */
		if (flock(s->fd, LOCK_UN) == -1)
			return error_errno(e, errno, "let go of the lock on %s", s->path);
		if (disk_file_lock(own, s->path, false, 0, e) == -1)
			return -1;
	}
	close(s->fd);
	s->fd = take_fd(&own);
	s->must_lock = false;
	return 0;
}

static int start(struct disk_qcow2 *s, bool was_lost, struct error *e)
{
	struct disk_server fresh = { .is_read_only = s->is_read_only, .was_lost = was_lost };
	struct qcow2_chain c = { 0 };
	struct stat st;
	int outcome;

	if ((s->must_lock || has_lock_elsewhere(s)) && disk_file_lock(s->fd, s->path, s->is_read_only, 0, e) == -1)
		return -1;
	s->must_lock = false;
	if (fstat(s->fd, &st) == -1)
		return error_errno(e, errno, "look at %s", s->path);
	fresh.dev = (int64_t)st.st_dev;
	fresh.ino = (int64_t)st.st_ino;
	if (qcow2_chain_open(&c, s->dir_fd, s->fd, base_name(s->path), e) == -1)
		return -1;
	outcome = disk_server_start(s, &c, &fresh, e);
	qcow2_chain_close(&c);
	disk_server_clear(&fresh);
	return outcome;
}

int disk_qcow2_run(struct disk_qcow2 *s, bool was_lost, atomic_bool *is_cancelled, struct error *e)
{
	CLEANUP_CLOSE int lock = disk_server_lock(s->run_dir, e);
	struct disk_server found;
	bool is_there;

	if (lock < 0)
		return -1;
	if (atomic_load(is_cancelled))
		return error_set(e, ECANCELED, "given up");
	is_there = disk_server_load(s->run_dir, &found) && disk_server_is_alive(&found);
	disk_server_clear(&found);
	if (is_there)
		return 0;
	return start(s, was_lost, e) == 0 ? 1 : -1;
}

int disk_qcow2_served(struct disk_qcow2 *s, struct error *e)
{
	CLEANUP_CLOSE int lock = disk_server_lock(s->run_dir, e);
	struct disk_server found;
	int outcome = 0;

	if (lock < 0)
		return -1;
	if (!disk_server_load(s->run_dir, &found))
		return error_set(e, EIO, "its server is not on record any more");
	if (has_lock_elsewhere(s))
		outcome = disk_qcow2_move_lock(s, &found, e);
	if (outcome == 0 && !found.is_served) {
		found.is_served = true;
		outcome = disk_server_save(s->run_dir, &found, e);
	}
	disk_server_clear(&found);
	return outcome;
}

bool disk_qcow2_give_up(struct disk_qcow2 *s, struct error *e)
{
	CLEANUP_FREE char *words = NULL;
	struct error ignored = { 0 };
	bool may_do_without = false;
	CLEANUP_CLOSE int lock = disk_server_lock(s->run_dir, &ignored);
	struct disk_server found;

	if (lock < 0 || !disk_server_load(s->run_dir, &found))
		return false;
	if (!found.is_served) {
		words = disk_server_words(s->run_dir);
		/* Its socket is closed before it has ended. */
		if (words && disk_server_ends_within(&found, REFUSAL_MS)) {
			error_set(e, EIO, "qemu refuses it: %s", words);
			may_do_without = disk_command_do_without(words);
		}
		disk_server_end(s->run_dir, &found, &ignored);
	}
	disk_server_clear(&found);
	return may_do_without;
}

/* --- the disk is closed */

int disk_settle(const char *run_dir, struct error *e)
{
	CLEANUP_FREE char *record = NULL;
	CLEANUP_CLOSE int lock = -1;
	struct disk_server found;
	int outcome = 0;

	if (asprintf(&record, "%s/qcow2.json", run_dir) == -1) {
		record = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (access(record, F_OK) == -1)
		return 0; /* any other kind of disk */
	lock = disk_server_lock(run_dir, e);
	if (lock < 0)
		return -1;
	if (disk_server_load(run_dir, &found))
		outcome = disk_server_end(run_dir, &found, e);
	disk_server_clear(&found);
	return outcome;
}

void disk_abandon(const char *run_dir)
{
	struct disk_server found;

	if (disk_server_load(run_dir, &found))
		disk_server_kill(&found);
	disk_server_clear(&found);
}
