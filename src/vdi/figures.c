/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * figures - a guest's I/O figures as xcp-rrdd reads them
 *
 *      0         11         15             19      23      31       31+8n           35+8n
 *      |DATASOURCES|data crc|metadata crc  |count n|time   |n values|metadata bytes |metadata
 *                                                  '-- data crc --'                 '-- metadata crc: JSON
 *
 * Big-endian; the CRC is zlib's, the time a double, a value an int64 or a double as the metadata says.
 * Names, types and units are those of rrdp-iostat: what draws a VM's disks knows them, and a VM that comes from an SR that
 * tapdisk serves keeps its history.  "derive": rrdd takes the difference, so it is a total; "absolute": what came since the
 * last time; "gauge": as it is.
 * Cannot fail.  Never: a value that is not of the moment its timestamp says: both are under one CRC.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vdi/figures.h"

#define MAGIC "DATASOURCES"
#define MAGIC_BYTES 11u
#define TIME_AT 23u
#define VALUES_AT 31u
#define MIB 1048576.0

enum {
	READ, WRITE, READ_LATENCY, WRITE_LATENCY, READ_MIB, WRITE_MIB, TOTAL_MIB, READ_OPS, WRITE_OPS, TOTAL_OPS, WAIT, IN_FLIGHT,
	COUNT
};

static const struct source {
	const char *name, *description, *type, *units;
	bool is_float;
} sources[COUNT] = {
	[READ] = { "read", "Reads from device VDI, in B/s", "derive", "B/s", false },
	[WRITE] = { "write", "Writes to device VDI, in B/s", "derive", "B/s", false },
	[READ_LATENCY] = { "read_latency", "Read latency from device VDI, in microseconds", "gauge", "\xce\xbcs", false },
	[WRITE_LATENCY] = { "write_latency", "Write latency from device VDI, in microseconds", "gauge", "\xce\xbcs", false },
	[READ_MIB] = { "io_throughput_read", "Data read from the VDI, in MiB/s", "absolute", "MiB/s", true },
	[WRITE_MIB] = { "io_throughput_write", "Data written to the VDI, in MiB/s", "absolute", "MiB/s", true },
	[TOTAL_MIB] = { "io_throughput_total", "All VDI I/O, in MiB/s", "absolute", "MiB/s", true },
	[READ_OPS] = { "iops_read", "Read requests per second", "absolute", "requests/s", false },
	[WRITE_OPS] = { "iops_write", "Write requests per second", "absolute", "requests/s", false },
	[TOTAL_OPS] = { "iops_total", "I/O requests per second", "absolute", "requests/s", false },
	[WAIT] = { "iowait", "Total I/O wait time (all requests) per second", "absolute", "s/s", true },
	[IN_FLIGHT] = { "inflight", "Number of I/O requests currently in flight", "gauge", "requests", false },
};

bool figures_is_device(const char *device)
{
	size_t n = strspn(device, "abcdefghijklmnopqrstuvwxyz0123456789");

	return n > 0 && n < FIGURES_DEVICE_MAX && !device[n];
}

char *figures_metadata(const char *vm, const char *device)
{
	char *text = NULL;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);

	if (!f)
		return NULL;
	fprintf(f, "{\"datasources\":{");
	for (int i = 0; i < COUNT; i++) {
		const struct source *s = &sources[i];

		fprintf(f, "%s\"vbd_%s_%s\":{\"description\":\"%s\",\"owner\":\"vm %s\",\"value\":\"%s\",\"value_type\":\"%s\","
			"\"type\":\"%s\",\"default\":\"true\",\"units\":\"%s\",\"min\":\"0.00\",\"max\":\"inf\"}",
			i ? "," : "", device, s->name, s->description, vm, s->is_float ? "0.00" : "0",
			s->is_float ? "float" : "int64", s->type, s->units);
	}
	fprintf(f, "}}");
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static uint32_t crc32_of(const void *data, size_t bytes)
{
	const uint8_t *at = data;
	uint32_t crc = UINT32_MAX;

	for (; bytes; bytes--) {
		crc ^= *at++;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static uint64_t bits_of(double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

static uint64_t mean(uint64_t sum, uint64_t count)
{
	return count ? sum / count : 0;
}

static void fill_values(struct bytes_writer *w, const struct figures_sample *last, const struct figures_sample *now)
{
	uint64_t reads = now->reads - last->reads, read_ns = now->read_ns - last->read_ns;
	uint64_t writes = now->writes - last->writes, write_ns = now->write_ns - last->write_ns;
	double read_mib = (double)(now->read_bytes - last->read_bytes) / MIB;
	double write_mib = (double)(now->write_bytes - last->write_bytes) / MIB;
	const uint64_t value[COUNT] = {
		[READ] = now->read_bytes,
		[WRITE] = now->write_bytes,
		[READ_LATENCY] = mean(read_ns, reads) / 1000,
		[WRITE_LATENCY] = mean(write_ns, writes) / 1000,
		[READ_MIB] = bits_of(read_mib),
		[WRITE_MIB] = bits_of(write_mib),
		[TOTAL_MIB] = bits_of(read_mib + write_mib),
		[READ_OPS] = reads,
		[WRITE_OPS] = writes,
		[TOTAL_OPS] = reads + writes,
		[WAIT] = bits_of((double)(read_ns + write_ns) / 1e9),
		[IN_FLIGHT] = now->in_flight,
	};

	for (int i = 0; i < COUNT; i++)
		bytes_put_u64(w, value[i]);
}

size_t figures_bytes(const char *metadata)
{
	return VALUES_AT + 8 * COUNT + 4 + strlen(metadata);
}

void figures_fill(uint8_t *file, const char *metadata, double unix_s, const struct figures_sample *last,
		  const struct figures_sample *now)
{
	struct bytes_writer data = bytes_writer(file + TIME_AT, 8 + 8 * COUNT);
	struct bytes_writer w = bytes_writer(file, figures_bytes(metadata));

	bytes_put_u64(&data, bits_of(unix_s));
	fill_values(&data, last, now);
	bytes_put(&w, MAGIC, MAGIC_BYTES);
	bytes_put_u32(&w, crc32_of(file + TIME_AT, 8 + 8 * COUNT));
	bytes_put_u32(&w, crc32_of(metadata, strlen(metadata)));
	bytes_put_u32(&w, COUNT);
	(void)bytes_put_space(&w, 8 + 8 * COUNT);
	bytes_put_u32(&w, (uint32_t)strlen(metadata));
	bytes_put(&w, metadata, strlen(metadata));
	assert(!w.is_full && bytes_room(&w) == 0);
}

bool figures_read(const uint8_t *file, size_t bytes, const char *metadata, struct figures_sample *out)
{
	struct bytes_reader r = bytes_reader(file + VALUES_AT, 16);

	*out = (struct figures_sample){ 0 };
	if (bytes != figures_bytes(metadata) || memcmp(file, MAGIC, MAGIC_BYTES) != 0 ||
	    memcmp(file + bytes - strlen(metadata), metadata, strlen(metadata)) != 0)
		return false;
	out->read_bytes = bytes_get_u64(&r);
	out->write_bytes = bytes_get_u64(&r);
	return true;
}
