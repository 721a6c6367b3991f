/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * far - this disk as the far side of a mirror: its links, who may write, and what they are told (mirror/PROTOCOL.x-sxm)
 *
 *      ask --PING--> answered at once
 *        |--WAIT--> kept with its link; answered when the record says something new
 *        '--HELLO, PREPARE, COMMIT ...--> JOB_LINK (far-ask.c) ~~~> answered
 *
 * Who may write is what the record in force says (far_apply), for links and for everybody else.
 * A source without x-sxm is let write to a mirror's far end, once it is on record that it did.
 * When the far end's last domain goes without a COMMIT, the disk is incomplete, and the source hears; after one, the link stays.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "nbdsrv/wire-build.h"
#include "vdi/vdi-private.h"

/* --- links */

static void unref(struct far_link *l)
{
	assert(l->refs > 0);
	if (--l->refs == 0)
		free(l);
}

static struct far_link *link_of(struct vdi *v, struct nbdsrv_link *link)
{
	struct far_link *l = link->owner;

	if (l)
		return l;
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->vdi = v;
	l->link = link;
	l->refs = 1;
	l->version = link->name.version;
	l->name.epoch = link->name.epoch;
	l->name.generation = link->name.generation;
	memcpy(l->name.mirror, link->name.mirror, sizeof(l->name.mirror));
	link->owner = l;
	TAILQ_INSERT_TAIL(&v->far.links, l, entry);
	return l;
}

bool far_is_open(const struct far_link *l)
{
	return l->link && nbdsrv_link_is_open(l->link);
}

bool far_is_of_generation(const struct far_link *l, const struct commit_link *name)
{
	return strcmp(l->name.mirror, name->mirror) == 0 && l->name.generation == name->generation;
}

bool far_is_linked(const struct vdi *v)
{
	const struct far_link *l;

	TAILQ_FOREACH(l, &v->far.links, entry)
		if (l->is_admitted && far_is_open(l))
			return true;
	return false;
}

void far_shut_out(struct vdi *v, const struct commit_link *but)
{
	struct far_link *l;

	TAILQ_FOREACH(l, &v->far.links, entry)
		if (l->is_admitted && l->link && !(but && far_is_of_generation(l, but))) {
			log_info("mirror %s: a link of generation %llu is shut out", l->name.mirror,
				 (unsigned long long)l->name.generation);
			nbdsrv_link_shut(l->link);
		}
}

static enum nbdsrv_plain plain_rule(const struct vdi *v, const struct domain *d)
{
	const struct commit_record *r = &v->owner.record;
	bool is_far = domains_is_mirror(d->name);

	if (commit_write(r, is_far ? COMMIT_FOREIGN : COMMIT_LOCAL, NULL) == COMMIT_REFUSE)
		return NBDSRV_PLAIN_READS;
	return is_far && r->state == COMMIT_OWNED && !r->is_unverified ? NBDSRV_PLAIN_ASKS : NBDSRV_PLAIN_WRITES;
}

void far_apply(struct vdi *v)
{
	struct far_link *l;
	struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->server)
			nbdsrv_set_plain(d->server, plain_rule(v, d));
	TAILQ_FOREACH(l, &v->far.links, entry) {
		bool may_write = l->is_admitted && commit_write(&v->owner.record, COMMIT_LINKED, &l->name) == COMMIT_ALLOW;

		if (l->link)
			nbdsrv_link_admit(l->link, may_write ? &v->far.digest : NULL);
	}
}

void far_refuse_plain(struct vdi *v)
{
	struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->server)
			nbdsrv_set_plain(d->server, NBDSRV_PLAIN_READS);
}

/* --- answers */

void far_put(struct question *q, uint32_t field)
{
	assert(q->fields < XSXM_FIELDS_MAX);
	q->field[q->fields++] = field;
}

void far_put_u64(struct question *q, uint64_t value)
{
	far_put(q, (uint32_t)(value >> 32));
	far_put(q, (uint32_t)value);
}

