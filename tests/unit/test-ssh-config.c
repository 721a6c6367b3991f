/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ssh_config: the first value counts, in the sections that are about the host; what cannot be followed is said; no file makes the
 * check of a host's key laxer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "migrate/ssh-config.h"

static const char included[] = "User included\nHost other\nPort 99\n";

static int include(struct ssh_config *c, const struct ssh_config_source *s, const char *pattern, unsigned depth, struct error *e)
{
	struct ssh_config_source inner = *s;

	inner.file = pattern;
	if (strcmp(pattern, "self") == 0)
		return ssh_config_parse(c, &inner, "Include self\n", 13, depth, e);
	return ssh_config_parse(c, &inner, included, sizeof(included) - 1, depth, e);
}

static const struct ssh_config_source source = { .file = "config", .local_user = "me", .include = include };

static int parse(struct ssh_config *c, const char *host, const char *text, struct error *e)
{
	assert_int_equal(ssh_config_init(c, host, NULL, 0, e), 0);
	if (ssh_config_parse(c, &source, text, strlen(text), 0, e) == -1)
		return -1;
	return ssh_config_finish(c, "/home/me", "me", e);
}

static struct ssh_config good(const char *host, const char *text)
{
	struct ssh_config c;
	struct error e = { 0 };

	if (parse(&c, host, text, &e) == -1)
		fail_msg("%s", e.text);
	return c;
}

static void bad(const char *text, const char *why)
{
	struct ssh_config c;
	struct error e = { 0 };

	assert_int_equal(parse(&c, "host", text, &e), -1);
	if (!strstr(e.text, why))
		fail_msg("%s: not about %s", e.text, why);
	ssh_config_fini(&c);
}

static void nothing_said_has_defaults(void **state)
{
	struct ssh_config c = good("host", "");

	(void)state;
	assert_string_equal(c.host_name, "host");
	assert_string_equal(c.user, "me");
	assert_int_equal(c.port, 22);
	assert_int_equal(c.identity.count, 3);
	assert_string_equal(c.identity.path[0], "/home/me/.ssh/id_ed25519");
	assert_string_equal(c.user_known_hosts.path[0], "/home/me/.ssh/known_hosts");
	assert_null(c.jump);
	assert_false(c.is_strict);
	ssh_config_fini(&c);
}

static void the_first_value_counts_in_what_is_about_the_host(void **state)
{
	struct ssh_config c = good("far.example", "# comment\n"
						  "Host near far.other\n  Port 1\n"
						  "Host *.example !far.example\n  Port 2\n"
						  "Host \"far.*\"\n\tPort=3\r\n  HostName = %h.net\n  IdentityFile ~/a\n  IdentityFile /b-%r-%p\n"
						  "Host *\n  Port 4\n  User other\n  IdentityFile /c # mine\n"
						  "Match all\n  IdentitiesOnly yes\n");

	(void)state;
	assert_int_equal(c.port, 3);
	assert_string_equal(c.user, "other");
	assert_string_equal(c.host_name, "far.example.net");
	assert_int_equal(c.identity.count, 3);
	assert_string_equal(c.identity.path[0], "/home/me/a");
	assert_string_equal(c.identity.path[1], "/b-other-3");
	assert_string_equal(c.identity.path[2], "/c");
	assert_true(c.has_identities_only);
	ssh_config_fini(&c);
}

static void the_command_line_counts_before_every_file(void **state)
{
	struct ssh_config c;
	struct error e = { 0 };
	const char *text = "Port 3\nUser other\n";

	(void)state;
	assert_int_equal(ssh_config_init(&c, "host", "root", 2222, &e), 0);
	assert_int_equal(ssh_config_parse(&c, &source, text, strlen(text), 0, &e), 0);
	assert_int_equal(c.port, 2222);
	assert_string_equal(c.user, "root");
	ssh_config_fini(&c);
}

static void included_files_count_where_they_are_named(void **state)
{
	struct ssh_config c = good("host", "Host elsewhere\nInclude never\nHost host\nInclude more\nUser later\nPort 5\n");

	(void)state;
	assert_string_equal(c.user, "included");
	assert_int_equal(c.port, 5); /* what the included file begins ends with it */
	ssh_config_fini(&c);
	bad("Include self\n", "too deeply");
}

