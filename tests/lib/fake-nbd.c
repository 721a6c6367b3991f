/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-nbd - see fake-nbd.h
 *
 *      accept thread --> one thread per connection: greeting, options, requests one after the other
 *
 * With x-sxm in the plan it speaks structured replies as well, and answers questions as the plan says.
 *
 * Stopping shuts every socket down, which ends every blocking call.
 */
#include "tests/lib/fake-nbd.h"

#include <arpa/inet.h>
#include <endian.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"

#define CONNS_MAX 256
#define FLAG_HAS 1
#define FLAG_READ_ONLY 2
#define FLAG_FLUSH 4
#define FLAG_FUA 8
#define FLAG_ZEROES 64
#define FLAG_MULTI_CONN 256

struct fake_conn {
	struct fake_nbd *f;
	atomic_int fd; /* whoever takes it out, its thread or stop, closes it */
	pthread_t thread;
	bool is_structured, is_sxm, is_admitted;
	uint64_t wait_cookie; /* as it came; 0: no WAIT is open */
};

struct fake_nbd_private {
	char dir[64];
	unsigned delay_ms;
	int listener;
	int stop[2]; /* a pipe; closing its writing end wakes the accept thread */
	pthread_t thread;
	struct fake_conn conn[CONNS_MAX];
	unsigned conns;
	bool is_over; /* no thread is left */
};

struct request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t bytes;
} __attribute__((packed));

