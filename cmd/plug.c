/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * plug - see plug.h
 *
 *      /local/domain/D/device/vbd/N            the guest's: it reads where its backend is, and says which ring it has
 *      /local/domain/0/backend/KIND/D/N        ours, and the guest may read it
 *      /libxl/D/device/vbd/N                   what libxl keeps of a device: by this xl lists it, and removes it with its domain
 *
 * The numbers are xen-vbd-interface(7)'s: major and minor, as Linux once had them, or 1 << 28 and more of both.
 */
#include "cmd/plug.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXTENDED (UINT32_C(1) << 28)
#define XVD_MAJOR 202u
#define SD_MAJOR 8u

/* --- names */

static bool take_number(const char *text, uint32_t max, uint32_t *out)
{
	if (!*text || strlen(text) > 10 || text[strspn(text, "0123456789")] || strtoull(text, NULL, 10) > max)
		return false;
	*out = (uint32_t)strtoull(text, NULL, 10);
	return true;
}

/* a: 0, z: 25, aa: 26. */
static const char *take_letters(const char *text, uint32_t *disk)
{
	uint32_t value = 0;
	const char *at = text;

	while (*at >= 'a' && *at <= 'z' && at - text < 4)
		value = value * 26 + (uint32_t)(*at++ - 'a') + 1;
	*disk = value - 1;
	return at == text ? NULL : at;
}

static bool number_of(char kind, uint32_t disk, uint32_t part, uint32_t *device)
{
	static const uint32_t hd_major[] = { 3, 22 };

	if (kind == 'x' && disk < 16 && part < 16)
		*device = XVD_MAJOR << 8 | disk << 4 | part;
	else if (kind == 'x' && disk < 1u << 20 && part < 256)
		*device = EXTENDED | disk << 8 | part;
	else if (kind == 's' && disk < 16 && part < 16)
		*device = SD_MAJOR << 8 | disk << 4 | part;
	else if (kind == 'h' && disk < 4 && part < 64)
		*device = hd_major[disk / 2] << 8 | (disk & 1) << 6 | part;
	else
		return false;
	return true;
}

bool plug_device(const char *name, uint32_t *device)
{
	bool is_xvd = strncmp(name, "xvd", 3) == 0;
	uint32_t disk, part = 0;
	const char *at;

	if (take_number(name, 2 * EXTENDED - 1, device))
		return true;
	if (!is_xvd && strncmp(name, "sd", 2) != 0 && strncmp(name, "hd", 2) != 0)
		return false;
	at = take_letters(name + (is_xvd ? 3 : 2), &disk);
	return at && (!*at || (*at != '0' && take_number(at, 255, &part))) && number_of(name[0], disk, part, device);
}

static void put_letters(uint32_t disk, char *out)
{
	char letters[8];
	unsigned count = 0;

	for (uint32_t rest = disk + 1; rest; rest = (rest - 1) / 26)
		letters[count++] = (char)('a' + (rest - 1) % 26);
	while (count)
		*out++ = letters[--count];
	*out = '\0';
}

void plug_device_name(uint32_t device, char out[static 16])
{
	bool is_extended = device & EXTENDED;
	uint32_t disk = is_extended ? (device & ~EXTENDED) >> 8 : (device & 255) >> 4, part = device & (is_extended ? 255 : 15);
	char letters[8];

	if (!is_extended && device >> 8 != XVD_MAJOR && device >> 8 != SD_MAJOR) {
		snprintf(out, 16, "%u", device);
		return;
	}
	put_letters(disk, letters);
	snprintf(out, 16, "%s%s", device >> 8 == SD_MAJOR ? "sd" : "xvd", letters);
	if (part)
		snprintf(out + strlen(out), 16 - strlen(out), "%u", part);
}

bool plug_domain(const char *text, uint16_t *domain)
{
	uint32_t value;

	if (!take_number(text, PLUG_DOMAIN_MAX, &value))
		return false;
	*domain = (uint16_t)value;
	return true;
}

