/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cmd/plug.h"

static struct xenstore_steps steps;

static void a_device_has_the_number_that_xen_gives_it(void **state UNUSED)
{
	static const struct { const char *name; uint32_t device; } rows[] = {
		{ "xvda", 51712 }, { "xvdb", 51728 }, { "xvdb1", 51729 }, { "xvdp15", 51967 }, { "xvdq", 268439552 },
		{ "xvdaa", (1u << 28) + (26 << 8) }, { "xvda16", (1u << 28) + 16 }, { "sda", 2048 }, { "sdb3", 2067 },
		{ "hda", 768 }, { "hdb", 832 }, { "hdc", 5632 }, { "hdd1", 5697 }, { "51712", 51712 }, { "0", 0 },
	};
	uint32_t device;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_true(plug_device(rows[i].name, &device));
		assert_int_equal(device, rows[i].device);
	}
}

static void what_is_no_device_is_none(void **state UNUSED)
{
	static const char *const names[] = { "", "xvd", "xvdB", "xvda0", "xvda01", "xvda256", "sdq", "sda16", "hde", "hda64", "vda",
					     "xvdaaaaa", "-1", "1e3", "99999999999", "xvda/../b", "sd" };
	uint32_t device;

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (plug_device(names[i], &device))
			fail_msg("%s was taken for a device", names[i]);
}

static void a_devices_name_is_what_it_was_called(void **state UNUSED)
{
	static const char *const names[] = { "xvda", "xvdb1", "xvdz", "xvdaa", "xvdzz", "sdc", "sdc4" };
	uint32_t device;
	char name[16];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		assert_true(plug_device(names[i], &device));
		plug_device_name(device, name);
		assert_string_equal(name, names[i]);
	}
	plug_device_name(5632, name);
	assert_string_equal(name, "5632");
}

static void a_domain_is_a_number_that_a_guest_may_have(void **state UNUSED)
{
	uint16_t domain;

	assert_true(plug_domain("0", &domain) && domain == 0);
	assert_true(plug_domain("32751", &domain) && domain == 32751);
	assert_false(plug_domain("32752", &domain) || plug_domain("", &domain) || plug_domain("5 ", &domain) ||
		     plug_domain("-5", &domain) || plug_domain("65541", &domain));
}

static const struct xenstore_step *find(const char *path)
{
	for (unsigned i = 0; i < steps.count; i++)
		if (strcmp(steps.step[i].path, path) == 0)
			return &steps.step[i];
	fail_msg("%s is not written", path);
	return NULL;
}

#define BACK "/local/domain/0/backend/qdisk/5/51728"
#define FRONT "/local/domain/5/device/vbd/51728"

static void both_ends_point_at_each_other_and_each_is_its_owners(void **state UNUSED)
{
	struct plug p;

	plug_init(&p, 5, 51728, "qdisk");
	plug_attach(&p, "nbd:unix:/s:exportname=e", true, false, &steps);
	assert_string_equal(find(BACK "/frontend")->value, FRONT);
	assert_string_equal(find(BACK "/frontend-id")->value, "5");
	assert_string_equal(find(BACK "/mode")->value, "r");
	assert_string_equal(find(BACK "/params")->value, "nbd:unix:/s:exportname=e");
	assert_string_equal(find(BACK "/dev")->value, "xvdb");
	assert_string_equal(find(FRONT "/backend")->value, BACK);
	assert_string_equal(find(FRONT "/virtual-device")->value, "51728");
	assert_true(find(BACK)->what == XENSTORE_MAKE && find(BACK)->owner == 0 && find(BACK)->reader == 5);
	assert_true(find(FRONT)->what == XENSTORE_MAKE && find(FRONT)->owner == 5 && find(FRONT)->reader == 0);
	/* Permissions come before what has them, and a guest that sees its state sees all the rest. */
	assert_true(find(BACK) < find(BACK "/frontend") && find(FRONT) < find(FRONT "/backend"));
	assert_ptr_equal(find(FRONT "/state"), &steps.step[steps.count - 1]);
}

static void libxl_has_its_own_record_where_it_made_the_domain(void **state UNUSED)
{
	struct plug p;

	plug_init(&p, 5, 51728, "qdisk");
	plug_attach(&p, "x", false, true, &steps);
	assert_string_equal(find("/libxl/5/device/vbd/51728/backend")->value, BACK);
	assert_string_equal(find("/libxl/5/device/vbd/51728/type")->value, "qdisk");
	plug_remove(&p, &steps);
	assert_int_equal(find("/libxl/5/device/vbd/51728")->what, XENSTORE_REMOVE);
	assert_int_equal(find("/local/domain/0/backend/qdisk/5")->what, XENSTORE_PRUNE);
	plug_init(&p, 5, 51728, "mirrored"); /* a kind that libxl would stumble over */
	plug_attach(&p, "x", false, true, &steps);
	for (unsigned i = 0; i < steps.count; i++)
		assert_true(strncmp(steps.step[i].path, "/libxl", 6) != 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_has_the_number_that_xen_gives_it),
		cmocka_unit_test(what_is_no_device_is_none),
		cmocka_unit_test(a_devices_name_is_what_it_was_called),
		cmocka_unit_test(a_domain_is_a_number_that_a_guest_may_have),
		cmocka_unit_test(both_ends_point_at_each_other_and_each_is_its_owners),
		cmocka_unit_test(libxl_has_its_own_record_where_it_made_the_domain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
