/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journal - see journal.h
 *
 *      {"id":"5e6f.1700000000000","remote":"nbd://...","domain":"3","sync":false,"far_boot":"17...","far_process":"9...",
 *       "far_since":"1","far_volume":"4...","foreign":false}
 *
 * Can fail: the file says nothing sensible.  Then the mirror is not gone on with: that costs a copy, and no data.
 */
#include "vdi/journal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/proc.h"

#define FILE_MAX 16384u
#define NUMBER_BYTES 21

struct text {
	/* borrowed when encoding, owned after decoding */
	char *id, *remote, *domain, *far_boot, *far_process, *far_since, *far_volume;
	bool is_sync, is_remembered, is_foreign;
};

static const struct jsonspec_field fields[] = {
	{ .name = "id", .type = JS_STRING, .offset = offsetof(struct text, id) },
	{ .name = "remote", .type = JS_STRING, .offset = offsetof(struct text, remote) },
	{ .name = "domain", .type = JS_STRING, .offset = offsetof(struct text, domain) },
	{ .name = "sync", .type = JS_BOOL, .offset = offsetof(struct text, is_sync) },
	{ .name = "remembered", .type = JS_BOOL, .offset = offsetof(struct text, is_remembered), .is_optional = true },
	{ .name = "far_boot", .type = JS_STRING, .offset = offsetof(struct text, far_boot) },
	{ .name = "far_process", .type = JS_STRING, .offset = offsetof(struct text, far_process) },
	{ .name = "far_since", .type = JS_STRING, .offset = offsetof(struct text, far_since) },
	{ .name = "far_volume", .type = JS_STRING, .offset = offsetof(struct text, far_volume), .is_optional = true },
	{ .name = "foreign", .type = JS_BOOL, .offset = offsetof(struct text, is_foreign), .is_optional = true },
	{ .name = NULL },
};
static const struct jsonspec spec = { "mirror", sizeof(struct text), fields };

char *journal_encode(const struct journal *j)
{
	char boot[NUMBER_BYTES], process[NUMBER_BYTES], since[NUMBER_BYTES], volume[NUMBER_BYTES];
	const struct text t = {
		.id = j->id, .remote = j->remote, .domain = j->domain, .is_sync = j->is_sync,
		.is_remembered = j->is_remembered, .is_foreign = j->peer.is_foreign, .far_boot = boot, .far_process = process,
		.far_since = since, .far_volume = volume,
	};

	snprintf(boot, sizeof(boot), "%" PRIu64, j->peer.far_boot);
	snprintf(process, sizeof(process), "%" PRIu64, j->peer.far_process);
	snprintf(since, sizeof(since), "%" PRIu64, j->peer.far_since);
	snprintf(volume, sizeof(volume), "%" PRIu64, j->peer.far_volume);
	return jsonspec_encode(&spec, &t);
}

int journal_load(const char *file, struct journal *j, struct error *e)
{
	CLEANUP_FREE char *json = NULL;
	size_t bytes = 0;
	struct text t;

	*j = (struct journal){ 0 };
	json = proc_read_own_file(file, FILE_MAX, &bytes, e);
	if (!json)
		return -1;
	if (jsonspec_decode(&spec, json, bytes, &t, e) == -1)
		return error_prefix(e, "%s", file);
	/* Numbers that are none become 0: not known. */
	*j = (struct journal){
		.id = t.id, .remote = t.remote, .domain = t.domain, .is_sync = t.is_sync,
		.is_remembered = t.is_remembered,
		.peer = { .far_boot = strtoull(t.far_boot, NULL, 10), .far_process = strtoull(t.far_process, NULL, 10),
			  .far_since = strtoull(t.far_since, NULL, 10), .is_foreign = t.is_foreign,
			  .far_volume = t.far_volume ? strtoull(t.far_volume, NULL, 10) : 0 },
	};
	free(t.far_volume);
	free(t.far_since);
	free(t.far_boot);
	free(t.far_process);
	return 0;
}

void journal_clear(struct journal *j)
{
	free(j->id);
	free(j->remote);
	free(j->domain);
	*j = (struct journal){ 0 };
}
