/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What texts of xenstore mean to the broker, and that none of them means more than it says: XSA-175 and XSA-178, toolstacks that
 * believed what a guest had written, and paths made of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/facts.h"

static const struct facts_root root = { .domain = 0, .kind = "qdisk", .run_dir = "/run/sxm" };
static const struct broker_key key = { 5, 51712 };
static struct facts_value value[FACTS_KEYS];

static void put(enum facts_key which, const char *text)
{
	value[which].is_there = text != NULL;
	value[which].is_long = text && strlen(text) >= FACTS_VALUE_MAX;
	if (text && !value[which].is_long)
		strcpy(value[which].value, text);
}

static int plug(void **s)
{
	(void)s;
	memset(value, 0, sizeof(value));
	put(FACTS_FRONTEND, "/local/domain/5/device/vbd/51712");
	put(FACTS_FRONTEND_ID, "5");
	put(FACTS_ONLINE, "1");
	put(FACTS_MODE, "w");
	put(FACTS_STATE, "1");
	put(FACTS_FRONT_STATE, "1");
	return 0;
}

static struct broker_facts read_it(void)
{
	struct broker_facts f;

	facts_read(&f, &root, key, value);
	return f;
}

static enum broker_kind kind_of(const char *params)
{
	put(FACTS_PARAMS, params);
	return read_it().kind;
}

static void params_name_a_process_or_a_volume(void **s)
{
	(void)s;
	assert_int_equal(kind_of("nbd:unix:/run/sxm/d-12345678/nbd-0123abcd:exportname=d-12345678"), BROKER_PROCESS);
	assert_string_equal(read_it().name, "d-12345678");
	assert_int_equal(kind_of("sxm:///srv/sr/a%20b.raw"), BROKER_VOLUME);
	assert_int_equal(kind_of("aio:sxm:///srv/sr/a.raw"), BROKER_VOLUME);
	assert_string_equal(read_it().name, "sxm:///srv/sr/a.raw");
	assert_int_equal(kind_of(""), BROKER_EMPTY);
	assert_int_equal(kind_of(NULL), BROKER_EMPTY);
}

static void whatever_else_they_say_is_not_ours(void **s)
{
	static const char *const odd[] = {
		"aio:/dev/nbd0", "/dev/sda", "nbd:unix:/run/other/d/nbd-0123abcd:exportname=d",
		"nbd:unix:/run/sxm/../nbd-0123abcd:exportname=..", "nbd:unix:/run/sxm/.d/nbd-0123abcd:exportname=.d",
		"nbd:unix:/run/sxm/d/nbd-0123abcd:exportname=e", "nbd:unix:/run/sxm/d/nbd-0123abcd:exportname=d ",
		"nbd:unix:/run/sxm/d/nbd-0123ABCD:exportname=d", "nbd:unix:/run/sxm/d/x/nbd-0123abcd:exportname=d/x",
		"nbd:unix:/run/sxm//nbd-0123abcd:exportname=", "nbd:unix:/run/sxm/d/control:exportname=d",
		"nbd:unix:/run/sxm/a\nb/nbd-0123abcd:exportname=a\nb", "sxm:", "sxm://", "sxm://host/srv/a.raw", "aio:sxm://",
		"--help:sxm:///a", "sxm:///a b", "sxm:///a\n", "x:y:sxm:///a",
	};
	char longer[FACTS_VALUE_MAX + 8];

	(void)s;
	for (unsigned i = 0; i < ARRAY_LEN(odd); i++)
		if (kind_of(odd[i]) != BROKER_NOBODYS)
			fail_msg("%s", odd[i]);
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	memcpy(longer, "sxm:///", 7);
	assert_int_equal(kind_of(longer), BROKER_NOBODYS);
	longer[BROKER_NAME_MAX] = '\0';
	assert_int_equal(kind_of(longer), BROKER_NOBODYS);
	longer[BROKER_NAME_MAX - 1] = '\0';
	assert_int_equal(kind_of(longer), BROKER_VOLUME);
}

static void a_directory_is_about_the_guest_that_it_is_called_after_or_none(void **s)
{
	(void)s;
	assert_true(read_it().is_there);
	put(FACTS_FRONTEND, "/local/domain/6/device/vbd/51712");
	assert_false(read_it().is_there);
	put(FACTS_FRONTEND, "/local/domain/5/device/vbd/51712/../../../6/device/vbd/51712");
	assert_false(read_it().is_there);
	plug(NULL);
	put(FACTS_FRONTEND_ID, "6");
	assert_false(read_it().is_there);
	put(FACTS_FRONTEND_ID, "5x");
	assert_false(read_it().is_there);
	plug(NULL);
	put(FACTS_ONLINE, NULL); /* not all of it is there yet */
	assert_false(read_it().is_there);
	plug(NULL);
	put(FACTS_FRONTEND, NULL);
	assert_false(read_it().is_there);
}

