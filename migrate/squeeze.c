/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * squeeze - see squeeze.h
 *
 * One frame for a connection's whole life, level 1: a disk's bytes are to be made shorter faster than a network takes them, and
 * higher levels give little for what they cost. The window is small: what repeats on a disk repeats nearby or not at all, and
 * the other end has to keep as much. What comes is looked at before the library sees it: its readers of formats of long ago heed
 * no limit of memory, and after a frame it would read another, or pieces that say nothing.
 * Can fail: memory; what comes, which is no such stream.
 */
#include "config.h"

#include "migrate/squeeze.h"

#include <errno.h>
#include <stdlib.h>
#ifdef HAVE_ZSTD
#include <string.h>
#include <zstd.h>

#define LEVEL 1
#define WINDOW_LOG 20

struct squeeze {
	ZSTD_CCtx *shorter; /* owned; one of the two */
	ZSTD_DCtx *longer;
	size_t magic_bytes; /* of the frame's first four: how many were seen */
	bool has_ended;     /* the frame */
};

bool squeeze_is_there(void)
{
	return true;
}

static bool set_up(struct squeeze *s, enum squeeze_way way)
{
	_Static_assert(SQUEEZE_WINDOW_BYTES == 1u << WINDOW_LOG, "as it is said");
	if (way == SQUEEZE_LONGER) {
		s->longer = ZSTD_createDCtx();
		return s->longer && !ZSTD_isError(ZSTD_DCtx_setParameter(s->longer, ZSTD_d_windowLogMax, WINDOW_LOG));
	}
	s->shorter = ZSTD_createCCtx();
	return s->shorter && !ZSTD_isError(ZSTD_CCtx_setParameter(s->shorter, ZSTD_c_compressionLevel, LEVEL)) &&
	       !ZSTD_isError(ZSTD_CCtx_setParameter(s->shorter, ZSTD_c_windowLog, WINDOW_LOG));
}

struct squeeze *squeeze_new(enum squeeze_way way, struct error *e)
{
	struct squeeze *s = calloc(1, sizeof(*s));

	if (s && set_up(s, way))
		return s;
	squeeze_free(s);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

void squeeze_free(struct squeeze *s)
{
	if (!s)
		return;
	ZSTD_freeCCtx(s->shorter);
	ZSTD_freeDCtx(s->longer);
	free(s);
}

static int make_shorter(struct squeeze *s, ZSTD_inBuffer *in, ZSTD_outBuffer *out, enum squeeze_want want, struct error *e)
{
	static const ZSTD_EndDirective directive[] = {
		[SQUEEZE_MORE] = ZSTD_e_continue, [SQUEEZE_FLUSH] = ZSTD_e_flush, [SQUEEZE_END] = ZSTD_e_end,
	};
	size_t left;

	do {
		left = ZSTD_compressStream2(s->shorter, out, in, directive[want]);
		if (ZSTD_isError(left))
			return error_set(e, ENOMEM, "make a stream shorter: %s", ZSTD_getErrorName(left));
	} while (out->pos < out->size && (in->pos < in->size || (want != SQUEEZE_MORE && left)));
	return in->pos < in->size || (want != SQUEEZE_MORE && left);
}

static int check_magic(struct squeeze *s, const ZSTD_inBuffer *in, struct error *e)
{
	static const unsigned char magic[] = { 0x28, 0xb5, 0x2f, 0xfd };
	size_t some = MIN(in->size - in->pos, sizeof(magic) - s->magic_bytes);

	if (some && memcmp((const char *)in->src + in->pos, magic + s->magic_bytes, some) != 0)
		return error_set(e, EBADMSG, "what comes is no " SQUEEZE_NAME " of an sxm: it begins as something else");
	s->magic_bytes += some;
	return 0;
}

/* It may have something more for which there was no room although all was taken. */
static int make_longer(struct squeeze *s, ZSTD_inBuffer *in, ZSTD_outBuffer *out, struct error *e)
{
	if (check_magic(s, in, e) == -1)
		return -1;
	while (out->pos < out->size) {
		size_t before = out->pos, left;

		if (s->has_ended)
			return in->pos == in->size ? 0 : error_set(e, EBADMSG, "what comes goes on after its end");
		left = ZSTD_decompressStream(s->longer, out, in);
		if (ZSTD_isError(left))
			return error_set(e, EBADMSG, "what comes is no " SQUEEZE_NAME " of an sxm: %s", ZSTD_getErrorName(left));
		s->has_ended = left == 0;
		if (in->pos == in->size && (s->has_ended || out->pos < out->size || out->pos == before))
			return 0;
	}
	return 1;
}

int squeeze_run(struct squeeze *s, struct squeeze_piece *p, enum squeeze_want want, struct error *e)
{
	ZSTD_inBuffer in = { .src = p->in, .size = p->in_bytes };
	ZSTD_outBuffer out = { .dst = p->out, .size = p->out_bytes };
	int r = s->longer ? make_longer(s, &in, &out, e) : make_shorter(s, &in, &out, want, e);

	p->in_bytes = in.pos;
	p->out_bytes = out.pos;
	return r;
}

bool squeeze_is_whole(const struct squeeze *s)
{
	return !s->magic_bytes || s->has_ended;
}

#else

bool squeeze_is_there(void)
{
	return false;
}

struct squeeze *squeeze_new(enum squeeze_way way UNUSED, struct error *e)
{
	error_set(e, ENOTSUP, "this sxm was built without " SQUEEZE_NAME);
	return NULL;
}

void squeeze_free(struct squeeze *s UNUSED)
{
}

int squeeze_run(struct squeeze *s UNUSED, struct squeeze_piece *p UNUSED, enum squeeze_want want UNUSED, struct error *e)
{
	return error_set(e, ENOTSUP, "this sxm was built without " SQUEEZE_NAME);
}

bool squeeze_is_whole(const struct squeeze *s UNUSED)
{
	return false;
}
#endif
