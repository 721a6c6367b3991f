/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-hosts - two hosts as a journey sees them: what their relays answer, and what is so afterwards
 *
 * The world is memory that all processes of the test share. A relay is a process for each channel, forked. Whoever drives the
 * journey dies at the n-th question: before it is done, or when it is done and before that is said.
 */
#ifndef SXM_TESTS_FAKE_HOSTS_H
#define SXM_TESTS_FAKE_HOSTS_H

#include <stdatomic.h>
#include <sys/types.h>

#include "migrate/carrier.h"
#include "migrate/peer.h"

#define HOSTS_DISKS 2

enum here { HERE_OWNED, HERE_OFFERED, HERE_GIVEN };
enum far { FAR_NONE, FAR_MADE, FAR_RECEIVING, FAR_ELIGIBLE, FAR_INCOMPLETE, FAR_STARTED };

struct hosts_disk {
	enum here here;
	uint64_t epoch, version; /* version: of the guest's last write */
	char group[64], writer[32], kept[64];
	bool has_mirror, is_lost; /* lost: its link went, and it is remembered */
	pid_t linked_to;          /* the driver whose socket its link goes over */
	unsigned looks;           /* at it, since that is there */
	enum far there;
	uint64_t far_epoch, far_version;
	bool is_named, is_undone, is_receiver_there;
};

struct hosts {
	atomic_flag busy;
	struct hosts_disk disk[HOSTS_DISKS];
	pid_t driver;
	unsigned questions, dies_at; /* 0: never */
	bool dies_after;             /* it is done, and not answered */
	bool has_died;
	unsigned link_takes;         /* so many looks */
};

extern struct hosts *hosts; /* shared */
void hosts_begin(void);     /* maps it, once */
void hosts_reset(void);

peer_channel_fn hosts_channel_here;
/* A carrier to the far one. */
struct carrier *hosts_carrier(void);

/* --- what persons do, while nobody drives the journey */
void hosts_take_back(size_t i);  /* sxm epoch take --force, and the guest goes on here */
void hosts_shut_down(size_t i);  /* the guest's domain is deactivated: that hands a mirrored disk over */
void hosts_start_there(size_t i);

#endif
