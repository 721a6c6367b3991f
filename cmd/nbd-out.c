/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nbd-out - see nbd-out.h
 *
 *      greeting <- | flags -> | GO export -> | INFO ... ACK <- | requests -> replies <- ... | DISC ->
 *
 * At most WINDOW requests are on the way: then a reply is waited for before the next is sent. A reply is 16 bytes, so the server
 * never waits for us to take one while we wait for it to take data.
 *
 * Source: "The NBD protocol", doc/proto.md of https://github.com/NetworkBlockDevice/nbd. The names are the document's.
 */
#include "cmd/nbd-out.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define GREETING_MAGIC UINT64_C(0x4e42444d41474943)
#define OPTION_MAGIC UINT64_C(0x49484156454f5054)
#define OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define REQUEST_MAGIC UINT32_C(0x25609513)
#define REPLY_MAGIC UINT32_C(0x67446698)
#define FIXED_NEWSTYLE 1u
#define NO_ZEROES 2u
#define OPT_GO 7u
#define REP_ACK 1u
#define REP_INFO 3u
#define INFO_EXPORT 0u
#define FLAG_READ_ONLY 2u
#define FLAG_WRITE_ZEROES 64u
#define CMD_WRITE 1u
#define CMD_DISC 2u
#define CMD_FLUSH 3u
#define CMD_WRITE_ZEROES 6u

#define WINDOW 8u
#define PATIENCE_S 120 /* without a byte, either way: the medium may be slow */
#define REPLY_MAX 1024u
#define INFOS_MAX 16u

/* --- bytes */