static void of_the_guests_key_counts_whether_it_is_there_and_closed(void **s)
{
	char longer[FACTS_VALUE_MAX + 8];

	(void)s;
	assert_true(read_it().is_front_open);
	put(FACTS_FRONT_STATE, "6");
	assert_false(read_it().is_front_open);
	put(FACTS_FRONT_STATE, NULL);
	assert_false(read_it().is_front_open);
	memset(longer, '6', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	put(FACTS_FRONT_STATE, longer);
	assert_true(read_it().is_front_open);
}

static void a_device_is_read_only_unless_it_says_that_it_is_not(void **s)
{
	(void)s;
	assert_false(read_it().is_read_only);
	put(FACTS_MODE, NULL);
	assert_true(read_it().is_read_only);
	put(FACTS_MODE, "r");
	assert_true(read_it().is_read_only);
	put(FACTS_MODE, "W");
	assert_true(read_it().is_read_only);
}

static void a_path_is_about_one_device_a_domain_all_or_nothing(void **s)
{
	static const struct {
		const char *path;
		enum facts_about about;
	} row[] = {
		{ "/local/domain/0/backend/qdisk", FACTS_ALL }, { "/local/domain/0/backend/qdisk/5", FACTS_DOMAIN },
		{ "/local/domain/0/backend/qdisk/5/51712", FACTS_DEVICE }, { "/local/domain/0/backend/qdisk/5/51712/params", FACTS_DEVICE },
		{ "/local/domain/0/backend/qdisk/5/51712/online", FACTS_DEVICE },
		{ "/local/domain/0/backend/qdisk/5/51712/hotplug-status", FACTS_DEVICE },
		{ "/local/domain/0/backend/qdisk/5/51712/state", FACTS_NOTHING },
		{ "/local/domain/0/backend/qdisk/5/51712/sectors", FACTS_NOTHING },
		{ "/local/domain/0/backend/qdisk/5/51712/params/x", FACTS_NOTHING },
		{ "/local/domain/0/backend/qdisk2/5/51712", FACTS_NOTHING }, { "/local/domain/0/backend/vbd/5/51712", FACTS_NOTHING },
		{ "/local/domain/0/backend/qdisk/65536", FACTS_NOTHING }, { "/local/domain/0/backend/qdisk/-1/1", FACTS_NOTHING },
		{ "/local/domain/0/backend/qdisk/5/4294967296", FACTS_NOTHING }, { "/local/domain/0/backend/qdisk/5/", FACTS_NOTHING },
		{ "/local/domain/0/backend/qdisk/5x/1", FACTS_NOTHING }, { "", FACTS_NOTHING }, { "@releaseDomain", FACTS_NOTHING },
		{ "/local/domain/0/backend/qdisk/00000000000005/1", FACTS_NOTHING },
	};

	(void)s;
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct broker_key at = { 0 };

		if (facts_of_path(&root, row[i].path, &at) != row[i].about)
			fail_msg("%s", row[i].path);
		if (row[i].about == FACTS_DEVICE)
			assert_true(at.domain == 5 && at.device == 51712);
	}
}

static void rubbish_is_read_without_harm(void **s)
{
	(void)s;
	srand(1);
	for (unsigned n = 0; n < 200000; n++) {
		struct facts_value *v = &value[(unsigned)rand() % FACTS_KEYS];
		struct broker_facts f;
		struct broker_key at;
		size_t bytes = (size_t)rand() % (sizeof(v->value) - 1);

		plug(NULL);
		v->is_there = true;
		for (size_t i = 0; i < bytes; i++)
			v->value[i] = (char)(rand() % 3 ? "nbd:unix:/run/sxm/-0aexportname=sxm:///"[rand() % 38] : 1 + rand() % 255);
		v->value[bytes] = '\0';
		facts_read(&f, &root, key, value);
		assert_true(strnlen(f.name, sizeof(f.name)) < sizeof(f.name));
		facts_of_path(&root, v->value, &at);
	}
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup(t, plug)
	const struct CMUnitTest tests[] = {
		TEST(params_name_a_process_or_a_volume), TEST(whatever_else_they_say_is_not_ours),
		TEST(a_directory_is_about_the_guest_that_it_is_called_after_or_none),
		TEST(of_the_guests_key_counts_whether_it_is_there_and_closed),
		TEST(a_device_is_read_only_unless_it_says_that_it_is_not), TEST(a_path_is_about_one_device_a_domain_all_or_nothing),
		TEST(rubbish_is_read_without_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
