/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-nbd-fence - is a server still busy with a client that is gone?
 *
 * A lock on a file says when a dead process' I/O is over (disk-open.c).  No lock says that of requests which lie in a socket:
 *
 *      process 1     write A ----> [socket, server's queue] . . . . . . . . . . . . . . . . . . . A reaches the medium
 *                    killed
 *      process 2                  connects, repeats A, is answered; writes B there, is answered       ... over B
 *
 * The same when our own link broke.  NBD has no word for it, but the server's end of a unix socket has: it lives, without a
 * peer, until the server has closed it, and a server closes a connection when its requests have ended.  The kernel lists
 * these sockets (sock_diag), each under the name that the server is bound to.
 *
 *      ours, new            name = the server's, peer = an inode
 *      an orphan            name = the server's, peer = none
 *
 * What can fail: a kernel without unix_diag does not tell; a server in another network namespace is not listed and looks idle.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "disk/disk-nbd.h"

#define ANSWER_BYTES (32 * 1024u)

struct name {
	struct sockaddr_un address;
	size_t bytes; /* of sun_path */
};

static int ask(int fd)
{
	struct {
		struct nlmsghdr head;
		struct unix_diag_req body;
	} question = {
		.head = { .nlmsg_len = sizeof(question), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.body = { .sdiag_family = AF_UNIX, .udiag_states = 1u << TCP_ESTABLISHED,
			  .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER },
	};

	return send(fd, &question, sizeof(question), 0) == (ssize_t)sizeof(question) ? 0 : -1;
}

static bool is_orphan(const struct nlmsghdr *head, const struct name *name)
{
	const struct unix_diag_msg *body = NLMSG_DATA(head);
	const struct nlattr *attribute = (const void *)(body + 1);
	size_t left = head->nlmsg_len - NLMSG_LENGTH(sizeof(*body));
	bool is_named = false, has_peer = false;

	while (left >= sizeof(*attribute) && attribute->nla_len >= sizeof(*attribute) && attribute->nla_len <= left) {
		const void *value = attribute + 1;
		size_t bytes = attribute->nla_len - sizeof(*attribute), step = NLMSG_ALIGN((size_t)attribute->nla_len);
		uint32_t peer = 0;

		if (attribute->nla_type == UNIX_DIAG_NAME)
			is_named = bytes == name->bytes && memcmp(value, name->address.sun_path, bytes) == 0;
		if (attribute->nla_type == UNIX_DIAG_PEER && bytes == sizeof(peer))
			memcpy(&peer, value, sizeof(peer));
		has_peer |= peer != 0;
		left -= MIN(step, left);
		attribute = (const void *)((const char *)attribute + step);
	}
	return is_named && !has_peer;
}

/* One datagram of the answer. True: the last. */
static bool count_some(const char *answer, size_t bytes, const struct name *name, int *count)
{
	const struct nlmsghdr *head = (const void *)answer;

	for (; NLMSG_OK(head, bytes); head = NLMSG_NEXT(head, bytes)) {
		if (head->nlmsg_type == NLMSG_ERROR)
			*count = -1;
		if (head->nlmsg_type == NLMSG_ERROR || head->nlmsg_type == NLMSG_DONE)
			return true;
		if (head->nlmsg_len >= NLMSG_LENGTH(sizeof(struct unix_diag_msg)) && is_orphan(head, name))
			++*count;
	}
	return false;
}

int disk_nbd_orphans(int fd)
{
	CLEANUP_CLOSE int diag = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	CLEANUP_FREE char *answer = malloc(ANSWER_BYTES);
	const struct timeval patience = { .tv_sec = 1 };
	struct name name = { 0 };
	socklen_t bytes = sizeof(name.address);
	bool is_over = false;
	int count = 0;

	if (diag < 0 || !answer || getpeername(fd, (struct sockaddr *)&name.address, &bytes) == -1 ||
	    name.address.sun_family != AF_UNIX || bytes <= offsetof(struct sockaddr_un, sun_path))
		return -1;
	name.bytes = bytes - offsetof(struct sockaddr_un, sun_path);
	if (setsockopt(diag, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == -1 || ask(diag) == -1)
		return -1;
	while (!is_over && count >= 0) {
		ssize_t got = recv(diag, answer, ANSWER_BYTES, 0);

		if (got <= 0)
			return -1;
		is_over = count_some(answer, (size_t)got, &name, &count);
	}
	return count;
}
