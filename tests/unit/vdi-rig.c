/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi-rig - see vdi-rig.h
 */
#include "tests/unit/vdi-rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/slots.h"
#include "block/req.h"

char rig_dir[] = "/tmp/sxm-vdi-XXXXXX";
static char image[64];
static struct loop *loop;
struct vdi *rig_vdi;
unsigned rig_emptied, rig_lost, rig_linger_ms, rig_envoy_ms, rig_expect_ms;
static struct loop_timer *deadline;

static void on_empty(void *arg)
{
	(void)arg;
	rig_emptied++;
}

static void on_lost(void *arg)
{
	(void)arg;
	rig_lost++;
}

void rig_answer(void *arg, const struct error *e)
{
	struct answer *a = arg;

	a->count++;
	a->e = e ? *e : (struct error){ 0 };
	loop_stop(loop);
}

static void on_deadline(void *arg)
{
	(void)arg;
	fail_msg("no answer within 60 s; trace: %s", fake.trace);
}

/* Runs the loop until everyone of these has been rig_answered. */
static void wait_for(const struct answer *a)
{
	loop_timer_set(deadline, 60000);
	while (!a->count)
		loop_run(loop);
	loop_timer_clear(deadline);
}

static void stop_loop(struct loop_task *t)
{
	(void)t;
	loop_stop(loop);
}

void rig_turn(void)
{
	static struct loop_task task = { .run = stop_loop };

	loop_defer(loop, &task);
	loop_run(loop);
}

void rig_arm(void)
{
	loop_timer_set(deadline, 60000);
}

void rig_disarm(void)
{
	loop_timer_clear(deadline);
}

int rig_answered(const struct answer *a)
{
	wait_for(a);
	assert_int_equal(a->count, 1);
	return a->e.err;
}

int rig_activate(const char *domain, bool is_read_only)
{
	struct answer a = { 0 };

	vdi_activate(rig_vdi, domain, is_read_only, false, rig_answer, &a);
	return rig_answered(&a);
}

int rig_deactivate(const char *domain)
{
	struct answer a = { 0 };

	vdi_deactivate(rig_vdi, domain, rig_answer, &a);
	return rig_answered(&a);
}

int rig_detach(const char *domain)
{
	struct answer a = { 0 };

	vdi_detach(rig_vdi, domain, rig_answer, &a);
	return rig_answered(&a);
}

static int begin(void)
{
	const struct vdi_spec spec = { .loop = loop, .id = "disk", .path = image, .run_dir = rig_dir, .on_empty = on_empty, .on_lost = on_lost,
				       .linger_ms = rig_linger_ms, .envoy_ms = rig_envoy_ms, .expect_ms = rig_expect_ms };
	struct error e = { 0 };
	struct answer a = { 0 };

	snprintf(image, sizeof(image), "%s/fake", rig_dir);
	rig_vdi = vdi_new(&spec, &e);
	assert_non_null(rig_vdi);
	vdi_resume(rig_vdi, rig_answer, &a);
	return rig_answered(&a);
}

void rig_begin(void)
{
	assert_int_equal(begin(), 0);
}

void rig_begin_badly(void)
{
	assert_int_not_equal(begin(), 0);
}

void rig_stop(void)
{
	struct answer a = { 0 };

	vdi_stop(rig_vdi, rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	vdi_free(rig_vdi);
	rig_vdi = NULL;
}

int rig_set_up(void **state)
{
	(void)state;
	loop = loop_new();
	req_init(loop);
	deadline = loop_timer_new(loop, on_deadline, NULL);
	fake_reset(loop);
	rig_emptied = rig_lost = rig_linger_ms = rig_envoy_ms = rig_expect_ms = 0;
	rig_begin();
	return 0;
}

int rig_tear_down(void **state)
{
	char path[128];

	(void)state;
	if (rig_vdi)
		rig_stop();
	snprintf(path, sizeof(path), "%s/domains.json", rig_dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/fake.owner", rig_dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/fake.mirror", rig_dir);
	unlink(path);
	loop_timer_free(deadline);
	req_fini();
	loop_free(loop);
	return 0;
}

static bool is_in(const char *file, const char *text)
{
	char path[128], *json;
	bool is_there;

	snprintf(path, sizeof(path), "%s/%s", rig_dir, file);
	json = proc_read_file(path, 65536, NULL, NULL);
	is_there = json && strstr(json, text);

	free(json);
	return is_there;
}

bool rig_is_on_file(const char *text)
{
	return is_in("domains.json", text);
}

bool rig_is_owned(const char *text)
{
	char path[128], *json;
	bool is_there;
	size_t bytes;

	snprintf(path, sizeof(path), "%s/fake.owner", rig_dir);
	json = slots_read(path, &bytes, NULL);
	is_there = json && strstr(json, text);
	free(json);
	return is_there;
}

static int remove_dir(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", rig_dir);
	return system(command) == 0 ? 0 : -1;
}

int rig_group(const char *name, const struct CMUnitTest *tests, size_t count)
{
	setenv("SXM_LOG", "stderr", 1);
	if (!mkdtemp(rig_dir))
		return 1;
	setenv("SXM_RUN_DIR", rig_dir, 1);
	unsetenv("SXM_STATE_DIR");
	return _cmocka_run_group_tests(name, tests, count, NULL, remove_dir);
}
