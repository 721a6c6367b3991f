/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-remote-uri - what counts as the name of a far side
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mirror/remote-uri.h"
#include "mirror/remote.h"

static void expect(const char *uri, const char *normal)
{
	struct error e = { 0 };
	char *got = remote_uri_normalize(uri, &e);

	if (!got)
		fail_msg("%s: %s", uri, e.text);
	assert_string_equal(got, normal);
	free(got);
}

static void refuse(const char *uri, const char *because)
{
	struct error e = { 0 };
	char *got = remote_uri_normalize(uri, &e);

	if (got)
		fail_msg("%s was taken as %s", uri, got);
	assert_int_not_equal(e.err, 0);
	if (!strstr(e.text, because))
		fail_msg("%s: \"%s\" does not say \"%s\"", uri, e.text, because);
	assert_int_equal(remote_nbd_check_uri(uri, NULL), -1);
}

static void what_libnbd_takes_passes_unchanged(void **state)
{
	static const char *const uris[] = {
		"nbd://host", "nbd://host/", "nbd://host:10810/disk", "nbds://user@host/d?tls-certificates=/etc/pki",
		"nbd://[::1]:10809/", "nbd+unix:///?socket=/run/x.sock", "nbd+unix:///disk%201?socket=/run/x%20y.sock",
		"nbd+unix://?socket=/s", "nbds+unix://u@/e?socket=/s&tls-psk-file=/p", "nbds+unix:///e?tls-psk-file=/p&socket=/run/s",
		"nbds://u@h:1/e?tls-psk-file=%2fetc%2fpsk", "nbds://h/e?tls-certificates=/a%20b",
		"nbd+vsock://2:10809/e", "nbds+vsock://2/e?tls-psk-file=/p",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(uris) / sizeof(*uris); i++)
		expect(uris[i], uris[i]);
}

static void xapis_form_is_converted(void **state)
{
	(void)state;
	expect("nbd:unix:/run/nbdproxy/7:exportname=disk-1", "nbd+unix:///disk-1?socket=/run/nbdproxy/7");
	expect("nbd:unix:/run/a b&c?:exportname=/x%y#z", "nbd+unix:////x%25y%23z?socket=/run/a%20b%26c%3F");
}

static void xapis_form_with_missing_parts_is_refused(void **state)
{
	(void)state;
	refuse("nbd:unix:", "empty");
	refuse("nbd:unix::exportname=x", "empty");
	refuse("nbd:unix:/run/x", "exportname=NAME");
	refuse("nbd:unix:/run/x:export=x", "exportname=NAME");
	refuse("nbd:unix:/run/x:exportname=", "the NAME");
	refuse("nbd:unix:/run/x:exportname=a:b", "the NAME");
	refuse("nbd:unix:/run/x:exportname=exportname=", "the NAME");
	refuse("nbd:host:10809", "not an NBD URI");
}

static void anything_else_is_refused_with_a_sentence(void **state)
{
	(void)state;
	refuse("", "empty");
	refuse("file:///disk.img", "not an NBD URI");
	refuse("/disk.img", "not an NBD URI");
	refuse("nbd", "not an NBD URI");
	refuse("nbd:/host", "not an NBD URI");
	refuse("http://nbd://host", "not an NBD URI");
	refuse("nbd://", "no host");
	refuse("nbd:///export", "no host");
	refuse("nbd://host/a b", "space");
	refuse("nbd://host/a\nb", "control");
	refuse("nbd://host/%", "hex digits");
	refuse("nbd://host/%2", "hex digits");
	refuse("nbd://host/a%00b", "NUL");
	assert_null(remote_uri_normalize(NULL, NULL));
}

static void a_local_socket_must_be_named(void **state)
{
	(void)state;
	refuse("nbd+unix:///export", "no socket");
	refuse("nbd+unix:///export?sock=/x", "sock=/x");
	refuse("nbd+unix:///export", "no socket");
	refuse("nbds://h/e?tls-verify-peer=0", "tls-verify-peer=0");
	refuse("nbds://h/e", "how the far side is known");
	refuse("nbds+unix:///e?socket=/s&tls-certificates=/pki", "certificate is for a host");
	refuse("nbds://h/e?tls-psk-file=psk", "absolute");
	refuse("nbds://h/e?tls-psk-file=", "absolute");
	refuse("nbds://h/e?tls-certificates=../pki", "absolute");
	refuse("nbds://h/e?tls-certificates=/pki%00", "NUL");
	refuse("nbd://h/e?tls-psk-file=/psk", "nbds");
	refuse("nbd+unix:///export?a=b#socket=/x", "a=b");
	refuse("nbd+unix:///export#socket=/x", "no socket");
	refuse("nbd+unix:///export?socket=", "no socket");
	refuse("nbd+unix://host/export?socket=/x", "no host");
	refuse("nbd+unix:///e?socket=/a%00b", "NUL");
	refuse("nbd+unix:///e?socket=/a%zz", "hex digits");
}

static void a_socket_path_longer_than_the_kernel_takes_is_refused(void **state)
{
	char uri[600], normal[600], path[400];

	(void)state;
	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[107] = '\0';
	snprintf(uri, sizeof(uri), "nbd+unix:///e?socket=%s", path);
	expect(uri, uri);
	snprintf(normal, sizeof(normal), "nbd:unix:%s:exportname=e", path);
	expect(normal, uri);
	path[107] = 'p';
	path[108] = '\0';
	snprintf(uri, sizeof(uri), "nbd+unix:///e?socket=%s", path);
	refuse(uri, "108 bytes");
	snprintf(uri, sizeof(uri), "nbd:unix:%s:exportname=e", path);
	refuse(uri, "108 bytes");
	/* It is the path's bytes that count, not the escapes'. */
	strcpy(path, "/");
	for (unsigned i = 0; i < 106; i++)
		strcat(path, "%41");
	snprintf(uri, sizeof(uri), "nbd+unix:///e?socket=%s", path);
	expect(uri, uri);
}

static void lengths_are_bounded(void **state)
{
	char *uri = malloc(20000);

	(void)state;
	memset(uri, 'x', 19999);
	uri[19999] = '\0';
	memcpy(uri, "nbd://h/", 8);
	refuse(uri, "longer than");
	uri[8 + 4096] = '\0';
	expect(uri, uri);
	uri[8 + 4096] = 'x';
	uri[8 + 4097] = '\0';
	refuse(uri, "4097 bytes");
	free(uri);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_libnbd_takes_passes_unchanged),
		cmocka_unit_test(xapis_form_is_converted),
		cmocka_unit_test(xapis_form_with_missing_parts_is_refused),
		cmocka_unit_test(anything_else_is_refused_with_a_sentence),
		cmocka_unit_test(a_local_socket_must_be_named),
		cmocka_unit_test(a_socket_path_longer_than_the_kernel_takes_is_refused),
		cmocka_unit_test(lengths_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
