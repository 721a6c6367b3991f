/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tables - a domain's ACPI tables, as Xen's builder made them: tables keep|put DOMID FILE
 *
 * The kernel of a PVH domain damages them when it begins (README), and another one that comes after it has none: whoever wants to
 * see that one keeps them before the first kernel runs, and puts them back while none does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xenforeignmemory.h>

/* From 0xfc000000 to behind the RSDP: Xen, tools/libs/light/libxl_x86_acpi.c. */
enum { FIRST = 0xfc000, PAGES = 9, BYTES = PAGES * 4096 };

static void check(bool is_good, const char *what)
{
	if (is_good)
		return;
	fprintf(stderr, "tables: %s: %s\n", what, strerror(errno));
	exit(1);
}

int main(int argc, char **argv)
{
	const bool is_kept = argc == 4 && strcmp(argv[1], "keep") == 0;
	xenforeignmemory_handle *xen;
	xen_pfn_t pages[PAGES];
	void *tables;
	int file;

	if (argc != 4 || (!is_kept && strcmp(argv[1], "put") != 0)) {
		fprintf(stderr, "usage: tables keep|put DOMID FILE\n");
		return 2;
	}
	xen = xenforeignmemory_open(NULL, 0);
	check(xen, "no Xen");
	for (unsigned i = 0; i < PAGES; i++)
		pages[i] = FIRST + i;
	tables = xenforeignmemory_map(xen, (uint32_t)atoi(argv[2]), PROT_READ | PROT_WRITE, PAGES, pages, NULL);
	check(tables, argv[2]);
	file = open(argv[3], is_kept ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY, 0600);
	check(file >= 0, argv[3]);
	check((is_kept ? write(file, tables, BYTES) : read(file, tables, BYTES)) == BYTES, argv[3]);
	close(file);
	xenforeignmemory_unmap(xen, tables, PAGES);
	xenforeignmemory_close(xen);
	return 0;
}