/* Status, and what the disk is now. */
void far_say(struct question *q, const struct commit_record *r, enum commit_status status)
{
	q->fields = 0;
	far_put(q, status);
	far_put(q, r->state);
	far_put_u64(q, r->epoch);
}

void far_say_failed(struct question *q, int err)
{
	q->fields = 0;
	far_put(q, COMMIT_STATUS_FAILED);
	far_put(q, wire_error(err ? err : EIO));
}

static void answer_now(const struct vdi *v, struct nbdsrv_ask *a, enum commit_status status)
{
	struct question q = { .ask = a };

	far_say(&q, &v->owner.record, status);
	nbdsrv_answer(a, q.field, q.fields);
}

/* Fits vdi_done_fn: a question's job has ended. */
static void on_answered(void *arg, const struct error *e)
{
	struct question *q = arg;

	if (e || !q->fields)
		far_say_failed(q, e ? e->err : ESHUTDOWN);
	nbdsrv_answer(q->ask, q->field, q->fields);
	unref(q->l);
	free(q);
}

/* --- news */

static void tell(struct far_link *l)
{
	const struct commit_record *r = &l->vdi->owner.record;
	enum commit_news news = commit_far_news(r, &l->name);
	struct question q = { .ask = l->wait };

	if (!l->wait || news == COMMIT_NEWS_NONE)
		return;
	far_put(&q, COMMIT_STATUS_OK);
	far_put(&q, news);
	far_put_u64(&q, r->epoch);
	nbdsrv_answer(take_ptr(&l->wait), q.field, q.fields);
}

void far_on_change(struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;
	struct far_link *l;

	log_info("this disk is %s now, epoch %llu%s%s", commit_state_name(r->state), (unsigned long long)r->epoch,
		 *r->mirror ? ", mirror " : "", r->mirror);
	far_apply(v);
	TAILQ_FOREACH(l, &v->far.links, entry)
		tell(l);
	linger_look(v);
}

static void wait_for_news(struct far_link *l, struct nbdsrv_ask *a)
{
	if (!l->is_admitted || l->wait) {
		answer_now(l->vdi, a, COMMIT_STATUS_BAD_STATE);
		return;
	}
	l->wait = a;
	tell(l);
}

/* --- JOB_LINK */

static void queue(struct far_link *l, struct nbdsrv_ask *a)
{
	struct question *q = calloc(1, sizeof(*q));
	struct job *j;

	if (!q) {
		answer_now(l->vdi, a, COMMIT_STATUS_FAILED);
		return;
	}
	q->l = l;
	q->ask = a;
	l->refs++;
	j = job_add(l->vdi, JOB_LINK, "", on_answered, q);
	if (j)
		j->question = q;
}

static void ping(const struct far_link *l, struct nbdsrv_ask *a)
{
	struct commit_verdict verdict = commit_far_ping(&l->vdi->owner.record, &l->name);

	answer_now(l->vdi, a, l->is_admitted ? verdict.status : COMMIT_STATUS_BAD_STATE);
}

static void on_ask(void *arg, struct nbdsrv_ask *a)
{
	struct vdi *v = arg;
	struct far_link *l = link_of(v, a->link);

	if (!l) {
		answer_now(v, a, COMMIT_STATUS_FAILED);
		return;
	}
	switch (a->opcode) {
	case XSXM_PING:
		ping(l, a);
		break;
	case XSXM_WAIT:
		wait_for_news(l, a);
		break;
	case XSXM_HELLO:
	case XSXM_PREPARE:
	case XSXM_COMMIT:
	case XSXM_RECLAIM:
	case XSXM_RELEASED:
	case XSXM_END:
		queue(l, a);
		break;
	case XSXM_LOG_BEGIN:
	case XSXM_LOG_KEEP:
	case XSXM_LOG_END:
		if (l->version >= XSXM_LOG_VERSION)
			queue(l, a);
		else
			answer_now(v, a, COMMIT_STATUS_UNKNOWN);
		break;
	default:
		answer_now(v, a, COMMIT_STATUS_UNKNOWN);
	}
}

