/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The NBD server alone, over a disk in memory: nbd-serve [-r] [-c CEILING] [-e EXPORT] BYTES SOCKET [IMAGE]
 *
 * Serves until SIGTERM or SIGINT, then shuts down and ends with 0: a leak is a sanitizer's report. IMAGE: what is in memory
 * is written there at the end. -c: the pool's ceiling (8MiB).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/proc.h"
#include "base/size.h"
#include "block/gate.h"
#include "nbdsrv/nbdsrv.h"
#include "tests/lib/memory-layer.h"

struct serving {
	struct loop *loop;
	struct nbdsrv *server;
	bool is_ending;
};

struct options {
	bool is_read_only;
	uint64_t ceiling, size;
	const char *export_name, *socket, *image;
};

static void on_shut(void *arg)
{
	struct serving *v = arg;

	nbdsrv_free(v->server);
	loop_stop(v->loop);
}

static void on_term(void *arg)
{
	struct serving *v = arg;

	if (v->is_ending)
		return;
	v->is_ending = true;
	nbdsrv_shutdown(v->server, on_shut, v);
}

static int parse(struct options *o, int argc, char **argv)
{
	int c;

	*o = (struct options){ .ceiling = 8 * MiB, .export_name = "test" };
	while ((c = getopt(argc, argv, "rc:e:")) != -1)
		switch (c) {
		case 'r':
			o->is_read_only = true;
			break;
		case 'c':
			if (!size_parse(optarg, &o->ceiling))
				return -1;
			break;
		case 'e':
			o->export_name = optarg;
			break;
		default:
			return -1;
		}
	if (argc - optind < 2 || !size_parse(argv[optind], &o->size))
		return -1;
	o->socket = argv[optind + 1];
	o->image = argv[optind + 2];
	return 0;
}

static int serve(const struct options *o, struct layer *memory, struct error *e)
{
	struct serving v = { .loop = loop_new() };
	struct iobuf_pool *pool = iobuf_pool_new(o->ceiling);
	struct layer *gate;

	if (!v.loop || !pool)
		return error_set(e, ENOMEM, "out of memory");
	req_init(v.loop);
	gate = gate_new(memory);
	v.server = nbdsrv_new(&(struct nbdsrv_spec){ .loop = v.loop, .top = gate, .pool = pool,
						      .export_name = o->export_name, .is_read_only = o->is_read_only }, e);
	if (!v.server || nbdsrv_listen_unix(v.server, o->socket, e) == -1)
		return -1;
	if (loop_on_signal(v.loop, SIGTERM, on_term, &v) == -1 || loop_on_signal(v.loop, SIGINT, on_term, &v) == -1)
		return error_set(e, ENOMEM, "no signals");
	puts("ready");
	fflush(stdout);
	loop_run(v.loop);
	layer_close(gate);
	loop_free(v.loop);
	req_fini();
	iobuf_pool_free(pool);
	return 0;
}

int main(int argc, char **argv)
{
	struct options o;
	struct layer *memory;
	struct error e = { 0 };

	log_init("nbd-serve");
	signal(SIGPIPE, SIG_IGN);
	if (parse(&o, argc, argv) == -1) {
		fprintf(stderr, "usage: nbd-serve [-r] [-c CEILING] [-e EXPORT] BYTES SOCKET [IMAGE]\n");
		return 2;
	}
	memory = memory_layer_new(o.size);
	if (!memory || serve(&o, memory, &e) == -1) {
		fprintf(stderr, "nbd-serve: %s\n", e.text);
		return 1;
	}
	if (o.image && proc_replace_file(o.image, (const char *)memory_layer_bytes(memory), o.size, 0600, &e) == -1) {
		fprintf(stderr, "nbd-serve: %s\n", e.text);
		return 1;
	}
	layer_close(memory);
	return 0;
}
