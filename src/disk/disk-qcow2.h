/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-qcow2 - an image *.qcow2: the qemu process that serves it, to this disk alone (private to this room)
 */
#ifndef SXM_DISK_DISK_QCOW2_H
#define SXM_DISK_DISK_QCOW2_H

#include <stdatomic.h>
#include <sys/types.h>

#include "disk/disk-file.h"
#include "qcow2/qcow2-chain.h"

/* The image, and where its server is found. Every function that takes one blocks. */
struct disk_qcow2 {
	char *path, *run_dir;  /* owned */
	char *uri;             /* owned: of the export, as disk-nbd-open.c takes it */
	int dir_fd;            /* owned: the image's directory */
	int fd;                /* owned: the image; its description carries the lock, unless must_lock; on NFS qemu's own may */
	bool must_lock;        /* a server of an earlier process has the lock, and cannot be asked for it */
	bool is_read_only, is_direct;
};

/* --- disk-qcow2.c */

bool disk_qcow2_is_named(const char *path);
/* As disk_nbd_open(): opens, checks, locks the image, or takes up the server that an earlier process left; f->nbd is the
 * export. */
int disk_qcow2_open(struct disk_file *f, const struct disk_spec *spec, struct error *e);
/* One that lives on its own, over the same description. NULL: out of memory or descriptors. From the loop: does not block. */
struct disk_qcow2 *disk_qcow2_copy(const struct disk_qcow2 *s);
void disk_qcow2_free(struct disk_qcow2 *s); /* NULL allowed; the server stays. Does not block. */
/* Sees that a server runs: 1, one was started; 0: it does already. was_lost: what an earlier one had acknowledged may be gone: is
 * kept on record. -1 + e: ECANCELED. */
int disk_qcow2_run(struct disk_qcow2 *s, bool was_lost, atomic_bool *is_cancelled, struct error *e);
/* Its export was reached: from now on its death may lose something. */
int disk_qcow2_served(struct disk_qcow2 *s, struct error *e);
/* It could not be reached: ends what runs, and puts what the server said before the sentence in e, where it said anything.
 * True: another one would be started in another way. */
bool disk_qcow2_give_up(struct disk_qcow2 *s, struct error *e);

/* --- disk-qcow2-server.c: the process, and what is on record of it */

struct disk_server {
	pid_t pid;
	char *started;         /* owned: when, as the kernel tells it: with the pid it is one process and no other */
	int64_t dev, ino;      /* of the image */
	bool is_read_only;
	bool is_served;        /* a client was let in */
	bool was_lost;         /* an earlier one died with what it had not stored */
};

/* In run_dir. False: none is on record. */
bool disk_server_load(const char *run_dir, struct disk_server *s);
int disk_server_save(const char *run_dir, const struct disk_server *s, struct error *e);
void disk_server_clear(struct disk_server *s);
bool disk_server_is_alive(const struct disk_server *s);
/* False: it still lives after so long. Blocks. */
bool disk_server_ends_within(const struct disk_server *s, unsigned ms);
/* Its own description of the image gets the lock, and becomes s->fd: so its writes carry the lock's state (src/vdi/OWNERSHIP, 4).
 * Where the kernel does not give it everything stays, and the log says so. -1 + e: EBUSY, somebody else got it in between. */
int disk_qcow2_move_lock(struct disk_qcow2 *s, const struct disk_server *server, struct error *e);
/* Starts one; what it is stands on record before it does anything. s: dev to was_lost are given, the rest is filled in. */
int disk_server_start(const struct disk_qcow2 *image, const struct qcow2_chain *c, struct disk_server *s, struct error *e);
/* Ends it cleanly, waits for that; then it is off the record. */
int disk_server_end(const char *run_dir, struct disk_server *s, struct error *e);
/* Now, with what it has not written; nobody waits for its end. */
void disk_server_kill(const struct disk_server *s);
/* The very description of the image that the server has; -1: the kernel does not give it. */
int disk_server_take_fd(const struct disk_server *s);
/* The description that qemu itself has opened of the image, to write; -1: there is none, or the kernel does not give it. */
int disk_server_own_fd(const struct disk_server *s);
/* The last line that it wrote; heap; NULL: none. */
char *disk_server_words(const char *run_dir);
/* Nobody else starts or ends one of run_dir until the descriptor is closed. -1 + e. */
int disk_server_lock(const char *run_dir, struct error *e);
/* RUN_DIR/qcow2.sock; -1 + e: too long for a socket. */
int disk_server_socket(const char *run_dir, char path[static 108], struct error *e);

/* --- disk-qcow2-command.c: how it is started */

#define DISK_SERVER_IMAGE_FD 3   /* in the server: the image, */
#define DISK_SERVER_SOCKET_FD 4  /* the listening socket, */
#define DISK_SERVER_BASE_FD 5    /* and its bases, in order */

struct disk_command {
	const char *program;   /* static, or of the environment */
	char *argument[16];    /* ends with a NULL */
	char *owned[8];        /* owned: those of them that are on the heap */
	size_t count, owned_count;
	bool takes_socket;     /* listening, as DISK_SERVER_SOCKET_FD; else it binds one itself */
};

/* -1 + e: there is no such program, or no memory. Frees nothing on failure: disk_command_clear(). */
int disk_command_fill(struct disk_command *c, const struct disk_qcow2 *image, const struct qcow2_chain *chain, const char *socket,
		      struct error *e);
void disk_command_clear(struct disk_command *c);
bool disk_command_is_on_nfs(int fd);
/* words: of a qemu that ended at once. True: it does not know how its requests were to go; the next one is not asked to. */
bool disk_command_do_without(const char *words);

#endif