static bool get(int fd, void *at, size_t bytes)
{
	return recv(fd, at, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static bool put(int fd, const void *at, size_t bytes)
{
	return send(fd, at, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static bool put_option(int fd, uint32_t option, uint32_t type, const void *data, uint32_t bytes)
{
	struct {
		uint64_t magic;
		uint32_t option, type, bytes;
	} __attribute__((packed)) head = { htobe64(0x3e889045565a9), htobe32(option), htobe32(type), htobe32(bytes) };

	return put(fd, &head, sizeof(head)) && (bytes == 0 || put(fd, data, bytes));
}

static bool answer_go(struct fake_nbd *f, int fd, uint32_t option)
{
	const struct fake_nbd_plan *p = &f->plan;
	uint16_t flags = (uint16_t)(FLAG_HAS | FLAG_FLUSH | (p->is_read_only ? FLAG_READ_ONLY : 0) | (p->can_fua ? FLAG_FUA : 0) |
	                            (p->can_zero ? FLAG_ZEROES : 0) | (p->can_multi_conn ? FLAG_MULTI_CONN : 0));
	struct {
		uint16_t type;
		uint64_t size;
		uint16_t flags;
	} __attribute__((packed)) export = { 0, htobe64(p->size_bytes), htobe16(flags) };
	struct {
		uint16_t type;
		uint32_t min, preferred, max;
	} __attribute__((packed)) block = { htobe16(3), htobe32(p->min_block), htobe32(MAX(p->min_block, 4096u)),
		htobe32(p->max_block) };

	if (!put_option(fd, option, 3, &export, sizeof(export)))
		return false;
	if (p->min_block && !put_option(fd, option, 3, &block, sizeof(block)))
		return false;
	return put_option(fd, option, 1, NULL, 0);
}

/* One x-sxm context of those asked for is chosen. */
static bool answer_contexts(struct fake_conn *c, uint32_t option, const uint8_t *data, uint32_t bytes)
{
	struct bytes_reader r = bytes_reader(data, bytes);
	uint8_t reply[4 + sizeof(c->f->context)] = { 0, 0, 0, 7 };
	unsigned chosen_max = c->f->plan.sxm->chosen_max, version = c->f->plan.sxm->version;
	uint32_t queries;

	bytes_get(&r, bytes_get_u32(&r));
	queries = bytes_get_u32(&r);
	for (uint32_t i = 0; i < queries && !r.is_short; i++) {
		uint32_t length = bytes_get_u32(&r);
		const uint8_t *name = bytes_get(&r, length);

		if (!name || length < 6 || length >= sizeof(c->f->context) || memcmp(name, "x-sxm:", 6) != 0)
			continue;
		if (c->is_sxm || (chosen_max && atomic_load(&c->f->greeted) > chosen_max))
			continue;
		if (version && (unsigned)(name[6] - '0') != version)
			continue;
		memcpy(c->f->context, name, length);
		c->f->context[length] = '\0';
		memcpy(reply + 4, name, length);
		c->is_sxm = true;
		if (!put_option(c->fd, option, 4, reply, 4 + length))
			return false;
	}
	return put_option(c->fd, option, 1, NULL, 0);
}

/* True: in transmission. */
static bool shake_hands(struct fake_conn *c)
{
	uint64_t greeting[2] = { htobe64(0x4e42444d41474943), htobe64(0x49484156454f5054) };
	uint16_t flags = htobe16(3);
	uint8_t skip[8192];
	struct {
		uint64_t magic;
		uint32_t option, bytes;
	} __attribute__((packed)) head;
	uint32_t client;
	int fd = c->fd;

	if (!put(fd, greeting, sizeof(greeting)) || !put(fd, &flags, sizeof(flags)) || !get(fd, &client, sizeof(client)))
		return false;
	while (get(fd, &head, sizeof(head))) {
		uint32_t option = be32toh(head.option), bytes = be32toh(head.bytes);
		bool is_good;

		if (bytes > sizeof(skip) || (bytes && !get(fd, skip, bytes)))
			return false;
		if (option == 7)
			return answer_go(c->f, fd, option);
		if (option == 8 && c->f->plan.sxm) {
			c->is_structured = true;
			is_good = put_option(fd, option, 1, NULL, 0);
		} else if (option == 10 && c->is_structured) {
			is_good = answer_contexts(c, option, skip, bytes);
		} else {
			is_good = put_option(fd, option, UINT32_C(0x80000001), NULL, 0);
		}
		if (!is_good)
			return false;
	}
	return false;
}

static void note_longest(struct fake_nbd *f, uint64_t bytes)
{
	if (bytes > atomic_load(&f->longest))
		atomic_store(&f->longest, bytes);
}

static bool put_chunk(int fd, uint16_t flags, uint16_t type, uint64_t cookie, const void *data, uint32_t bytes)
{
	struct {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t cookie;
		uint32_t bytes;
	} __attribute__((packed)) head = { htobe32(0x668e33ef), htobe16(flags), htobe16(type), cookie, htobe32(bytes) };

	return put(fd, &head, sizeof(head)) && (!bytes || put(fd, data, bytes));
}

static bool put_answer(struct fake_conn *c, const struct fake_sxm_answer *a, uint64_t cookie)
{
	uint8_t data[4 + 8 * ARRAY_LEN(a->field)];
	struct bytes_writer w = bytes_writer(data, sizeof(data));

	if (a->late_ms)
		usleep(a->late_ms * 1000);
	if (a->is_silent)
		return true;
	if (a->error) {
		bytes_put_u32(&w, a->error);
		bytes_put_u16(&w, 0);
		return put_chunk(c->fd, 1, 0x8001, cookie, data, 6);
	}
	bytes_put_u32(&w, 7);
	for (unsigned i = 0; i < a->count; i++) {
		bytes_put_u32(&w, a->length ? a->length : 1);
		bytes_put_u32(&w, a->field[i]);
	}
	if (a->is_twice && !put_chunk(c->fd, 0, 5, cookie, data, (uint32_t)bytes_written(&w)))
		return false;
	if (a->count && !put_chunk(c->fd, 0, 5, cookie, data, (uint32_t)bytes_written(&w)))
		return false;
	return put_chunk(c->fd, 1, 0, cookie, NULL, 0);
}

static bool answer_question(struct fake_conn *c, uint64_t opcode, uint64_t cookie)
{
	const struct fake_sxm_answer *answers = c->f->plan.sxm->answer;

	if (opcode >= 8)
		return false;
	atomic_fetch_add(&c->f->asked[opcode], 1);
	if (opcode == 0) {
		const struct fake_sxm_answer *second = c->f->plan.sxm->second_hello;

		c->is_admitted = true;
		return put_answer(c, second && atomic_load(&c->f->asked[0]) > 1 ? second : &answers[0], cookie);
	}
	if (opcode == 1) {
		c->wait_cookie = cookie;
		return true;
	}
	if (opcode == 6 && c->wait_cookie) {
		uint64_t wait = c->wait_cookie;

		c->wait_cookie = 0;
		if (!put_answer(c, &answers[1], wait))
			return false;
	}
	return put_answer(c, &answers[opcode], cookie);
}

/* False: the connection is over. */
static bool serve_one(struct fake_conn *c, unsigned *answered)
{
	struct fake_nbd *f = c->f;
	struct request q;
	struct {
		uint32_t magic, error;
		uint64_t cookie;
	} __attribute__((packed)) reply = { htobe32(0x67446698), 0, 0 };
	uint64_t at;
	uint32_t bytes;
	int fd = c->fd;

	if (!get(fd, &q, sizeof(q)))
		return false;
	at = be64toh(q.offset);
	bytes = be32toh(q.bytes);
	reply.cookie = q.cookie;
	if (be16toh(q.type) != 7 && f->plan.sxm && !c->is_admitted && be16toh(q.type) != 2)
		atomic_fetch_add(&f->written_early, 1);
	switch (be16toh(q.type)) {
	case 0:
		atomic_fetch_add(&f->reads, 1);
		if (f->plan.read_hangs)
			return true;
		if (at + bytes > f->plan.size_bytes)
			return false;
		reply.error = htobe32(f->plan.read_error);
		break;
	case 1:
		if (at + bytes > f->plan.size_bytes || !get(fd, f->disk + at, bytes))
			return false;
		reply.error = htobe32(f->plan.write_error);
		atomic_fetch_add(&f->writes, 1);
		atomic_fetch_add(&f->fuas, be16toh(q.flags) & 1);
		break;
	case 2:
		atomic_fetch_add(&f->goodbyes, 1);
		return false;
	case 3:
		reply.error = htobe32(f->plan.flush_error);
		atomic_fetch_add(&f->flushes, 1);
		break;
	case 6:
		memset(f->disk + at, 0, bytes);
		atomic_fetch_add(&f->zeroes, 1);
		if (be16toh(q.flags) & 2)
			atomic_fetch_add(&f->no_holes, 1);
		break;
	case 7:
		return c->is_sxm && bytes == 511 && answer_question(c, at, q.cookie);
	default:
		return false;
	}
	note_longest(f, bytes);
	++*answered;
	if (f->plan.die_after && *answered > f->plan.die_after)
		return false;
	if (f->plan.hang_after && *answered > f->plan.hang_after)
		return true;
	if (!put(fd, &reply, sizeof(reply)))
		return false;
	return be16toh(q.type) != 0 || reply.error || put(fd, f->disk + at, bytes);
}

static void *run_conn(void *arg)
{
	struct fake_conn *c = arg;
	struct fake_nbd *f = c->f;
	unsigned answered = 0;
	int fd = c->fd;
	char wait;

	if (f->plan.manner == FAKE_NBD_GARBAGE) {
		put(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
	} else if (f->plan.manner == FAKE_NBD_SILENT ||
	           (f->plan.greet_max && atomic_load(&f->greeted) >= f->plan.greet_max)) {
		while (recv(fd, &wait, 1, 0) > 0)
			;
	} else {
		atomic_fetch_add(&f->greeted, 1);
		if (shake_hands(c))
			while (serve_one(c, &answered))
				;
	}
	shutdown(fd, SHUT_RDWR);
	while (atomic_load(&f->keeps_dead))
		poll(NULL, 0, 1);
	if (atomic_exchange(&c->fd, -1) >= 0)
		close(fd);
	return NULL;
}

static int listen_at(const struct sockaddr *at, socklen_t length)
{
	int fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, at, length) == -1 || listen(fd, 16) == -1)
		abort();
	return fd;
}

/* At once, so that the port is known. */
static void listen_on_tcp(struct fake_nbd *f)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(at);

	f->own->listener = listen_at((struct sockaddr *)&at, sizeof(at));
	if (getsockname(f->own->listener, (struct sockaddr *)&at, &length) == -1)
		abort();
	snprintf(f->uri, sizeof(f->uri), "nbd://127.0.0.1:%u", ntohs(at.sin_port));
}

static void listen_on_unix(struct fake_nbd *f)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	strcpy(at.sun_path, f->socket);
	f->own->listener = listen_at((struct sockaddr *)&at, sizeof(at));
}

static void *run_listener(void *arg)
{
	struct fake_nbd *f = arg;
	struct fake_nbd_private *own = f->own;
	struct pollfd wait[2] = { { .fd = own->stop[0], .events = POLLIN }, { .events = POLLIN } };

	if (own->delay_ms && poll(wait, 1, (int)own->delay_ms) != 0)
		return NULL;
	if (own->listener < 0)
		listen_on_unix(f);
	wait[1].fd = own->listener;
	while (poll(wait, 2, -1) > 0 && !wait[0].revents && own->conns < CONNS_MAX) {
		struct fake_conn *c = &own->conn[own->conns];

		c->f = f;
		c->fd = accept4(own->listener, NULL, NULL, SOCK_CLOEXEC);
		if (c->fd == -1)
			abort();
		/* Or what is said in pieces waits for an acknowledgement; a unix socket has none of that. */
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		atomic_fetch_add(&f->accepted, 1);
		own->conns++;
		if (pthread_create(&c->thread, NULL, run_conn, c) != 0)
			abort();
	}
	return NULL;
}

void fake_nbd_start(struct fake_nbd *f, const struct fake_nbd_plan *plan, unsigned delay_ms)
{
	struct fake_nbd_private *own = calloc(1, sizeof(*own));

	*f = (struct fake_nbd){ .plan = *plan, .own = own };
	strcpy(own->dir, "/tmp/sxm-fake-XXXXXX");
	if (!mkdtemp(own->dir) || pipe(own->stop) == -1)
		abort();
	own->listener = -1;
	own->delay_ms = delay_ms;
	snprintf(f->socket, sizeof(f->socket), "%s/s", own->dir);
	snprintf(f->uri, sizeof(f->uri), "nbd+unix:///?socket=%s", f->socket);
	/* Who connects at once need not wait until the thread has its turn. */
	if (plan->is_tcp)
		listen_on_tcp(f);
	else if (!delay_ms)
		listen_on_unix(f);
	f->disk = calloc(1, plan->size_bytes + 1);
	if (!f->disk || pthread_create(&own->thread, NULL, run_listener, f) != 0)
		abort();
}

static void end_threads(struct fake_nbd *f, bool is_forced)
{
	struct fake_nbd_private *own = f->own;

	if (own->is_over)
		return;
	own->is_over = true;
	close(own->stop[1]);
	atomic_store(&f->keeps_dead, false);
	pthread_join(own->thread, NULL);
	for (unsigned i = 0; i < own->conns; i++) {
		int fd = is_forced ? atomic_exchange(&own->conn[i].fd, -1) : -1;

		if (fd >= 0)
			shutdown(fd, SHUT_RDWR);
		pthread_join(own->conn[i].thread, NULL);
		if (fd >= 0)
			close(fd);
	}
}

void fake_nbd_await_end(struct fake_nbd *f)
{
	end_threads(f, false);
}

void fake_nbd_cut(struct fake_nbd *f, unsigned connection)
{
	shutdown(f->own->conn[connection].fd, SHUT_RDWR);
}

/* Its thread waits for a request meanwhile. */
void fake_nbd_answer_wait(struct fake_nbd *f, unsigned connection)
{
	struct fake_conn *c = &f->own->conn[connection];

	if (!put_answer(c, &f->plan.sxm->answer[1], c->wait_cookie))
		abort();
	c->wait_cookie = 0;
}

void fake_nbd_stop(struct fake_nbd *f)
{
	struct fake_nbd_private *own = f->own;

	end_threads(f, true);
	if (own->listener >= 0)
		close(own->listener);
	close(own->stop[0]);
	unlink(f->socket);
	rmdir(own->dir);
	free(f->disk);
	free(own);
}
