/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * known_hosts: whose key it is, and which line says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "migrate/known-hosts.h"

/* Keys as they come from a host: a type, and bytes that differ. */
static const uint8_t ed_a[] = "\0\0\0\x0bssh-ed25519\0\0\0\x04" "AAAA";
static const uint8_t ed_b[] = "\0\0\0\x0bssh-ed25519\0\0\0\x04" "BBBB";
#define ED_A "AAAAC3NzaC1lZDI1NTE5AAAABEFBQUE="
#define ED_B "AAAAC3NzaC1lZDI1NTE5AAAABEJCQkI="

static bool hash_matches(void *arg, const char *name, const char *salt, const char *hash)
{
	(void)arg;
	return strcmp(name, "host") == 0 && strcmp(salt, "salt=") == 0 && strcmp(hash, "hash=") == 0;
}

static struct known_found search(const char *text, const char *name, const uint8_t *key)
{
	const struct known_query q = { .name = name, .key = key, .key_bytes = sizeof(ed_a) - 1, .hash_matches = hash_matches };
	struct known_found f = { 0 };

	known_hosts_search(text, strlen(text), &q, &f);
	return f;
}

static void verdict_is(const char *text, const char *name, const uint8_t *key, enum known_verdict verdict, unsigned line)
{
	struct known_found f = search(text, name, key);

	assert_int_equal(f.verdict, verdict);
	assert_int_equal(f.line, line);
}

static void a_key_is_the_hosts_or_is_not(void **state)
{
	const char *text = "# comment\n\nother ssh-ed25519 " ED_A "\nhost,10.0.0.1 ssh-ed25519 " ED_A " root@host\n";

	(void)state;
	verdict_is(text, "host", ed_a, KNOWN_SAME, 4);
	verdict_is(text, "10.0.0.1", ed_a, KNOWN_SAME, 4);
	verdict_is(text, "host", ed_b, KNOWN_CHANGED, 4);
	verdict_is(text, "hosts", ed_a, KNOWN_NOT, 0);
	verdict_is("", "host", ed_a, KNOWN_NOT, 0);
}

static void one_of_several_keys_of_a_host_is_enough(void **state)
{
	(void)state;
	verdict_is("host ssh-ed25519 " ED_B "\nhost ssh-ed25519 " ED_A "\n", "host", ed_a, KNOWN_SAME, 2);
	verdict_is("host ssh-rsa AAAAB3\n", "host", ed_a, KNOWN_OTHER, 1);
	assert_string_equal(search("host ssh-rsa AAAAB3\nhost ssh-ed25519 " ED_B "\nhost ssh-rsa AAAAB4\n", "host", ed_a).types,
			    "ssh-rsa,ssh-ed25519");
}

static void a_revoked_key_is_nobodys_whatever_else_is_said(void **state)
{
	(void)state;
	verdict_is("host ssh-ed25519 " ED_A "\n@revoked * ssh-ed25519 " ED_A "\n", "host", ed_a, KNOWN_REVOKED, 2);
	verdict_is("@revoked * ssh-ed25519 " ED_B "\nhost ssh-ed25519 " ED_A "\n", "host", ed_a, KNOWN_SAME, 2);
}

static void authorities_and_unknown_markers_make_no_key_known(void **state)
{
	struct known_found f = search("@cert-authority host ssh-ed25519 " ED_A "\n@else host ssh-ed25519 " ED_A "\n", "host", ed_a);

	(void)state;
	assert_int_equal(f.verdict, KNOWN_NOT);
	assert_true(f.has_authority);
}

static void names_may_be_patterns_negated_or_hashed(void **state)
{
	(void)state;
	verdict_is("*.example,!bad.example ssh-ed25519 " ED_A "\n", "good.example", ed_a, KNOWN_SAME, 1);
	verdict_is("*.example,!bad.example ssh-ed25519 " ED_A "\n", "bad.example", ed_a, KNOWN_NOT, 0);
	verdict_is("|1|salt=|hash= ssh-ed25519 " ED_A "\n", "host", ed_a, KNOWN_SAME, 1);
	verdict_is("|1|salt=|hash= ssh-ed25519 " ED_B "\n", "host", ed_a, KNOWN_CHANGED, 1);
	verdict_is("|1|salt= ssh-ed25519 " ED_A "\n", "host", ed_a, KNOWN_NOT, 0);
	verdict_is("[host]:2222 ssh-ed25519 " ED_A "\n", "[host]:2222", ed_a, KNOWN_SAME, 1);
	verdict_is("host ssh-ed25519 " ED_A "\n", "[host]:2222", ed_a, KNOWN_NOT, 0);
}

static void what_is_saved_is_known(void **state)
{
	struct error e = { 0 };
	char name[KNOWN_HOSTS_NAME_MAX];
	char *line;

	(void)state;
	assert_true(known_hosts_name("Host", 2222, name));
	assert_string_equal(name, "[host]:2222");
	line = known_hosts_line(name, ed_a, sizeof(ed_a) - 1, &e);
	assert_string_equal(line, "[host]:2222 ssh-ed25519 " ED_A "\n");
	verdict_is(line, name, ed_a, KNOWN_SAME, 1);
	free(line);
	assert_null(known_hosts_line(name, (const uint8_t *)"\0\0\0\x09x", 5, &e));
}

static void a_fingerprint_is_shown_as_ssh_keygen_does(void **state)
{
	uint8_t digest[32] = { 0xfb, 0xff };
	char text[KNOWN_HOSTS_FINGERPRINT_MAX];

	(void)state;
	known_hosts_fingerprint(digest, text);
	assert_string_equal(text, "SHA256:+/8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_is_the_hosts_or_is_not),
		cmocka_unit_test(one_of_several_keys_of_a_host_is_enough),
		cmocka_unit_test(a_revoked_key_is_nobodys_whatever_else_is_said),
		cmocka_unit_test(authorities_and_unknown_markers_make_no_key_known),
		cmocka_unit_test(names_may_be_patterns_negated_or_hashed),
		cmocka_unit_test(what_is_saved_is_known),
		cmocka_unit_test(a_fingerprint_is_shown_as_ssh_keygen_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
