/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a successor of a killed process finds again: domains.json, names, sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "vdi/domains.h"

static char dir[] = "/tmp/sxm-domains-XXXXXX";
static char file[64];

static int make_dir(void **state)
{
	(void)state;
	snprintf(file, sizeof(file), "%s/%s", mkdtemp(dir), DOMAINS_FILE);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(dir);
}

static void put(const char *text)
{
	struct error e = { 0 };

	assert_int_equal(proc_replace_file(file, text, strlen(text), 0600, &e), 0);
}

static void no_file_is_an_empty_record(void **state)
{
	struct domains_record r;
	struct error e = { 0 };

	(void)state;
	unlink(file);
	assert_int_equal(domains_load(dir, &r, &e), 0);
	assert_int_equal(r.domains.count, 0);
	domains_clear(&r);
}

static void what_was_written_is_found_again(void **state)
{
	struct domains_listener listener = { .host = (char *)(uintptr_t)"10.0.0.2", .port = 10809 };
	struct domains_entry entry[2] = {
		{ .domain = (char *)(uintptr_t)"3", .is_active = true, .listeners = { 1, &listener } },
		{ .domain = (char *)(uintptr_t)"", .is_read_only = true },
	};
	struct domains_record r = {
		.domains = { 2, entry },
		.operation = (char *)(uintptr_t)"a.1",
		.operation_domain = (char *)(uintptr_t)"3",
		.is_told = true, .owed = (char *)(uintptr_t)"a \"sentence\"",
		.owed_by = (char *)(uintptr_t)"a.0", .owed_since = 1700000000,
	};
	struct error e = { 0 };
	const struct domains_entry *d;
	char *text = jsonspec_encode(&domains_spec, &r);

	(void)state;
	put(text);
	free(text);
	assert_int_equal(domains_load(dir, &r, &e), 0);
	d = r.domains.item;
	assert_int_equal(r.domains.count, 2);
	assert_string_equal(d[0].domain, "3");
	assert_true(d[0].is_active && !d[0].is_read_only && d[1].is_read_only && !d[1].is_active);
	assert_int_equal(((const struct domains_listener *)d[0].listeners.item)->port, 10809);
	assert_string_equal(d[1].domain, "");
	assert_string_equal(r.operation, "a.1");
	assert_true(r.is_told && !r.is_copy);
	assert_string_equal(r.owed, "a \"sentence\"");
	assert_string_equal(r.owed_by, "a.0");
	assert_int_equal(r.owed_since, 1700000000);
	domains_clear(&r);
}

static void what_is_not_ours_is_refused(void **state)
{
	static const char *const texts[] = {
		"", "{}", "[]", "{\"domains\":3}", "{\"domains\":[{}]}",
		"{\"domains\":[{\"domain\":\"3\",\"active\":true,\"read_only\":false,\"listen\":[{\"host\":\"x\",\"port\":65536}]}]}",
		"{\"domains\":[{\"domain\":\"3\",\"active\":true,\"read_only\":false,\"listen\":[{\"host\":\"x\",\"port\":0}]}]}",
	};
	struct domains_record r;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct error e = { 0 };

		put(texts[i]);
		assert_int_equal(domains_load(dir, &r, &e), -1);
		assert_int_not_equal(e.err, 0);
		assert_int_equal(r.domains.count, 0);
	}
}

static void sockets_differ_by_domain_and_fit(void **state)
{
	char a[108], b[108], deep[200];
	struct error e = { 0 };

	(void)state;
	assert_int_equal(domains_socket("/run/sxm/x", "3", a, sizeof(a), &e), 0);
	assert_int_equal(domains_socket("/run/sxm/x", "4", b, sizeof(b), &e), 0);
	assert_string_not_equal(a, b);
	assert_int_equal(domains_socket("/run/sxm/x", "", b, sizeof(b), &e), 0);
	assert_string_equal(b, "/run/sxm/x/nbd-811c9dc5");
	memset(deep, 'd', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	assert_int_equal(domains_socket(deep, "3", a, sizeof(a), &e), -1);
	assert_int_equal(e.err, ENAMETOOLONG);
}

static void dom0_and_far_ends_are_no_guests(void **state)
{
	(void)state;
	assert_true(domains_is_guest("3"));
	assert_true(domains_is_guest(""));
	assert_false(domains_is_guest("u0_vbd_0_xvda"));
	assert_false(domains_is_guest("MIRabcdef"));
	assert_false(domains_is_guest("CPabcdef"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_file_is_an_empty_record),
		cmocka_unit_test(what_was_written_is_found_again),
		cmocka_unit_test(what_is_not_ours_is_refused),
		cmocka_unit_test(sockets_differ_by_domain_and_fit),
		cmocka_unit_test(dom0_and_far_ends_are_no_guests),
	};

	return cmocka_run_group_tests_name("domains", tests, make_dir, remove_dir);
}
