/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The head of a qcow2 image, as a stranger may have written it: whatever it is, nothing outside it is read, and what is accepted
 * names no file but a plain one, *.base.qcow2.
 */
#include <stdlib.h>
#include <string.h>

#include "qcow2/qcow2-header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];

const char *const fuzz_words[] = { "QFI\xfb", "\xe2\x79\x2a\xca", "qcow2", "raw", ".base.qcow2", "json:{\"driver\":\"raw\"}",
				   "/etc/shadow", "../", "nbd://", NULL };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct qcow2_header h;
	struct error e = { 0 };

	if (qcow2_header_parse(data, bytes, &h, &e) == -1) {
		if (!e.err || !*e.text)
			abort();
		return 0;
	}
	if (h.size_bytes % 512 || h.size_bytes > INT64_MAX || h.cluster_bits < 9 || h.cluster_bits > 21)
		abort();
	if (h.l1_offset % (UINT64_C(1) << h.cluster_bits) || h.l1_offset + h.l1_count * UINT64_C(8) > INT64_MAX)
		abort();
	if (*h.backing && (!qcow2_is_base_name(h.backing) || strchr(h.backing, '/') || strchr(h.backing, ':')))
		abort();
	return 0;
}
