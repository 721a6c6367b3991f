/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * driver-ask - a process is told to serve a device, or to let go of it
 *
 *      SERVE   vbd {"domain":"5","backend":".../backend/qdisk/5/51712","eager":false}
 *      DROP    vbd.drop {"domain":"5","backend":"..."}
 *
 * A process may be in the middle of something that takes long (a switchover): then so does its answer, and its devices wait.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/asking.h"
#include "broker/driver-private.h"

#define ASK_MS 60000u
#define TELL_EACH 32u /* so many failures are one line */

static void say(const struct broker_action *a, const struct error *e)
{
	static struct log_limit limit = LOG_LIMIT(20);
	bool is_news = e->err ? a->failures % TELL_EACH == 0 : a->what == BROKER_DROP || !a->is_again;

	if (!is_news || !log_allowed(&limit))
		return;
	if (!e->err)
		log_info("%u/%u: %s by %s", a->key.domain, a->key.device, a->what == BROKER_SERVE ? "served" : "let go of",
			 a->name);
	else
		log_line(e->err == ENOTCONN || e->err == ESRCH ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
			 "%u/%u: %s is to %s it, later: %s", a->key.domain, a->key.device, a->name,
			 a->what == BROKER_SERVE ? "serve" : "let go of", e->text);
}

/* Of a DROP: it does not serve it; but whoever takes the place of a killed process does what that did. */
static int judge_drop(const struct driver *d, const struct broker_action *a, int err)
{
	if (err == ESRCH && watching_has_record(d, a->name))
		return EAGAIN;
	return err == ENOENT || err == ENOSYS ? 0 : err;
}

static void on_answer(void *arg, const struct error *e)
{
	struct driver_ask *q = arg;
	struct driver *d = q->driver;
	struct broker_action a = q->action;

	LIST_REMOVE(q, link);
	free(q);
	d->asking--;
	say(&a, e);
	broker_ended(d->broker, a.key, a.what == BROKER_DROP ? judge_drop(d, &a, e->err) : e->err, driver_now_ms());
	driver_step(d);
}

static struct asking *ask(struct driver *d, struct driver_ask *q, struct error *e)
{
	const struct broker_action *a = &q->action;
	bool is_serve = a->what == BROKER_SERVE;
	char backend[FACTS_PATH_MAX];
	CLEANUP_FREE char *socket = NULL;
	CLEANUP_FREE char *args = NULL;

	facts_device_path(&d->root, a->key, backend);
	if (asprintf(&socket, "%s/%s/control", d->spec.run_dir, a->name) < 0)
		socket = NULL;
	if (asprintf(&args, "{\"domain\":\"%u\",\"backend\":\"%s\"%s}", a->key.domain, backend,
		     !is_serve ? "" : a->is_eager ? ",\"eager\":true" : ",\"eager\":false") < 0)
		args = NULL;
	if (!socket || !args) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	return asking_new(d->spec.loop, socket, is_serve ? "vbd" : "vbd.drop", args, ASK_MS, on_answer, q, e);
}

void driver_ask(struct driver *d, const struct broker_action *a)
{
	struct driver_ask *q = calloc(1, sizeof(*q));
	struct error e = { 0 };

	if (q) {
		q->driver = d;
		q->action = *a;
		watching_want(d->watching, a->name);
		q->asking = ask(d, q, &e);
	}
	if (!q || !q->asking) {
		free(q);
		broker_ended(d->broker, a->key, ENOMEM, driver_now_ms());
		return;
	}
	LIST_INSERT_HEAD(&d->asks, q, link);
	d->asking++;
}

void driver_cancel_asks(struct driver *d)
{
	struct driver_ask *q;

	while ((q = LIST_FIRST(&d->asks))) {
		LIST_REMOVE(q, link);
		asking_cancel(q->asking);
		free(q);
	}
}
