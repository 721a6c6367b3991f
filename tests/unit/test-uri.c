/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Paths as URIs, and the names of images and operations: what comes from outside never becomes another path.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "plugins/meta.h"
#include "plugins/vdi-id.h"

static void paths_and_uris_are_each_others_reverse(void **state UNUSED)
{
	static const char *const paths[] = { "/", "/srv/sr", "/srv/my sr/100%/a?b#c", "/\xc3\xa9/\xff\x01", "/a:b,c=d;e" };

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		CLEANUP_FREE char *uri = uri_of_path("sxm", paths[i]);
		struct error e;
		CLEANUP_FREE char *path = uri_path(uri, "sxm", &e);

		assert_string_equal(path, paths[i]);
		for (const char *c = uri + 6; *c; c++)
			assert_true(strchr("/-._~%", *c) || (*c >= '0' && *c <= '9') || (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z'));
	}
}

static void every_common_form_of_a_file_uri_is_read(void **state UNUSED)
{
	static const char *const uris[] = { "file:///srv/a%20b", "FILE:///srv/a b", "file:/srv/a%20b", "file://localhost/srv/a%20b" };

	for (size_t i = 0; i < ARRAY_LEN(uris); i++) {
		struct error e;
		CLEANUP_FREE char *path = uri_path(uris[i], "file", &e);

		assert_string_equal(path, "/srv/a b");
	}
}

static void uris_that_name_no_local_path_are_refused(void **state UNUSED)
{
	static const char *const uris[] = { "", "file", "file:", "file://", "file:srv", "file://host/srv", "http:///srv", "files:///srv",
					    "/srv", "file:///a%00b", "file:///a%", "file:///a%4", "file:///a%zz", "file:///a?b=c", "file:///a#b" };

	for (size_t i = 0; i < ARRAY_LEN(uris); i++) {
		struct error e = { 0 };

		assert_null(uri_path(uris[i], "file", &e));
		assert_int_equal(e.err, EINVAL);
	}
}

static void a_place_has_one_name_whatever_leads_to_it(void **state UNUSED)
{
	char dir[] = "/tmp/sxm-uri.XXXXXX", real[128], link_path[128], through[192], wanted[192];
	CLEANUP_FREE char *found = NULL;
	CLEANUP_FREE char *resolved = NULL;
	struct error e;

	assert_non_null(mkdtemp(dir));
	resolved = realpath(dir, NULL);
	snprintf(real, sizeof(real), "%s/real", dir);
	snprintf(link_path, sizeof(link_path), "%s/link", dir);
	assert_int_equal(mkdir(real, 0700), 0);
	assert_int_equal(symlink("real", link_path), 0);
	snprintf(through, sizeof(through), "%s/./link//../link/not-there.raw/", dir);
	snprintf(wanted, sizeof(wanted), "%s/real/not-there.raw", resolved);
	found = uri_canonical(through, &e);
	assert_string_equal(found, wanted);
	snprintf(through, sizeof(through), "%s/..", real);
	assert_null(uri_canonical(through, &e));
	snprintf(through, sizeof(through), "%s/nowhere/x", dir);
	assert_null(uri_canonical(through, &e));
	assert_int_equal(e.err, ENOENT);
	assert_null(uri_canonical("relative", &e));
	unlink(link_path);
	rmdir(real);
	rmdir(dir);
}

static int names(const char *uri, const char *canonical)
{
	struct error e = { 0 };

	return uri_names(uri, "sxm", canonical, &e);
}

/* dir/real, and dir/link to it: what another spelling of a path leads to, is there or not. */
static void a_uri_names_a_place_in_whatever_spelling(void **state UNUSED)
{
	char dir[] = "/tmp/sxm-uri.XXXXXX", path[128], wanted[192], uri[256];
	CLEANUP_FREE char *resolved = NULL;
	static const char *const same[][2] = { { "sxm://", "/link/a.raw" }, { "SXM:", "/real/a.raw" },
					       { "sxm://localhost", "/./link/../real//a%2Eraw" }, { "sxm://", "/link/a.raw//" } };
	static const char *const other[][2] = { { "sxm://", "/real/b.raw" }, { "sxm://", "/a.raw" }, { "sxm://", "/nowhere/a.raw" },
						{ "sxm://", "/real/a.raw/.." }, { "sxm://", "/real/a.raw?x" },
						{ "file://", "/real/a.raw" }, { "sxm://host", "/real/a.raw" } };

	assert_non_null(mkdtemp(dir));
	resolved = realpath(dir, NULL);
	snprintf(path, sizeof(path), "%s/real", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/link", dir);
	assert_int_equal(symlink("real", path), 0);
	snprintf(wanted, sizeof(wanted), "%s/real/a.raw", resolved);
	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		snprintf(uri, sizeof(uri), "%s%s%s", same[i][0], dir, same[i][1]);
		assert_int_equal(names(uri, wanted), 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(other); i++) {
		snprintf(uri, sizeof(uri), "%s%s%s", other[i][0], dir, other[i][1]);
		assert_int_equal(names(uri, wanted), 0);
	}
	unlink(path);
	assert_int_equal(symlink("link", path), 0);
	snprintf(uri, sizeof(uri), "sxm://%s/link/a.raw", dir);
	assert_int_equal(names(uri, wanted), 0);
	unlink(path);
	snprintf(path, sizeof(path), "%s/real", dir);
	rmdir(path);
	rmdir(dir);
	assert_int_equal(names("sxm:///nowhere/a.raw", "/nowhere/a.raw"), 1); /* as it is written, it need not be there */
}

static void where_a_uri_leads_cannot_always_be_told(void **state UNUSED)
{
	char uri[600] = "sxm:///";

	memset(uri + 7, 'x', 300); /* no directory can be called so */
	strcpy(uri + 307, "/a.raw");
	assert_int_equal(names(uri, "/srv/a.raw"), -1);
	assert_int_equal(names(uri, "/srv/b.raw"), 0); /* nor is it asked */
}

static void an_image_has_a_short_clean_name_of_its_own(void **state UNUSED)
{
	char id[VDI_ID_MAX], other[VDI_ID_MAX];

	/* The hash is FNV-1a, 32 bits, of the whole path: checked against another implementation. */
	assert_string_equal(vdi_id_of_path("/srv/sr/7428de2e-e180-4ec8-947b-6dd4a8288937.raw", id),
			    "7428de2e-e180-4ec8-947b-6dd4a8288937-dc1c6387");
	assert_true(vdi_id_is_valid(id));
	vdi_id_of_path("/srv/s2/7428de2e-e180-4ec8-947b-6dd4a8288937.raw", other);
	assert_string_not_equal(id, other);
	static const char *const paths[] = { "/", "/.raw", "/..", "/a b:c\n", "/\xc3\xa9", "/dev/vg/a-very-long-name-of-a-logical-volume-0123456789" };

	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		assert_true(vdi_id_is_valid(vdi_id_of_path(paths[i], id)));
}

static void what_is_no_operation_is_no_path_either(void **state UNUSED)
{
	static const char *const bad[] = { "", ".", "..", ".1", "0", "no-such-op", "../../../etc/passwd.1", "/etc-12345678.1", "a-12345678.",
					   "a-12345678.x", "a-12345678.1x", "a-1234567g.1", "a-12345678.123456789012345678", ".a-12345678.1",
					   "a\n-12345678.1", "0123456789012345678901234567890123456789-12345678.1" };
	char id[VDI_ID_MAX];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(vdi_id_of_operation(bad[i], id));
	assert_true(vdi_id_of_operation("a.b-12345678.1795479992487", id));
	assert_string_equal(id, "a.b-12345678");
}

static void what_is_no_key_is_no_path_either(void **state UNUSED)
{
	static const char *const bad[] = { "", ".", "..", "../x", "/x", "a/b", ".hidden", "sxm-sr", "a b", "a%b", "a\n",
					   "01234567890123456789012345678901234567890123456789012345678901234" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(meta_is_key(bad[i]));
	assert_true(meta_is_key("7428de2e-e180-4ec8-947b-6dd4a8288937"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_and_uris_are_each_others_reverse),
		cmocka_unit_test(every_common_form_of_a_file_uri_is_read),
		cmocka_unit_test(uris_that_name_no_local_path_are_refused),
		cmocka_unit_test(a_uri_names_a_place_in_whatever_spelling),
		cmocka_unit_test(where_a_uri_leads_cannot_always_be_told),
		cmocka_unit_test(a_place_has_one_name_whatever_leads_to_it),
		cmocka_unit_test(an_image_has_a_short_clean_name_of_its_own),
		cmocka_unit_test(what_is_no_operation_is_no_path_either),
		cmocka_unit_test(what_is_no_key_is_no_path_either),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
