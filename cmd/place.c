/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * place - see place.h
 *
 *      an NBD scheme?   --> PLACE_NBD
 *      a path that is there? --> in an SR's directory: its volume, or refused; else a file or device, its format from the name
 *      else SR/KEY: it is the last slash that stands before a key
 *
 * Links are followed to the file itself but for devices, whose lasting names are links.
 */
#include "cmd/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/uri.h"
#include "cmd/find.h"
#include "plugins/image.h"
#include "plugins/meta.h"
#include "plugins/vdi-id.h"

#define NAMED "named" /* in SXM_RUN_DIR */

static bool has_suffix(const char *text, const char *suffix)
{
	size_t a = strlen(text), b = strlen(suffix);

	return a > b && strcmp(text + a - b, suffix) == 0;
}

static bool is_nbd_uri(const char *name)
{
	static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://",
					       "nbds+vsock://" };

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		if (strncasecmp(name, schemes[i], strlen(schemes[i])) == 0)
			return true;
	return false;
}

/* --- a volume */

static int fill_volume(struct place *p, const char *dir, const char *key, struct error *e)
{
	struct image i;
	struct meta_volume m;
	bool has_data;

	if (meta_volume_read(dir, key, &m, e) == -1)
		return e->err == ENOENT ? error_set(e, ENOENT, "there is no volume %s in %s", key, dir) : -1;
	i = image_of(dir, key, m.format);
	p->kind = PLACE_VOLUME;
	p->format = i.ops->format;
	p->dir = strdup(dir);
	p->key = strdup(key);
	p->real = image_path(&i);
	has_data = !m.is_data_destroyed;
	meta_volume_clear(&m);
	if (!p->dir || !p->key || !p->real)
		return error_set(e, ENOMEM, "out of memory");
	if (!has_data)
		return error_set(e, ENODATA, "the data of volume %s was destroyed (Volume.data_destroy)", key);
	p->image = uri_canonical(p->real, e);
	return p->image ? 0 : -1;
}

/* SR/KEY */
static int find_volume(struct place *p, const char *name, struct error *e)
{
	const char *slash = strrchr(name, '/');
	CLEANUP_FREE char *sr = slash ? strndup(name, (size_t)(slash - name)) : NULL;
	CLEANUP_FREE char *dir = NULL;

	if (!sr || !*sr || !meta_is_key(slash + 1))
		return error_set(e, ENOENT, "%s is no file, no volume (SR/KEY) and no NBD URI", name);
	dir = find_sr_dir(sr, e);
	if (!dir || fill_volume(p, dir, slash + 1, e) == 0)
		return dir ? 0 : -1;
	if (e->err != ENOENT)
		return -1;
	return error_set(e, ENOENT, "%s is no file, and there is no volume %s in %s", name, slash + 1, dir);
}

/* 1: path is in no SR's directory. */
static int find_in_sr(struct place *p, const char *path, struct error *e)
{
	CLEANUP_FREE char *dir = strdup(path);
	CLEANUP_FREE char *record = NULL;
	char *name = dir ? strrchr(dir, '/') : NULL, key[META_KEY_MAX + 1];

	if (!name)
		return error_set(e, ENOMEM, "out of memory");
	*name++ = '\0';
	record = meta_sr_path(dir);
	if (!record)
		return error_set(e, ENOMEM, "out of memory");
	if (access(record, F_OK) == -1)
		return 1;
	if ((meta_split_name(name, ".raw", key) || meta_split_name(name, ".qcow2", key)) && fill_volume(p, dir, key, e) == 0 &&
	    has_suffix(p->real, name))
		return 0;
	return error_set(e, EINVAL, "%s is a file of the SR in %s, and no volume's image: leave it alone", path, dir);
}

/* --- a file */

char *place_absolute(const char *path, struct error *e)
{
	CLEANUP_FREE char *here = path[0] == '/' ? NULL : realpath(".", NULL);
	CLEANUP_FREE char *whole = NULL;

	if (path[0] == '/')
		return uri_canonical(path, e);
	if (!here || asprintf(&whole, "%s/%s", here, path) < 0) {
		whole = NULL;
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	return uri_canonical(whole, e);
}

static int begins_like_qcow2(const char *path, bool *does, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char head[4] = "";
	ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof(head), 0);

	if (n < 0)
		return error_errno(e, errno, "read %s", path);
	*does = n == sizeof(head) && memcmp(head, "QFI\xfb", sizeof(head)) == 0;
	return 0;
}

static const char *format_of_name(const char *path)
{
	return has_suffix(path, ".qcow2") ? "qcow2" : has_suffix(path, ".nbd") ? "nbd" : "raw";
}

static int choose_format(struct place *p, const char *format, struct error *e)
{
	bool is_qcow2 = false;

	if (format && strcmp(format, "auto") != 0) {
		p->format = strcmp(format, "qcow2") == 0 ? "qcow2" : "raw";
		return 0;
	}
	p->format = p->is_device ? "raw" : format_of_name(p->real);
	if (strcmp(p->format, "raw") != 0)
		return 0;
	if (begins_like_qcow2(p->real, &is_qcow2, e) == -1)
		return -1;
	return !is_qcow2 ? 0 : error_set(e, EINVAL, "%s begins like a qcow2 image, which a guest can write into a raw one: say "
					 "--format raw, or call it *.qcow2", p->real);
}