static int send_all(const struct nbd_out *n, const void *head, size_t head_bytes, const void *data, size_t bytes, struct error *e)
{
	struct iovec v[2] = { { (void *)(uintptr_t)head, head_bytes }, { (void *)(uintptr_t)data, bytes } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };

	while (v[0].iov_len + v[1].iov_len) {
		ssize_t sent = sendmsg(n->fd, &m, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return error_errno(e, errno == EAGAIN ? ETIMEDOUT : errno, "send to the disk's process");
		for (size_t i = 0; i < 2; i++) {
			size_t taken = MIN((size_t)sent, v[i].iov_len);

			v[i].iov_base = (char *)v[i].iov_base + taken;
			v[i].iov_len -= taken;
			sent -= (ssize_t)taken;
		}
	}
	return 0;
}

static int receive_all(const struct nbd_out *n, void *to, size_t bytes, struct error *e)
{
	char *at = to;

	while (bytes) {
		ssize_t got = recv(n->fd, at, bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(e, errno == EAGAIN ? ETIMEDOUT : errno, "hear from the disk's process");
		if (got == 0)
			return error_set(e, ECONNRESET, "the disk's process hung up");
		at += got;
		bytes -= (size_t)got;
	}
	return 0;
}

static int misunderstand(struct error *e)
{
	return error_set(e, EPROTO, "what the disk's process says is not NBD");
}

/* --- the greeting */

static int greet(struct nbd_out *n, const char *name, struct error *e)
{
	uint8_t said[18] = { 0 }, flags[4] = { 0, 0, 0, FIXED_NEWSTYLE | NO_ZEROES }, option[16 + 6];
	struct bytes_reader r = bytes_reader(said, sizeof(said));
	struct bytes_writer w = bytes_writer(option, sizeof(option));
	uint32_t length = (uint32_t)strlen(name);

	if (receive_all(n, said, sizeof(said), e) == -1)
		return -1;
	if (bytes_get_u64(&r) != GREETING_MAGIC || bytes_get_u64(&r) != OPTION_MAGIC || !(bytes_get_u16(&r) & FIXED_NEWSTYLE))
		return misunderstand(e);
	bytes_put_u64(&w, OPTION_MAGIC);
	bytes_put_u32(&w, OPT_GO);
	bytes_put_u32(&w, 4 + length + 2);
	bytes_put_u32(&w, length);
	if (send_all(n, flags, sizeof(flags), option, 20, e) == -1)
		return -1;
	return send_all(n, name, length, "\0\0", 2, e);
}

static int take_info(struct nbd_out *n, struct bytes_reader *r, bool *is_there, struct error *e)
{
	uint16_t flags;

	if (bytes_get_u16(r) != INFO_EXPORT)
		return 0;
	n->size_bytes = bytes_get_u64(r);
	flags = bytes_get_u16(r);
	if (r->is_short)
		return misunderstand(e);
	*is_there = true;
	if (flags & FLAG_READ_ONLY)
		return error_set(e, EROFS, "the disk is served read-only");
	return flags & FLAG_WRITE_ZEROES ? 0 : error_set(e, ENOTSUP, "the disk's process cannot write zeros");
}

static int hear_infos(struct nbd_out *n, struct error *e)
{
	bool is_there = false;

	for (unsigned i = 0; i < INFOS_MAX; i++) {
		uint8_t head[20] = { 0 }, data[REPLY_MAX] = { 0 };
		struct bytes_reader r = bytes_reader(head, sizeof(head));
		uint32_t type, length;

		if (receive_all(n, head, sizeof(head), e) == -1)
			return -1;
		if (bytes_get_u64(&r) != OPTION_REPLY_MAGIC || bytes_get_u32(&r) != OPT_GO)
			return misunderstand(e);
		type = bytes_get_u32(&r);
		length = bytes_get_u32(&r);
		if (length > sizeof(data) || receive_all(n, data, length, e) == -1)
			return length > sizeof(data) ? misunderstand(e) : -1;
		r = bytes_reader(data, length);
		if (type == REP_ACK)
			return is_there ? 0 : misunderstand(e);
		if (type != REP_INFO)
			return error_set(e, EIO, "the disk's process does not serve it to us");
		if (take_info(n, &r, &is_there, e) == -1)
			return -1;
	}
	return misunderstand(e);
}

int nbd_out_open(struct nbd_out *n, const char *socket_path, const char *export_name, struct error *e)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	const struct timeval patience = { .tv_sec = PATIENCE_S };

	*n = (struct nbd_out) { .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	if (n->fd < 0)
		return error_errno(e, errno, "make a socket");
	if (strlen(socket_path) >= sizeof(to.sun_path))
		error_set(e, ENAMETOOLONG, "%s is too long a path", socket_path);
	else if (strcpy(to.sun_path, socket_path), connect(n->fd, (struct sockaddr *)&to, sizeof(to)) == -1)
		error_errno(e, errno, "connect to %s", socket_path);
	else if (setsockopt(n->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == -1 ||
		 setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == -1)
		error_errno(e, errno, "a socket");
	else if (greet(n, export_name, e) == 0 && hear_infos(n, e) == 0)
		return 0;
	close(n->fd);
	n->fd = -1;
	return -1;
}

/* --- requests */

static int hear(struct nbd_out *n, struct error *e)
{
	uint8_t reply[16] = { 0 };
	struct bytes_reader r = bytes_reader(reply, sizeof(reply));
	uint32_t err;

	if (receive_all(n, reply, sizeof(reply), e) == -1)
		return -1;
	if (bytes_get_u32(&r) != REPLY_MAGIC)
		return misunderstand(e);
	err = bytes_get_u32(&r);
	n->on_the_way--;
	return err ? error_errno(e, err == ENOSPC ? ENOSPC : EIO, "write to the disk") : 0;
}

static int ask(struct nbd_out *n, uint16_t command, uint64_t at, uint32_t bytes, const void *data, struct error *e)
{
	uint8_t request[28];
	struct bytes_writer w = bytes_writer(request, sizeof(request));

	while (n->on_the_way >= WINDOW)
		if (hear(n, e) == -1)
			return -1;
	bytes_put_u32(&w, REQUEST_MAGIC);
	bytes_put_u16(&w, 0);
	bytes_put_u16(&w, command);
	bytes_put_u64(&w, n->cookie++);
	bytes_put_u64(&w, at);
	bytes_put_u32(&w, bytes);
	n->on_the_way++;
	return send_all(n, request, sizeof(request), data, data ? bytes : 0, e);
}

int nbd_out_write(struct nbd_out *n, uint64_t at, const void *data, uint32_t bytes, struct error *e)
{
	return ask(n, CMD_WRITE, at, bytes, data, e);
}

int nbd_out_zero(struct nbd_out *n, uint64_t at, uint32_t bytes, struct error *e)
{
	return ask(n, CMD_WRITE_ZEROES, at, bytes, NULL, e);
}

int nbd_out_flush(struct nbd_out *n, struct error *e)
{
	while (n->on_the_way)
		if (hear(n, e) == -1)
			return -1;
	return ask(n, CMD_FLUSH, 0, 0, NULL, e) == 0 ? hear(n, e) : -1;
}

void nbd_out_close(struct nbd_out *n)
{
	struct error ignored;

	if (n->fd < 0)
		return;
	if (!n->on_the_way)
		ask(n, CMD_DISC, 0, 0, NULL, &ignored);
	close(n->fd);
	n->fd = -1;
}
