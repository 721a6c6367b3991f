/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-relay - sxm relay: this host does what somebody who moves a disk asks for (migrate/PROTOCOL.relay)
 *
 * It takes no arguments, so that a key in authorized_keys may be bound to it. Nobody is asked anything.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/host-id.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "cmd/cmd.h"
#include "cmd/relay-verbs.h"
#include "migrate/squeeze.h"

enum status { ENDED = 0, BROKEN = 1, USAGE = 2 };

int relay_say(char *text, struct relay_reply *r, struct error *e)
{
	r->ok = text;
	return text ? 0 : error_set(e, ENOMEM, "out of memory");
}

/* --- hello */

struct hello {
	int64_t protocol;
};
static const struct jsonspec_field hello_fields[] = {
	{ "protocol", JS_INT64, offsetof(struct hello, protocol) }, { NULL }
};
static const struct jsonspec hello_spec = { "hello", sizeof(struct hello), hello_fields };

struct greeting {
	int64_t protocol, oldest, now_ms;
	char *version, *hostname, *host, *run_dir, *address, *compress;
	struct jsonspec_list transports;
};
static const struct jsonspec_field greeting_fields[] = {
	{ "protocol", JS_INT64, offsetof(struct greeting, protocol) },
	{ "oldest", JS_INT64, offsetof(struct greeting, oldest) },
	{ "version", JS_STRING, offsetof(struct greeting, version) },
	{ "hostname", JS_STRING, offsetof(struct greeting, hostname) },
	{ "host", JS_STRING, offsetof(struct greeting, host) },
	{ "now_ms", JS_INT64, offsetof(struct greeting, now_ms) },
	{ "run_dir", JS_STRING, offsetof(struct greeting, run_dir) },
	{ "address", JS_STRING, offsetof(struct greeting, address) },
	{ "transports", JS_LIST, offsetof(struct greeting, transports) },
	{ "compress", JS_STRING, offsetof(struct greeting, compress), .is_optional = true },
	{ NULL },
};
static const struct jsonspec greeting_spec = { "greeting", sizeof(struct greeting), greeting_fields };

#ifdef HAVE_GNUTLS
#define HAS_TLS 1
#else
#define HAS_TLS 0
#endif

/* Where who asks has reached sshd here: the third word of "his address, his port, ours, our port". "": it was not sshd. */
static void find_address(char address[static 64])
{
	const char *connection = getenv("SSH_CONNECTION");

	if (!connection || sscanf(connection, "%*s %*s %63s", address) != 1)
		*address = '\0';
}

static int hello(const char *args, struct relay_reply *r, struct error *e)
{
	static char ssh[] = "ssh", tcp[] = "tcp", tls[] = "tcp+tls", *transports[] = { ssh, tcp, tls }, zstd[] = SQUEEZE_NAME;
	char host[HOST_ID_MAX] = "", name[256] = "", address[64], version[] = PACKAGE_VERSION;
	struct greeting g = { .oldest = RELAY_PROTOCOL_OLDEST, .version = version, .hostname = name, .host = host,
			      .address = address, .transports = { ARRAY_LEN(transports) - !HAS_TLS, transports },
			      .compress = squeeze_is_there() ? zstd : NULL };
	CLEANUP_FREE char *run_dir = strdup(proc_run_dir());
	struct timespec now;
	struct hello h;

	if (jsonspec_decode(&hello_spec, args, strlen(args), &h, e) == -1)
		return -1;
	if (h.protocol < RELAY_PROTOCOL_OLDEST)
		return error_set(e, ENOTSUP, "the other sxm speaks version %" PRId64 " of a relay's protocol, this one %d to %d: "
				 "install the same on both hosts", h.protocol, RELAY_PROTOCOL_OLDEST, RELAY_PROTOCOL);
	if (gethostname(name, sizeof(name) - 1) == -1 || !*name || host_id(host, e) == -1)
		strcpy(host, "");
	find_address(address);
	clock_gettime(CLOCK_REALTIME, &now);
	g.protocol = MIN(h.protocol, RELAY_PROTOCOL);
	g.now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / (long)NS_PER_MS;
	g.run_dir = run_dir;
	return relay_say(run_dir ? jsonspec_encode(&greeting_spec, &g) : NULL, r, e);
}

/* --- probe */

struct probe {
	int64_t bytes;
};
static const struct jsonspec_field probe_fields[] = { { "bytes", JS_INT64, offsetof(struct probe, bytes) }, { NULL } };
static const struct jsonspec probe_spec = { "probe", sizeof(struct probe), probe_fields };

static int probe(const char *args, struct relay_reply *r, struct error *e)
{
	struct probe p;

	if (jsonspec_decode(&probe_spec, args, strlen(args), &p, e) == -1)
		return -1;
	if (p.bytes < 1 || p.bytes > RELAY_PROBE_MAX)
		return error_set(e, EINVAL, "probe: %" PRId64 " bytes are not within 1 and %u", p.bytes, RELAY_PROBE_MAX);
	r->swallow_bytes = (uint64_t)p.bytes;
	return relay_say(strdup("{}"), r, e);
}

static const struct relay_verb verbs[] = {
	{ "hello", hello }, { "probe", probe }, { "smapi", relay_smapi },
	{ "sr.find", relay_sr_find }, { "volume.find", relay_volume_find },
	{ "volume.make", relay_volume_make }, { "volume.name", relay_volume_name }, { "volume.undo", relay_volume_undo },
	{ "volume.keep", relay_volume_keep }, { "volume.release", relay_volume_release },
	{ "volume.owner", relay_volume_owner }, { "volume.track", relay_volume_track },
	{ "base.find", relay_base_find }, { "base.take", relay_base_take },
	{ "control", relay_control }, { "connect", relay_connect },
	{ "key.put", relay_key_put }, { "key.drop", relay_key_drop }, { "way.open", relay_way_open },
	{ "vm.look", relay_vm_look }, { "vm.receive", relay_vm_receive }, { "vm.run", relay_vm_run }, { "vm.end", relay_vm_end },
	{ NULL, NULL },
};

static int run(int argc, char **argv UNUSED)
{
	const struct relay_table table = { verbs };

	if (argc > 1) {
		fprintf(stderr, "sxm relay: it takes no arguments; what is wanted is said on standard input\n");
		return CMD_USAGE;
	}
	signal(SIGPIPE, SIG_IGN);
	return relay_serve(&table, STDIN_FILENO, STDOUT_FILENO) == 0 ? ENDED : BROKEN;
}

const struct cmd cmd_relay = {
	.name = "relay",
	.summary = "what `sxm migrate` runs on each host; speaks migrate/PROTOCOL.relay",
	.usage = "sxm relay\n"
		 "  Started by `sxm migrate`, here and on the other host. One JSON object a line on standard input and output.\n"
		 "  In authorized_keys a key may be bound to it: command=\"sxm relay\",restrict ssh-ed25519 ...\n"
		 "exit status: 0 the end of standard input, 1 it was no question or the connection broke, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
