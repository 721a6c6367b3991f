/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-way - what a move asks for whose bytes go by a connection of their own
 *
 *      key.put, key.drop   the move's key (migrate/move-key.h), for the disks' processes to read when they listen
 *      way.open            is this address reached from there? (migrate/way.h)
 *
 * What held a key is wiped; it is in no sentence.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "cmd/relay-verbs.h"
#include "migrate/journey.h"
#include "migrate/move-key.h"
#include "migrate/way.h"

struct key_args {
	char *move, *key;
};
static const struct jsonspec_field put_fields[] = {
	{ "move", JS_STRING, offsetof(struct key_args, move) }, { "key", JS_STRING, offsetof(struct key_args, key) }, { NULL },
};
static const struct jsonspec put_spec = { "key.put", sizeof(struct key_args), put_fields };
static const struct jsonspec_field drop_fields[] = { { "move", JS_STRING, offsetof(struct key_args, move) }, { NULL } };
static const struct jsonspec drop_spec = { "key.drop", sizeof(struct key_args), drop_fields };

struct put {
	char *file;
};
static const struct jsonspec_field file_fields[] = { { "file", JS_STRING, offsetof(struct put, file) }, { NULL } };
static const struct jsonspec file_spec = { "key.put", sizeof(struct put), file_fields };

static int check_move(const char *id, struct error *e)
{
	return journey_id_is_valid(id) ? 0 : error_set(e, EINVAL, "%.60s is no name of a move", id);
}

static int put(const struct key_args *a, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	struct put answer;

	if (check_move(a->move, e) == -1)
		return -1;
	if (!move_key_is_valid(a->key))
		return error_set(e, EINVAL, "a key is %u hexadecimal digits", MOVE_KEY_DIGITS);
	if (move_key_write(a->move, a->key, e) == -1)
		return -1;
	path = move_key_path(a->move);
	answer.file = path;
	return relay_say(path ? jsonspec_encode(&file_spec, &answer) : NULL, r, e);
}

int relay_key_put(const char *args, struct relay_reply *r, struct error *e)
{
	struct key_args a;
	int result;

	if (jsonspec_decode(&put_spec, args, strlen(args), &a, e) == -1)
		return -1;
	result = put(&a, r, e);
	explicit_bzero(a.key, strlen(a.key));
	jsonspec_clear(&put_spec, &a);
	return result;
}

int relay_key_drop(const char *args, struct relay_reply *r, struct error *e)
{
	struct key_args a;
	int result;

	if (jsonspec_decode(&drop_spec, args, strlen(args), &a, e) == -1)
		return -1;
	result = check_move(a.move, e) == 0 ? move_key_drop(a.move, e) : -1;
	jsonspec_clear(&drop_spec, &a);
	return result == 0 ? relay_say(strdup("{}"), r, e) : -1;
}

struct open_args {
	char *address;
};
static const struct jsonspec_field open_fields[] = { { "address", JS_STRING, offsetof(struct open_args, address) }, { NULL } };
static const struct jsonspec open_spec = { "way.open", sizeof(struct open_args), open_fields };

int relay_way_open(const char *args, struct relay_reply *r, struct error *e)
{
	char word[WAY_WORD_MAX];
	struct open_args a;
	uint16_t port;
	char *text;
	int result;

	if (jsonspec_decode(&open_spec, args, strlen(args), &a, e) == -1)
		return -1;
	result = way_open(a.address, &port, word, e);
	jsonspec_clear(&open_spec, &a);
	if (result == -1)
		return -1;
	return relay_say(asprintf(&text, "{\"port\":%u,\"word\":\"%s\"}", port, word) < 0 ? NULL : text, r, e);
}
