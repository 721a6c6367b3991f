/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * verb - see verb.h
 *
 *      file   -> plugin (the directory's name) and verb (its own) -> a row of the table
 *      stdin, or arguments -> struct smapi_args, by the row's parameters, which stand in the interface's order
 *      row's function -> one JSON value, or a failure -> stdout, exit status 0 or 1
 *
 * Standard input is always read to its end: a caller that is still writing must not meet a closed pipe.
 * Can fail: anywhere; whatever happens, what leaves in the JSON manner is one value and a new line.
 */
#include "plugins/verb.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/uri.h"
#include "plugins/bounded.h"
#include "plugins/coalesce.h"
#include "plugins/smapi.h"

#define AT(member) offsetof(struct smapi_args, member)
#define TEXT(member) { #member, JS_STRING, AT(member) }
#define DBG { "dbg", JS_STRING, AT(dbg) }
#define PARAMETERS(...) (const struct jsonspec_field[]) { DBG, __VA_ARGS__ __VA_OPT__(,) { NULL } }
#define CONFIGURATION { "configuration", JS_MAP, AT(configuration) }
#define VOLUME TEXT(sr), TEXT(key)
#define DATAPATH TEXT(uri), TEXT(domain)
#define OPERATION { "operation", JS_VARIANT, AT(operation) }

enum side { ANY, VOLUMES, DATAPATHS };
/* Where a server may not answer: the verb sees to it; it is given up with its type's patience; it takes as long as it takes, once
 * the server has been seen to answer. */
enum patience { OWN, GIVEN_UP, LOOKS };

static const struct verb {
	const char *name;
	enum side side;
	bool is_change; /* of something: gets a line in the log */
	enum patience patience;
	smapi_fn *run;
	const struct jsonspec_field *parameters;
} verbs[] = {
	{ "Plugin.Query", ANY, false, OWN, plugin_query, PARAMETERS() },
	{ "Plugin.ls", VOLUMES, false, OWN, plugin_ls, PARAMETERS() },
	{ "Plugin.diagnostics", VOLUMES, false, OWN, plugin_diagnostics, PARAMETERS() },
	{ "SR.probe", VOLUMES, false, GIVEN_UP, sr_probe, PARAMETERS(CONFIGURATION) },
	{ "SR.create", VOLUMES, true, GIVEN_UP, sr_create, PARAMETERS(TEXT(uuid), CONFIGURATION, TEXT(name), TEXT(description)) },
	{ "SR.attach", VOLUMES, true, GIVEN_UP, sr_attach, PARAMETERS(CONFIGURATION) },
	{ "SR.detach", VOLUMES, true, GIVEN_UP, sr_detach, PARAMETERS(TEXT(sr)) },
	{ "SR.destroy", VOLUMES, true, GIVEN_UP, sr_destroy, PARAMETERS(TEXT(sr)) },
	{ "SR.stat", VOLUMES, false, OWN, sr_stat, PARAMETERS(TEXT(sr)) },
	{ "SR.set_name", VOLUMES, true, GIVEN_UP, sr_set_name, PARAMETERS(TEXT(sr), TEXT(new_name)) },
	{ "SR.set_description", VOLUMES, true, GIVEN_UP, sr_set_description, PARAMETERS(TEXT(sr), TEXT(new_description)) },
	{ "SR.ls", VOLUMES, false, GIVEN_UP, sr_ls, PARAMETERS(TEXT(sr)) },
	{ "Volume.create", VOLUMES, true, GIVEN_UP, volume_create, PARAMETERS(TEXT(sr), TEXT(name), TEXT(description),
		{ "size", JS_INT64, AT(size) }, { "sharable", JS_BOOL, AT(sharable) }) },
	{ "Volume.destroy", VOLUMES, true, GIVEN_UP, volume_destroy, PARAMETERS(VOLUME) },
	{ "Volume.stat", VOLUMES, false, GIVEN_UP, volume_stat, PARAMETERS(VOLUME) },
	{ "Volume.set", VOLUMES, true, GIVEN_UP, volume_set, PARAMETERS(VOLUME, TEXT(k), TEXT(v)) },
	{ "Volume.unset", VOLUMES, true, GIVEN_UP, volume_unset, PARAMETERS(VOLUME, TEXT(k)) },
	{ "Volume.set_name", VOLUMES, true, GIVEN_UP, volume_set_name, PARAMETERS(VOLUME, TEXT(new_name)) },
	{ "Volume.set_description", VOLUMES, true, GIVEN_UP, volume_set_description, PARAMETERS(VOLUME, TEXT(new_description)) },
	{ "Volume.snapshot", VOLUMES, true, GIVEN_UP, volume_snapshot, PARAMETERS(VOLUME) },
	{ "Volume.clone", VOLUMES, true, GIVEN_UP, volume_clone, PARAMETERS(VOLUME) },
	{ "Volume.copy", VOLUMES, true, LOOKS, volume_copy, PARAMETERS(VOLUME, TEXT(dest_sr)) },
	{ "Volume.revert", VOLUMES, true, GIVEN_UP, volume_revert, PARAMETERS(TEXT(sr), TEXT(snapshot), TEXT(key)) },
	{ "Volume.compare", VOLUMES, false, LOOKS, volume_compare, PARAMETERS(VOLUME, TEXT(key2)) },
	{ "Volume.compose", VOLUMES, true, GIVEN_UP, volume_compose, PARAMETERS(VOLUME, TEXT(key2)) },
	{ "Volume.similar_content", VOLUMES, false, GIVEN_UP, volume_similar_content, PARAMETERS(VOLUME) },
	{ "Volume.enable_cbt", VOLUMES, true, GIVEN_UP, volume_enable_cbt, PARAMETERS(VOLUME) },
	{ "Volume.disable_cbt", VOLUMES, true, GIVEN_UP, volume_disable_cbt, PARAMETERS(VOLUME) },
	{ "Volume.data_destroy", VOLUMES, true, GIVEN_UP, volume_data_destroy, PARAMETERS(VOLUME) },
	{ "Volume.list_changed_blocks", VOLUMES, false, GIVEN_UP, volume_list_changed_blocks, PARAMETERS(VOLUME, TEXT(key2),
		{ "offset", JS_INT64, AT(offset) }, { "length", JS_INT64, AT(length) }) },
	{ "Volume.resize", VOLUMES, true, GIVEN_UP, volume_resize, PARAMETERS(VOLUME, { "new_size", JS_INT64, AT(new_size) }) },
	{ "Datapath.open", DATAPATHS, true, LOOKS, datapath_open, PARAMETERS(TEXT(uri),
		{ "persistent", JS_BOOL, AT(persistent) }) },
	{ "Datapath.attach", DATAPATHS, true, LOOKS, datapath_attach, PARAMETERS(DATAPATH) },
	{ "Datapath.activate", DATAPATHS, true, LOOKS, datapath_activate, PARAMETERS(DATAPATH) },
	{ "Datapath.activate_readonly", DATAPATHS, true, LOOKS, datapath_activate_readonly, PARAMETERS(DATAPATH) },
	{ "Datapath.deactivate", DATAPATHS, true, LOOKS, datapath_deactivate, PARAMETERS(DATAPATH) },
	{ "Datapath.detach", DATAPATHS, true, LOOKS, datapath_detach, PARAMETERS(DATAPATH) },
	{ "Datapath.import_activate", DATAPATHS, true, LOOKS, datapath_import_activate, PARAMETERS(DATAPATH) },
	{ "Datapath.close", DATAPATHS, true, LOOKS, datapath_close, PARAMETERS(TEXT(uri)) },
	{ "Data.copy", DATAPATHS, true, LOOKS, data_copy, PARAMETERS(DATAPATH, TEXT(remote),
		{ "blocklist", JS_RECORD, AT(blocklist), .sub = &types_blocklist }) },
	{ "Data.mirror", DATAPATHS, true, LOOKS, data_mirror, PARAMETERS(DATAPATH, TEXT(remote)) },
	{ "Data.stat", DATAPATHS, false, OWN, data_stat, PARAMETERS(OPERATION) },
	{ "Data.cancel", DATAPATHS, true, OWN, data_cancel, PARAMETERS(OPERATION) },
	{ "Data.destroy", DATAPATHS, true, OWN, data_destroy, PARAMETERS(OPERATION) },
	{ "Data.ls", DATAPATHS, false, OWN, data_ls, PARAMETERS() },
};

#define VOLUME_PREFIX "org.xen.xapi.storage."
#define DATAPATH_SCHEME "sxm"

int smapi_result(char *text, char **result, struct failure *f)
{
	*result = text;
	return text ? 0 : failure_set(f, FAILURE_REQUEST, ENOMEM, "out of memory");
}

int smapi_unit(char **result, struct failure *f)
{
	return smapi_result(strdup("null"), result, f);
}

/* --- which verb */

/* Names are compared as xapi does: without regard to case. */
static const struct verb *find_verb(const char *name, bool is_datapath)
{
	for (const struct verb *v = verbs; v < verbs + ARRAY_LEN(verbs); v++)
		if (strcasecmp(v->name, name) == 0 && (v->side == ANY || (v->side == DATAPATHS) == is_datapath))
			return v;
	return NULL;
}

static int identify(const char *file, struct smapi_call *call, const struct verb **verb, struct failure *f)
{
	const char *slash = strrchr(file, '/');
	CLEANUP_FREE char *parent = slash ? strndup(file, (size_t)(slash - file)) : strdup(".");
	CLEANUP_FREE char *dir = parent ? realpath(*parent ? parent : "/", NULL) : NULL;
	const char *plugin = dir ? strrchr(dir, '/') + 1 : "";
	bool is_datapath = strcmp(plugin, DATAPATH_SCHEME) == 0;

	call->verb = slash ? slash + 1 : file;
	if (strncmp(plugin, VOLUME_PREFIX, sizeof(VOLUME_PREFIX) - 1) == 0)
		call->sr_type = sr_type(plugin + sizeof(VOLUME_PREFIX) - 1);
	if (!call->sr_type && !is_datapath)
		return failure_raise(f, FAILURE_UNIMPLEMENTED, call->verb,
				     "%s lies in directory %s, which is none of the plugins here", file, dir ? dir : parent);
	*verb = find_verb(call->verb, is_datapath);
	if (!*verb)
		return failure_raise(f, FAILURE_UNIMPLEMENTED, call->verb, "plugin %s has no verb %s", plugin, call->verb);
	call->verb = (*verb)->name;
	return 0;
}

/* --- what it is asked */

/* Reads to the end and keeps what may be kept. */
static char *read_input(size_t *bytes, struct error *e)
{
	size_t used = 0, room = 0;
	char *text = NULL;

	for (;;) {
		char surplus[65536], *to = surplus;
		size_t want = sizeof(surplus);
		ssize_t n;

		if (used <= JSONSPEC_MAX_BYTES) {
			if (used + 1 >= room) {
				char *more = realloc(text, room += room + 65536);

				if (!more)
					break;
				text = more;
			}
			to = text + used;
			want = room - used - 1;
		}
		n = read(STDIN_FILENO, to, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			error_errno(e, errno, "read standard input");
		if (n <= 0) {
			text[used] = '\0';
			*bytes = used;
			if (n == 0 && used <= JSONSPEC_MAX_BYTES)
				return text;
			if (n == 0)
				error_set(e, E2BIG, "the request has more than %u bytes", JSONSPEC_MAX_BYTES);
			free(text);
			return NULL;
		}
		if (used <= JSONSPEC_MAX_BYTES)
			used += (size_t)n;
	}
	free(text);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

static int decode_input(const struct jsonspec *spec, struct smapi_args *args, struct error *e)
{
	size_t bytes;
	CLEANUP_FREE char *text = read_input(&bytes, e);

	return text ? jsonspec_decode(spec, text, bytes, args, e) : -1;
}

/* Maps are given by name, as often as they have members: --configuration KEY VALUE. 1: it was one. */
static int decode_map(const struct jsonspec *spec, char **args, struct smapi_args *out, struct error *e)
{
	for (const struct jsonspec_field *field = spec->fields; field->name; field++) {
		if (field->type != JS_MAP || strncmp(args[0], "--", 2) != 0 || strcmp(args[0] + 2, field->name) != 0)
			continue;
		if (!args[1] || !args[2])
			return error_set(e, EINVAL, "%s is followed by a key and a value", args[0]);
		if (jsonspec_map_set((void *)((char *)out + field->offset), args[1], args[2]) == -1)
			return error_set(e, ENOMEM, "out of memory");
		return 1;
	}
	return 0;
}

/* One parameter, as JSON would have it: a string is quoted, everything else stands for itself. */
static int add_parameter(FILE *to, const struct jsonspec_field *field, const char *arg)
{
	CLEANUP_FREE char *text = field->type == JS_STRING ? jsonspec_string(arg) : strdup(arg);

	return text && fprintf(to, ",\"%s\":%s", field->name, text) > 0 ? 0 : -1;
}

/* The manner of static-vdis: dbg, then the parameters in the interface's order. They are put into a request like any other. */
static int decode_arguments(const struct jsonspec *spec, char **args, struct smapi_args *out, struct error *e)
{
	const struct jsonspec_field *field = spec->fields;
	struct smapi_args maps = { 0 };
	CLEANUP_FREE char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);
	bool is_good = to && fputs("{\"\":0", to) >= 0;
	int r = 0;

	while (is_good && r != -1 && *args) {
		r = decode_map(spec, args, &maps, e);
		if (r == 1) {
			args += 3;
			continue;
		}
		while (field->name && field->type == JS_MAP)
			field++;
		if (r == 0 && !field->name)
			r = error_set(e, EINVAL, "%s is one argument too many", *args);
		if (r == 0)
			is_good = add_parameter(to, field++, *args++) == 0;
	}
	if (is_good)
		fputs(",\"configuration\":{}}", to); /* filled below; unknown to the others */
	if (to && fclose(to) != 0)
		is_good = false;
	if (!is_good)
		r = error_set(e, ENOMEM, "out of memory");
	if (r != -1)
		r = jsonspec_decode(spec, text, bytes, out, e);
	if (r != -1)
		out->configuration = maps.configuration;
	return r;
}

/* --- doing it */

/* One line: the verb, on what, how it ended, and the first line of dbg, which is what people look for in xapi's log. */
static void note(const struct smapi_call *call, uint64_t started_ns, const struct failure *f)
{
	const struct smapi_args *a = &call->args;
	const char *what = a->uri ? a->uri : a->sr ? a->sr : a->operation.arg ? a->operation.arg : "";
	const char *which = a->domain ? a->domain : a->key ? a->key : "";
	struct timespec now;
	uint64_t us;

	clock_gettime(CLOCK_MONOTONIC, &now);
	us = ((uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec - started_ns) / 1000;
	log_line(f ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "%s %s %s: %s in %u.%u ms [%.*s]", call->verb, what, which,
		 f ? f->e.text : "done", (unsigned)(us / 1000), (unsigned)(us % 1000 / 100),
		 a->dbg ? (int)MIN(strcspn(a->dbg, "\r\n"), (size_t)100) : 0, a->dbg ? a->dbg : "");
}

/* What was left to be done in the background, as whoever did it was killed, or gave up. */
static void resume(const struct smapi_args *a)
{
	struct error e;
	CLEANUP_FREE char *dir = a->sr ? uri_path(a->sr, "file", &e) : NULL;

	if (dir)
		coalesce_resume(dir);
}

/* xapi runs it while a guest waits, at the end of a move; and it takes little. Beside guests whose disks are busy it would
 * wait for a processor as long as they let it: each of several on each. */
static bool is_waited_for(const struct verb *verb)
{
	static smapi_fn *const of_volumes[] = { volume_stat, volume_unset, volume_compose, volume_destroy };

	for (size_t i = 0; i < ARRAY_LEN(of_volumes); i++)
		if (verb->run == of_volumes[i])
			return true;
	return strncmp(verb->name, "Datapath.", strlen("Datapath.")) == 0;
}

static int do_it(const struct verb *verb, struct smapi_call *call, char **result, struct failure *f)
{
	const struct smapi_args *a = &call->args;

	if (verb->patience == GIVEN_UP)
		return bounded_call(verb->run, call, call->sr_type->patience_ms, result, f);
	if (verb->patience == LOOKS &&
	    ((a->uri && bounded_look(a->uri, DATAPATH_SCHEME, f) == -1) || (a->sr && bounded_look(a->sr, "file", f) == -1) ||
	     (a->dest_sr && bounded_look(a->dest_sr, "file", f) == -1)))
		return -1;
	return verb->run(call, result, f);
}

static int run(const struct verb *verb, struct smapi_call *call, char **args, char **result, struct failure *f)
{
	const struct jsonspec spec = { verb->name, sizeof(struct smapi_args), verb->parameters };
	bool is_json = args[0] && strcmp(args[0], "--json") == 0;
	struct timespec now;
	struct error e;
	int r;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (is_json && args[1])
		return failure_set(f, FAILURE_REQUEST, EINVAL,
				   "%s: --json stands alone, the parameters come on standard input", verb->name);
	if ((is_json ? decode_input(&spec, &call->args, &e) : decode_arguments(&spec, args, &call->args, &e)) == -1)
		return failure_from(f, FAILURE_REQUEST, &e);
	r = do_it(verb, call, result, f);
	if (r == 0)
		resume(&call->args);
	if (verb->is_change || r == -1)
		note(call, (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec, r == -1 ? f : NULL);
	jsonspec_clear(&spec, &call->args);
	return r;
}

int verb_call(const char *type, const char *name, const char *args, char **result, struct failure *f)
{
	bool is_datapath = strncasecmp(name, "Data", 4) == 0;
	const struct verb *verb = find_verb(name, is_datapath);
	struct smapi_call call = { .verb = name, .sr_type = is_datapath ? NULL : sr_type(type) };
	struct jsonspec spec = { name, sizeof(struct smapi_args), NULL };
	struct error e;
	int r;

	if (!verb)
		return failure_raise(f, FAILURE_UNIMPLEMENTED, name, "there is no verb %.60s", name);
	if (!is_datapath && !call.sr_type)
		return failure_set(f, FAILURE_REQUEST, EINVAL, "there is no SR type %.60s", type);
	call.verb = spec.name = verb->name;
	spec.fields = verb->parameters;
	if (jsonspec_decode(&spec, args, strlen(args), &call.args, &e) == -1)
		return failure_from(f, FAILURE_REQUEST, &e);
	r = do_it(verb, &call, result, f);
	if (r == -1)
		log_error("%s: %s", verb->name, f->e.text);
	jsonspec_clear(&spec, &call.args);
	return r;
}

static void show_parameters(const struct verb *verb)
{
	printf("%s", verb->name);
	for (const struct jsonspec_field *field = verb->parameters; field->name; field++)
		printf(field->type == JS_MAP ? " [--%s KEY VALUE]..." : " %s", field->name);
	printf("\n");
}

void verb_list(void)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		show_parameters(&verbs[i]);
}

static int put(const char *text)
{
	return text && puts(text) != EOF && fflush(stdout) == 0 ? 0 : -1;
}

int verb_main(const char *file, char **args)
{
	bool is_json = args[0] && strcmp(args[0], "--json") == 0;
	struct smapi_call call = { 0 };
	const struct verb *verb = NULL;
	CLEANUP_FREE char *result = NULL;
	CLEANUP_FREE char *report = NULL;
	struct failure f;

	proc_take_short_turns(); /* guests whose disks are busy come in between, however often it is run */
	if (identify(file, &call, &verb, &f) == 0) {
		if (is_waited_for(verb))
			proc_hurry();
		if (!args[0] || strcmp(args[0], "--help") == 0) {
			printf("%s --json   with one JSON object on standard input, or\n", verb->name);
			show_parameters(verb);
			return args[0] ? 0 : 2;
		}
		if (run(verb, &call, args, &result, &f) == 0)
			return put(result) == 0 ? 0 : 1;
	} else if (is_json) {
		struct error e;
		size_t bytes;

		free(read_input(&bytes, &e));
	}
	if (!is_json) {
		fprintf(stderr, "%s: %s\n", call.verb, f.e.text);
		return 1;
	}
	report = failure_report(&f);
	put(report ? report : "{\"code\":\"SR_BACKEND_FAILURE\",\"params\":[\"\",\"out of memory\",\"\"],"
			      "\"backtrace\":{\"error\":\"\",\"files\":[],\"lines\":[]}}");
	return 1;
}
