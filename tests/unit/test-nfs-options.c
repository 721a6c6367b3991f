/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a configuration may say about NFS, and nothing that is more than it says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/cleanup.h"
#include "plugins/nfs-options.h"

typedef int check_fn(const char *text, struct error *e);

static void check_all(check_fn *check, const char *const *good, const char *const *bad)
{
	struct error e;

	for (; *good; good++)
		if (check(*good, &e) == -1)
			fail_msg("\"%s\" was refused: %s", *good, e.text);
	for (; *bad; bad++)
		if (check(*bad, &e) == 0)
			fail_msg("\"%s\" was accepted", *bad);
}

static void options_are_those_of_the_list(void **state UNUSED)
{
	static const char *const good[] = { "", "hard", "soft,timeo=600,retrans=3", "sec=krb5p", "proto=tcp6,nconnect=16", "lookupcache=pos", NULL };
	static const char *const bad[] = { "suid", "hard,suid", "hard,", ",hard", "hard ,soft", "hard\n", "timeo", "timeo=", "timeo=a", "timeo=-1",
					   "timeo=1=2", "hard=", "proto=udp", "sec=", "sec=|", "sec=sys|krb5", "har", "hardy", "=1", "addr=1", NULL };

	check_all(nfs_options_check, good, bad);
}

static void servers_are_names_or_addresses(void **state UNUSED)
{
	static const char *const good[] = { "filer", "filer-1.example.org", "10.0.0.1", "fd00::1", "[fd00::1]", "fe80::1%eth0", NULL };
	static const char *const bad[] = { "", "-o", "[-o]", "[]", "a b", "a,b", "a/b", "a\nb", "a;b", ".a", NULL };

	check_all(nfs_options_check_server, good, bad);
}

static void paths_are_absolute_and_lead_down(void **state UNUSED)
{
	static const char *const good[] = { "/", "/a", "/a b,c", "/a/..b/c..", "/\xc3\xa9", NULL };
	static const char *const bad[] = { "", "a", "/..", "/a/..", "/a/../b", "/a\n", "/\x7f", NULL };

	check_all(nfs_options_check_path, good, bad);
}

static void versions(void **state UNUSED)
{
	static const char *const good[] = { "3", "4", "4.0", "4.1", "4.2", NULL };
	static const char *const bad[] = { "", "2", "4.3", "4.2,suid", "4 ", " 4", "\n", NULL };

	check_all(nfs_options_check_version, good, bad);
}

static void ours_come_first_and_can_be_overruled(void **state UNUSED)
{
	CLEANUP_FREE char *plain = nfs_options_text(NULL, NULL, false);
	CLEANUP_FREE char *all = nfs_options_text("4.1", "soft", true);

	assert_string_equal(plain, "hard,retry=0,acdirmin=0,acdirmax=0");
	assert_string_equal(all, "hard,retry=0,acdirmin=0,acdirmax=0,ro,vers=4.1,soft");
}

static void a_source_has_brackets_where_it_needs_them(void **state UNUSED)
{
	CLEANUP_FREE char *named = nfs_options_source("filer", "/a");
	CLEANUP_FREE char *bare = nfs_options_source("fd00::1", "/a");
	CLEANUP_FREE char *bracketed = nfs_options_source("[fd00::1]", "/a");

	assert_string_equal(named, "filer:/a");
	assert_string_equal(bare, "[fd00::1]:/a");
	assert_string_equal(bracketed, "[fd00::1]:/a");
}

static void a_uri_is_taken_apart(void **state UNUSED)
{
	static const char *const bad[] = { "", "nfs", "nfs:", "nfs://", "nfs:///a", "nfs://h", "file://h/a", "nfs://h/%", "nfs://h/%00", "nfs://h/a?b" };
	char *server, *path;
	struct error e;

	assert_int_equal(nfs_options_split_uri("NFS://filer/srv/my%20disks", &server, &path, &e), 0);
	assert_string_equal(server, "filer");
	assert_string_equal(path, "/srv/my disks");
	free(server);
	free(path);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(nfs_options_split_uri(bad[i], &server, &path, &e), -1);
		assert_null(server);
		assert_null(path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_are_those_of_the_list),
		cmocka_unit_test(servers_are_names_or_addresses),
		cmocka_unit_test(paths_are_absolute_and_lead_down),
		cmocka_unit_test(versions),
		cmocka_unit_test(ours_come_first_and_can_be_overruled),
		cmocka_unit_test(a_source_has_brackets_where_it_needs_them),
		cmocka_unit_test(a_uri_is_taken_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