static int fill_file(struct place *p, const char *path, const struct stat *st, const char *format, struct error *e)
{
	const char *run = proc_run_dir();
	char id[VDI_ID_MAX];

	p->kind = PLACE_FILE;
	p->is_device = S_ISBLK(st->st_mode);
	if (!p->is_device && !S_ISREG(st->st_mode))
		return error_set(e, EINVAL, "%s is neither a file nor a block device", path);
	p->real = p->is_device ? place_absolute(path, e) : realpath(path, NULL);
	if (!p->real)
		return p->is_device ? -1 : error_errno(e, errno, "look at %s", path);
	if (choose_format(p, format, e) == -1)
		return -1;
	if (strcmp(p->format, "qcow2") == 0 && strcmp(format_of_name(p->real), "qcow2") != 0)
		return error_set(e, EINVAL, "%s is to be taken for a qcow2 image, and such are known by their names: call it "
				 "*.qcow2", p->real);
	if (strcmp(format_of_name(p->real), p->format) == 0)
		p->image = strdup(p->real);
	else if (asprintf(&p->image, "%s/" NAMED "/%s.%s", run, vdi_id_of_path(p->real, id), p->format) < 0)
		p->image = NULL;
	return p->image ? 0 : error_set(e, ENOMEM, "out of memory");
}

static int find_path(struct place *p, const char *name, const char *format, struct error *e)
{
	CLEANUP_FREE char *path = strncasecmp(name, "sxm:", 4) == 0 ? uri_path(name, "sxm", e) :
				  strncasecmp(name, "file:", 5) == 0 ? uri_path(name, "file", e) : strdup(name);
	CLEANUP_FREE char *absolute = path ? realpath(path, NULL) : NULL;
	struct stat st;
	int r;

	if (!path)
		return -1;
	if (!absolute || stat(path, &st) == -1)
		return errno == ENOENT || errno == ENOTDIR ? find_volume(p, path, e) : error_errno(e, errno, "look at %s", path);
	r = find_in_sr(p, absolute, e);
	return r == 1 ? fill_file(p, path, &st, format, e) : r;
}

static int fill_export(struct place *p, const char *name, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	char id[VDI_ID_MAX];

	p->kind = PLACE_NBD;
	p->format = "nbd";
	p->nbd = strdup(name);
	if (asprintf(&path, "/%s", name) < 0)
		path = NULL;
	if (!path || asprintf(&p->image, "%s/" NAMED "/%s.nbd", proc_run_dir(), vdi_id_of_path(path, id)) < 0)
		p->image = NULL;
	return p->nbd && p->image ? 0 : error_set(e, ENOMEM, "out of memory");
}

int place_find(struct place *p, const char *name, const char *format, struct error *e)
{
	*p = (struct place) { .name = name };
	if ((is_nbd_uri(name) ? fill_export(p, name, e) : find_path(p, name, format, e)) == 0) {
		p->uri = uri_of_path("sxm", p->image);
		if (p->uri)
			return 0;
		error_set(e, ENOMEM, "out of memory");
	}
	place_clear(p);
	return -1;
}

void place_clear(struct place *p)
{
	free(p->dir);
	free(p->key);
	free(p->real);
	free(p->image);
	free(p->nbd);
	free(p->uri);
	*p = (struct place) { 0 };
}

/* --- the link */

static bool has_link(const struct place *p)
{
	return p->kind == PLACE_NBD || (p->kind == PLACE_FILE && strcmp(p->image, p->real) != 0);
}

static int name_export(const struct place *p, struct error *e)
{
	if (strncmp(p->nbd, "nbd+unix://", strlen("nbd+unix://")) != 0)
		return error_set(e, ENOTSUP, "%s cannot be read from: only what is on a socket of this host can, nbd+unix://",
				 p->nbd);
	return proc_swap_file(p->image, p->nbd, strlen(p->nbd), 0600, e);
}

int place_name(const struct place *p, struct error *e)
{
	CLEANUP_FREE char *dir = NULL;

	if (!has_link(p))
		return 0;
	if (asprintf(&dir, "%s/" NAMED, proc_run_dir()) < 0) {
		dir = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (proc_make_dir(dir, e) == -1)
		return -1;
	if (p->kind == PLACE_NBD)
		return name_export(p, e);
	if (symlink(p->real, p->image) == 0 || errno == EEXIST)
		return 0;
	return error_errno(e, errno, "make %s", p->image);
}

void place_unname(const struct place *p)
{
	char *slash;

	if (!has_link(p))
		return;
	unlink(p->image);
	slash = strrchr(p->image, '/');
	*slash = '\0';
	rmdir(p->image);
	*slash = '/';
}
