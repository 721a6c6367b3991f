/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ssh-config - what an ssh_config says about one host, as far as a library that is no OpenSSH can follow it
 *
 *      ssh_config_init(&c, host, user, port) -> ssh_config_read() of the user's file, then of the system's -> ssh_config_finish()
 *
 * As there, the first value that is found counts; what the command line said counts before any file.  Followed: Host
 * (patterns, negated ones too), Match all/host/originalhost, Include, HostName, User, Port, IdentityFile, IdentitiesOnly,
 * IdentityAgent, ProxyJump, UserKnownHostsFile, GlobalKnownHostsFile, HostKeyAlias, StrictHostKeyChecking, ConnectTimeout,
 * AddressFamily, Ciphers, MACs, KexAlgorithms, HostKeyAlgorithms, and which ways to authenticate are switched off.
 * Not followed, and said: see `cannot` and `notes`.  Every other word is passed over.
 */
#ifndef SXM_MIGRATE_SSH_CONFIG_H
#define SXM_MIGRATE_SSH_CONFIG_H

#include "base/compiler.h"
#include "base/error.h"

#define SSH_CONFIG_NAME_MAX 256u /* bytes of a host's or user's name with its NUL */
#define SSH_CONFIG_FILES_MAX 16u /* of one kind */
#define SSH_CONFIG_NOTES_MAX 8u
#define SSH_CONFIG_DEPTH_MAX 8u  /* of Include */
#define SSH_CONFIG_FILE_MAX_BYTES (1u * 1024 * 1024)

struct ssh_config_files {
	char *path[SSH_CONFIG_FILES_MAX]; /* owned */
	size_t count;
	bool is_said; /* somebody gave at least one; "none" leaves the count at 0 */
};

struct ssh_config {
	/* What was asked for. */
	char host[SSH_CONFIG_NAME_MAX];      /* as the command line has it */
	/* What comes of it. */
	char host_name[SSH_CONFIG_NAME_MAX]; /* where to connect to */
	char user[SSH_CONFIG_NAME_MAX];
	unsigned port;
	struct ssh_config_files identity, user_known_hosts, global_known_hosts;
	char *identity_agent; /* owned; NULL: not said, "none", or a path */
	char *jump;           /* owned; NULL or "none": there is none */
	char host_key_alias[SSH_CONFIG_NAME_MAX];
	char *ciphers, *macs, *kex, *host_key_algorithms; /* owned; NULL: not said */
	unsigned connect_timeout_s;                       /* 0: not said */
	bool is_strict;            /* StrictHostKeyChecking yes: an unknown key is refused, nobody is asked */
	bool has_identities_only;
	bool has_no_public_key, has_no_password, has_no_keyboard; /* switched off */
	int address_family;        /* 0: any; 4, 6 */
	/* The first thing without which the host must not be reached, as the sentence that says so; "": there is none. */
	char cannot[240];
	/* What was passed over though it may matter. */
	char *notes[SSH_CONFIG_NOTES_MAX]; /* owned */
	size_t note_count;
	uint64_t seen; /* ssh-config.c's: which words have their value */
};

/* user: NULL, port: 0: not said. -1 + e: names that are none (ssh_config_is_host, _is_user). */
int ssh_config_init(struct ssh_config *c, const char *host, const char *user, unsigned port, struct error *e);
void ssh_config_fini(struct ssh_config *c);

/* What an Include names is the caller's to find: he calls ssh_config_parse() with the same c and depth for each file of the
 * pattern, in order. */
struct ssh_config_source {
	const char *file; /* for sentences */
	const char *local_user;
	int (*include)(struct ssh_config *c, const struct ssh_config_source *s, const char *pattern, unsigned depth,
		       struct error *e); /* NULL: there is nothing to include */
	void *arg;
};
/* One file's text. Pure. -1 + e: a line that cannot be understood. */
int ssh_config_parse(struct ssh_config *c, const struct ssh_config_source *s, const char *text, size_t bytes, unsigned depth,
		     struct error *e);
/* Defaults, tokens (%h %n %p %r %u %d %%) and ~. -1 + e: what comes of it is no host or user. */
int ssh_config_finish(struct ssh_config *c, const char *home, const char *local_user, struct error *e);

/* The user's file (NULL: ~/.ssh/config, which may be absent) and the system's (only where file is NULL), and the defaults.
 * Blocks. As all three above. */
int ssh_config_load(struct ssh_config *c, const char *file, struct error *e);

/* Only characters that are in names and addresses, no leading dash: safe as an argument of a program. */
bool ssh_config_is_host(const char *name);
bool ssh_config_is_user(const char *name);

/* A list of patterns (* ? and ! before one) against a name, without regard to case; separated by commas. */
bool ssh_config_matches(const char *patterns, size_t bytes, const char *name);

#endif
