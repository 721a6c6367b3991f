/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire - the numbers of the NBD protocol
 *
 * Source: "The NBD protocol", doc/proto.md of https://github.com/NetworkBlockDevice/nbd. All integers are big-endian.
 * Only what this server speaks or has to recognise. Names follow the document's, NBD_ being libnbd's here.
 */
#ifndef SXM_NBDSRV_WIRE_H
#define SXM_NBDSRV_WIRE_H

#include "base/compiler.h"

/* --- handshake */
#define WIRE_MAGIC UINT64_C(0x4e42444d41474943)        /* "NBDMAGIC" */
#define WIRE_OPTION_MAGIC UINT64_C(0x49484156454f5054) /* "IHAVEOPT": greeting and every option */
#define WIRE_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)

enum { WIRE_FIXED_NEWSTYLE = 1, WIRE_NO_ZEROES = 2 }; /* handshake flags, the server's and the client's */

enum {
	WIRE_GREETING_BYTES = 18,
	WIRE_CLIENT_FLAGS_BYTES = 4,
	WIRE_OPTION_BYTES = 16,       /* header of an option */
	WIRE_OPTION_REPLY_BYTES = 20, /* header of a reply to one */
	WIRE_OLD_PADDING_BYTES = 124, /* after the answer to EXPORT_NAME, unless NO_ZEROES */
	WIRE_STRING_MAX = 4096,       /* no name or text is longer */
};

enum wire_option_type {
	WIRE_OPT_EXPORT_NAME = 1,
	WIRE_OPT_ABORT = 2,
	WIRE_OPT_LIST = 3,
	WIRE_OPT_STARTTLS = 5,
	WIRE_OPT_INFO = 6,
	WIRE_OPT_GO = 7,
	WIRE_OPT_STRUCTURED_REPLY = 8,
	WIRE_OPT_LIST_META_CONTEXT = 9,
	WIRE_OPT_SET_META_CONTEXT = 10,
};

#define WIRE_REP_ACK 1u
#define WIRE_REP_SERVER 2u
#define WIRE_REP_INFO 3u
#define WIRE_REP_META_CONTEXT 4u
#define WIRE_REP_ERR_UNSUP 0x80000001u
#define WIRE_REP_ERR_POLICY 0x80000002u
#define WIRE_REP_ERR_INVALID 0x80000003u
#define WIRE_REP_ERR_TLS_REQD 0x80000005u
#define WIRE_REP_ERR_TOO_BIG 0x80000009u

enum { WIRE_INFO_EXPORT = 0, WIRE_INFO_NAME = 1, WIRE_INFO_BLOCK_SIZE = 3 };

/* Transmission flags: what an export can do. */
enum {
	WIRE_HAS_FLAGS = 1 << 0,
	WIRE_READ_ONLY = 1 << 1,
	WIRE_SEND_FLUSH = 1 << 2,
	WIRE_SEND_FUA = 1 << 3,
	WIRE_SEND_TRIM = 1 << 5,
	WIRE_SEND_WRITE_ZEROES = 1 << 6,
	WIRE_SEND_DF = 1 << 7,
	WIRE_CAN_MULTI_CONN = 1 << 8,
	WIRE_SEND_CACHE = 1 << 10,
};

/* --- transmission */
#define WIRE_REQUEST_MAGIC 0x25609513u
#define WIRE_SIMPLE_REPLY_MAGIC 0x67446698u
#define WIRE_CHUNK_MAGIC 0x668e33efu

enum {
	WIRE_REQUEST_BYTES = 28,
	WIRE_SIMPLE_REPLY_BYTES = 16,
	WIRE_CHUNK_BYTES = 20,      /* header of a structured reply's chunk */
	WIRE_DESCRIPTOR_BYTES = 8,  /* one extent of a BLOCK_STATUS chunk */
	WIRE_PAYLOAD_MAX = 1 << 25, /* 32 MiB: what the document calls portable, and what we advertise */
};

enum wire_command {
	WIRE_CMD_READ = 0,
	WIRE_CMD_WRITE = 1,
	WIRE_CMD_DISC = 2,
	WIRE_CMD_FLUSH = 3,
	WIRE_CMD_TRIM = 4,
	WIRE_CMD_CACHE = 5,
	WIRE_CMD_WRITE_ZEROES = 6,
	WIRE_CMD_BLOCK_STATUS = 7,
};

enum {
	WIRE_FLAG_FUA = 1 << 0,
	WIRE_FLAG_NO_HOLE = 1 << 1,
	WIRE_FLAG_DF = 1 << 2,
	WIRE_FLAG_REQ_ONE = 1 << 3,
};

enum { WIRE_CHUNK_DONE = 1 }; /* flag: the last chunk of a reply */

enum {
	WIRE_CHUNK_OFFSET_DATA = 1,
	WIRE_CHUNK_BLOCK_STATUS = 5,
	WIRE_CHUNK_ERROR = 0x8001,
};

enum wire_error {
	WIRE_EPERM = 1,
	WIRE_EIO = 5,
	WIRE_ENOMEM = 12,
	WIRE_EINVAL = 22,
	WIRE_ENOSPC = 28,
	WIRE_EOVERFLOW = 75,
	WIRE_ESHUTDOWN = 108,
};

/* base:allocation's status bits are those of block/extents.h. */

#endif
