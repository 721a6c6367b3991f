/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Any bytes to a relay's standard input: each line has one answer, which is one line of JSON with ok or error; it is one of the
 * verbs there are that runs, and what it is given is JSON; what is too long ends it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/jsonspec.h"
#include "migrate/relay.h"

struct nothing {
	char *text;
};
static const struct jsonspec_field nothing_fields[] = {
	{ "text", JS_STRING, offsetof(struct nothing, text), .is_optional = true }, { NULL }
};
static const struct jsonspec nothing_spec = { "args", sizeof(struct nothing), nothing_fields };

static int say_back(const char *args, struct relay_reply *r, struct error *e)
{
	struct nothing n;

	if (jsonspec_decode(&nothing_spec, args, strlen(args), &n, e) == -1)
		return -1;
	r->ok = n.text ? jsonspec_string(n.text) : strdup("{}");
	jsonspec_clear(&nothing_spec, &n);
	return 0;
}

static int swallow_some(const char *args UNUSED, struct relay_reply *r, struct error *e UNUSED)
{
	r->swallow_bytes = 9;
	return 0;
}

static const struct relay_verb verbs[] = { { "say", say_back }, { "swallow", swallow_some }, { NULL, NULL } };

struct answer {
	char *ok, *error;
};
static const struct jsonspec_field answer_fields[] = {
	{ "ok", JS_TEXT, offsetof(struct answer, ok), .is_optional = true },
	{ "error", JS_TEXT, offsetof(struct answer, error), .is_optional = true }, { NULL },
};
static const struct jsonspec answer_spec = { "answer", sizeof(struct answer), answer_fields };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];

const char *const fuzz_words[] = {
	"{", "}", "\"id\":", "\"verb\":", "\"say\"", "\"swallow\"", "\"args\":", "{\"text\":\"x\"}", "\n", "\\n", "\\u0000",
	"123456789",
	"{\"id\":1,\"verb\":\"say\",\"args\":{\"text\":\"a\"}}\n", "{\"verb\":\"swallow\"}\n", "null", "9223372036854775807",
	NULL,
};

/* What was said is lines of answers, and nothing else. */
static size_t check_answers(const char *text, size_t bytes)
{
	size_t lines = 0;

	while (bytes) {
		const char *end = memchr(text, '\n', bytes);
		struct answer a;
		struct error e;

		assert(end);
		assert(jsonspec_decode(&answer_spec, text, (size_t)(end - text), &a, &e) == 0);
		assert(!a.ok != !a.error);
		jsonspec_clear(&answer_spec, &a);
		bytes -= (size_t)(end - text) + 1;
		text = end + 1;
		lines++;
	}
	return lines;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const struct relay_table table = { verbs };
	int in = memfd_create("in", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC), status;
	char *said;
	off_t length;
	size_t asked = 0;

	assert(in >= 0 && out >= 0 && write(in, data, bytes) == (ssize_t)bytes && lseek(in, 0, SEEK_SET) == 0);
	status = relay_serve(&table, in, out);
	assert(status == 0 || status == 1);
	length = lseek(out, 0, SEEK_END);
	said = malloc((size_t)length + 1);
	assert(said && pread(out, said, (size_t)length, 0) == length);
	for (size_t i = 0; i < bytes; i++)
		asked += data[i] == '\n';
	assert(check_answers(said, (size_t)length) <= 2 * asked + 1);
	free(said);
	close(in);
	close(out);
	return 0;
}