void plug_init(struct plug *p, uint16_t domain, uint32_t device, const char *kind)
{
	bool is_libxls = strcmp(kind, "qdisk") == 0 || strcmp(kind, "vbd") == 0 || strcmp(kind, "vbd3") == 0;

	*p = (struct plug) { .domain = domain, .device = device, .kind = kind };
	snprintf(p->backend, sizeof(p->backend), "/local/domain/0/backend/%s/%u/%u", kind, domain, device);
	snprintf(p->frontend, sizeof(p->frontend), "/local/domain/%u/device/vbd/%u", domain, device);
	snprintf(p->error, sizeof(p->error), "/local/domain/0/error/backend/%s/%u/%u/error", kind, domain, device);
	snprintf(p->front_error, sizeof(p->front_error), "/local/domain/%u/error/device/vbd/%u/error", domain, device);
	if (is_libxls)
		snprintf(p->libxl, sizeof(p->libxl), "/libxl/%u/device/vbd/%u", domain, device);
}

/* --- keys */

static struct xenstore_step *add(struct xenstore_steps *out, enum xenstore_what what, const char *path)
{
	struct xenstore_step *s = &out->step[out->count++];

	assert(out->count <= XENSTORE_STEPS_MAX);
	memset(s, 0, sizeof(*s));
	s->what = what;
	snprintf(s->path, sizeof(s->path), "%s", path);
	return s;
}

static void put(struct xenstore_steps *out, const char *dir, const char *key, const char *value)
{
	struct xenstore_step *s = add(out, XENSTORE_PUT, dir);
	size_t bytes = strlen(s->path);

	snprintf(s->path + bytes, sizeof(s->path) - bytes, "/%s", key);
	snprintf(s->value, sizeof(s->value), "%s", value);
}

static void put_number(struct xenstore_steps *out, const char *dir, const char *key, uint32_t value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	put(out, dir, key, text);
}

static void make(struct xenstore_steps *out, const char *path, uint16_t owner, uint16_t reader)
{
	struct xenstore_step *s = add(out, XENSTORE_MAKE, path);

	s->owner = owner;
	s->reader = reader;
}

static void put_backend(const struct plug *p, const char *dir, const char *params, bool is_read_only, struct xenstore_steps *out)
{
	char name[16];

	plug_device_name(p->device, name);
	put(out, dir, "frontend", p->frontend);
	put_number(out, dir, "frontend-id", p->domain);
	put(out, dir, "params", params);
	put(out, dir, "online", "1");
	put(out, dir, "removable", "0");
	put(out, dir, "bootable", "1");
	put(out, dir, "dev", name);
	put(out, dir, "type", p->kind);
	put(out, dir, "mode", is_read_only ? "r" : "w");
	put(out, dir, "device-type", "disk");
	put(out, dir, "discard-enable", is_read_only ? "0" : "1");
	put_number(out, dir, "state", PLUG_NEW);
}

static void put_frontend(const struct plug *p, const char *dir, struct xenstore_steps *out)
{
	put(out, dir, "backend", p->backend);
	put(out, dir, "backend-id", "0");
	put_number(out, dir, "virtual-device", p->device);
	put(out, dir, "device-type", "disk");
	put_number(out, dir, "state", PLUG_NEW);
}

/* The frontend's last: the guest looks at the rest when it is there. */
void plug_attach(const struct plug *p, const char *params, bool is_read_only, bool has_libxl, struct xenstore_steps *out)
{
	out->count = 0;
	if (has_libxl && *p->libxl) {
		make(out, p->libxl, 0, 0);
		put(out, p->libxl, "frontend", p->frontend);
		put(out, p->libxl, "backend", p->backend);
		put_backend(p, p->libxl, params, is_read_only, out);
	}
	make(out, p->backend, 0, p->domain);
	put_backend(p, p->backend, params, is_read_only, out);
	make(out, p->frontend, p->domain, 0);
	put_frontend(p, p->frontend, out);
}

void plug_close(const struct plug *p, struct xenstore_steps *out)
{
	out->count = 0;
	put(out, p->backend, "online", "0");
	put_number(out, p->backend, "state", PLUG_CLOSING);
}

void plug_force(const struct plug *p, struct xenstore_steps *out)
{
	out->count = 0;
	add(out, XENSTORE_REMOVE, p->frontend);
}

void plug_remove(const struct plug *p, struct xenstore_steps *out)
{
	char parent[XENSTORE_PATH_MAX];

	out->count = 0;
	if (*p->libxl)
		add(out, XENSTORE_REMOVE, p->libxl);
	add(out, XENSTORE_REMOVE, p->frontend);
	add(out, XENSTORE_REMOVE, p->backend);
	add(out, XENSTORE_REMOVE, p->error);
	snprintf(parent, sizeof(parent), "%s", p->backend);
	*strrchr(parent, '/') = '\0';
	add(out, XENSTORE_PRUNE, parent);
}