static void match_is_followed_as_far_as_it_asks_for_the_host(void **state)
{
	struct ssh_config c = good("host", "HostName real\nMatch host real\n User one\nMatch originalhost ho?t host real\n Port 7\n"
					   "Match exec \"true\"\n  ProxyCommand nc %h %p\n");

	(void)state;
	assert_string_equal(c.user, "one");
	assert_int_equal(c.port, 7);
	assert_string_equal(c.cannot, "");
	assert_int_equal(c.note_count, 1);
	assert_non_null(strstr(c.notes[0], "config, line 6"));
	ssh_config_fini(&c);
}

static void what_cannot_be_followed_is_said(void **state)
{
	struct ssh_config c = good("host", "Port 3\nProxyCommand nc %h %p\nCertificateFile /x\n");

	(void)state;
	assert_non_null(strstr(c.cannot, "config, line 2: ProxyCommand"));
	assert_non_null(strstr(c.cannot, "--carrier ssh"));
	assert_int_equal(c.note_count, 1);
	ssh_config_fini(&c);
	c = good("host", "ProxyJump a\nProxyCommand nc\nRevokedHostKeys none\n");
	assert_string_equal(c.cannot, "");
	assert_string_equal(c.jump, "a");
	ssh_config_fini(&c);
	c = good("host", "RevokedHostKeys /x\n");
	assert_non_null(strstr(c.cannot, "RevokedHostKeys"));
	ssh_config_fini(&c);
}

static void no_file_makes_the_check_of_a_key_laxer(void **state)
{
	static const char *const lax[] = { "no", "off", "accept-new", "ask", "nonsense" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lax); i++) {
		char text[64];
		struct ssh_config c;

		snprintf(text, sizeof(text), "StrictHostKeyChecking %s\nStrictHostKeyChecking yes\n", lax[i]);
		c = good("host", text);
		assert_false(c.is_strict); /* asked about: never taken without */
		ssh_config_fini(&c);
	}
	{
		struct ssh_config c = good("host", "StrictHostKeyChecking yes\n");

		assert_true(c.is_strict);
		ssh_config_fini(&c);
	}
}

static void what_is_wrong_is_said_with_its_line(void **state)
{
	(void)state;
	bad("\nPort none\n", "line 2: Port");
	bad("Port 0\n", "line 1: Port");
	bad("Port 65536\n", "line 1: Port");
	bad("User\n", "line 1: User");
	bad("IdentityFile \"/x\n", "quote");
	bad("IdentityFile /%q\n", "%q");
	bad("HostName -oProxyCommand=x\n", "no name or address");
	bad("HostName a;b\n", "no name or address");
	bad("User -l\n", "no name of a user");
}

static void names_that_a_program_could_misread_are_refused(void **state)
{
	static const char *const hosts[] = { "", "-o", "a b", "a;b", "$(x)", "a/b", "a\nb", "a@b" };
	struct ssh_config c;
	struct error e = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
		assert_int_equal(ssh_config_init(&c, hosts[i], NULL, 0, &e), -1);
	assert_int_equal(ssh_config_init(&c, "host", "-x", 0, &e), -1);
	assert_int_equal(ssh_config_init(&c, "host", "a b", 0, &e), -1);
	assert_int_equal(ssh_config_init(&c, "fe80::1%eth0", "DOM\\some.one", 0, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_said_has_defaults),
		cmocka_unit_test(the_first_value_counts_in_what_is_about_the_host),
		cmocka_unit_test(the_command_line_counts_before_every_file),
		cmocka_unit_test(included_files_count_where_they_are_named),
		cmocka_unit_test(match_is_followed_as_far_as_it_asks_for_the_host),
		cmocka_unit_test(what_cannot_be_followed_is_said),
		cmocka_unit_test(no_file_makes_the_check_of_a_key_laxer),
		cmocka_unit_test(what_is_wrong_is_said_with_its_line),
		cmocka_unit_test(names_that_a_program_could_misread_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