static void on_gone(void *arg, struct nbdsrv_link *link)
{
	struct vdi *v = arg;
	struct far_link *l = link->owner;

	if (!l)
		return;
	l->link = NULL;
	TAILQ_REMOVE(&v->far.links, l, entry);
	if (l->wait)
		answer_now(v, take_ptr(&l->wait), COMMIT_STATUS_STALE);
	if (l->is_admitted && !far_is_linked(v)) {
		log_info("mirror %s: its link of generation %llu is gone", l->name.mirror,
			 (unsigned long long)l->name.generation);
		v->far.unlinked_s = (int64_t)time(NULL);
		linger_look(v);
	}
	unref(l);
}

/* --- a source without x-sxm */

static void noted(struct vdi *v)
{
	if (v->step.err) {
		log_error("a foreign source may not write: %s", v->step.text);
		far_refuse_plain(v);
	} else {
		far_apply(v);
	}
	job_end(v);
}

void far_begin_foreign(struct vdi *v)
{
	struct commit_verdict verdict = commit_far_foreign(&v->owner.record);

	error_clear(&v->step);
	if (v->gate && verdict.is_changed) {
		log_info("a source without x-sxm writes to this disk");
		stack_own(v, &verdict.next, noted);
	} else {
		noted(v);
	}
}

static void on_plain(void *arg)
{
	job_add(arg, JOB_FOREIGN, "", NULL, NULL);
}

const struct nbdsrv_link_ops far_links = { .ask = on_ask, .log = far_log_take, .gone = on_gone, .plain = on_plain };

/* --- the far end is let go of */

static void linger_or_cut(struct vdi *v)
{
	struct domain *d = v->job->d;
	step_fn *next = take_ptr(&v->job->left);

	if (!d->server || !linger_is_wanted(v)) {
		stack_cut(v, d, next);
		return;
	}
	nbdsrv_end_plain(d->server);
	d->is_lingering = true;
	linger_look(v);
	next(v);
}

static void gave_up(struct vdi *v)
{
	if (v->step.err)
		log_error("this disk is not complete, and that could not be written down: %s", v->step.text);
	linger_or_cut(v);
}

static bool is_last_far(const struct vdi *v, const struct domain *d)
{
	const struct domain *other;

	TAILQ_FOREACH(other, &v->domains, link)
		if (other != d && other->is_active && domains_is_mirror(other->name))
			return false;
	return true;
}

void far_leave(struct vdi *v, step_fn *next)
{
	struct domain *d = v->job->d;
	struct commit_verdict verdict;

	if (!v->gate || !domains_is_mirror(d->name) || d->is_read_only || !is_last_far(v, d)) {
		stack_cut(v, d, next);
		return;
	}
	v->job->left = next;
	verdict = commit_far_give_up(&v->owner.record);
	if (verdict.is_changed)
		stack_own(v, &verdict.next, gave_up);
	else
		linger_or_cut(v);
}

/* --- who we are */

static uint64_t hash(const char *text, size_t bytes)
{
	uint64_t h = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ (uint8_t)text[i]) * UINT64_C(1099511628211);
	return h;
}

void far_init(struct vdi *v)
{
	CLEANUP_FREE char *boot = NULL;
	size_t bytes = 0;

	TAILQ_INIT(&v->far.links);
	boot = proc_read_file("/proc/sys/kernel/random/boot_id", 128, &bytes, NULL);
	if (getrandom(&v->far.process, sizeof(v->far.process), 0) != (ssize_t)sizeof(v->far.process))
		v->far.process = hash((char *)&(uint64_t){ loop_now_ns() }, sizeof(uint64_t));
	/* Not known: no two lives are the same. */
	v->far.boot = boot ? hash(boot, bytes) : v->far.process;
}
