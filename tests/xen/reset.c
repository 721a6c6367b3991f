/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * reset - what xenopsd does with a domain that asks for a soft reset: reset DOMID
 *
 * Linux asks for one on its way to another kernel (kexec).
 *
 *      paused -> all of its event channels are closed, its memory and grants stay -> two channels, for xenstore and the console,
 *      anew -> xenstored, the keys and the guest's parameters say which
 *
 * Its devices' directories are let alone: how it gets out of what the former kernel left there is the new one's business. It is
 * left paused: xl unpause.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenctrl.h>
#include <xenstore.h>

#include <xen/hvm/params.h>

static xc_interface *xc;
static struct xs_handle *store;
static uint32_t domain;

static void check(bool is_good, const char *what)
{
	if (is_good)
		return;
	fprintf(stderr, "reset: domain %" PRIu32 ": %s: %s\n", domain, what, strerror(errno));
	exit(1);
}

static const char *path_of(const char *key)
{
	static char path[64];

	snprintf(path, sizeof(path), "/local/domain/%" PRIu32 "/%s", domain, key);
	return path;
}

/* A channel that dom0 may bind. */
static unsigned make_channel(const char *key, int param)
{
	int port = xc_evtchn_alloc_unbound(xc, domain, 0);
	char text[16];

	check(port >= 0, "no event channel");
	snprintf(text, sizeof(text), "%d", port);
	check(xs_write(store, XBT_NULL, path_of(key), text, (unsigned)strlen(text)), key);
	check(xc_hvm_param_set(xc, domain, (uint32_t)param, (uint64_t)port) == 0, key);
	return (unsigned)port;
}

/* What the former kernel could do; and how much memory it was to have, as what it gave back to Xen is not known any more. */
static void forget(void)
{
	static const char *const keys[] = {
		"control/feature-suspend", "control/feature-poweroff", "control/feature-reboot", "control/feature-vcpu-hotplug",
		"control/feature-balloon", "memory/target",
	};

	for (unsigned i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		check(xs_rm(store, XBT_NULL, path_of(keys[i])) || errno == ENOENT, keys[i]);
}

int main(int argc, char **argv)
{
	unsigned bytes, port;
	char *ring;

	if (argc != 2 || !(domain = (uint32_t)atoi(argv[1]))) {
		fprintf(stderr, "usage: reset DOMID\n");
		return 2;
	}
	xc = xc_interface_open(NULL, NULL, 0);
	store = xs_open(0);
	check(xc && store, "no Xen");
	check(xc_domain_pause(xc, domain) == 0, "pause");
	check(xc_domain_soft_reset(xc, domain) == 0, "soft reset");
	ring = xs_read(store, XBT_NULL, path_of("store/ring-ref"), &bytes);
	check(ring, "store/ring-ref");
	port = make_channel("store/port", HVM_PARAM_STORE_EVTCHN);
	check(xs_introduce_domain(store, domain, strtoul(ring, NULL, 10), port), "xenstored");
	make_channel("console/port", HVM_PARAM_CONSOLE_EVTCHN);
	forget();
	free(ring);
	xs_close(store);
	xc_interface_close(xc);
	return 0;
}
