/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * main-smapi - the one program behind every verb
 *
 * A verb's file is run with this as its interpreter, so its path is the first argument. It is valid as shell and as Python
 * besides (xapi runs it as a program or with python3), and then execs this in the same manner.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "plugins/coalesce.h"
#include "plugins/verb.h"

static int explain(FILE *to)
{
	fprintf(to, "sxm-smapi is run by the files in xapi-storage-script/volume and xapi-storage-script/datapath, which "
		    "xapi runs:\n"
		    "      sxm-smapi .../volume/org.xen.xapi.storage.filebased/SR.ls --json <request\n"
		    "      sxm-smapi .../datapath/sxm/Datapath.attach DBG URI DOMAIN\n"
		    "      sxm-smapi --coalesce DIRECTORY   what the verbs start in an SR's directory\n"
		    "      sxm-smapi --help | --version\n");
	return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return explain(stderr);
	if (strcmp(argv[1], "--version") == 0) {
		printf("sxm %s\n", PACKAGE_VERSION);
		return 0;
	}
	if (strcmp(argv[1], "--help") == 0) {
		explain(stdout);
		printf("\nThe verbs and their parameters:\n");
		verb_list();
		return 0;
	}
	log_init("sxm-smapi");
	if ((argc == 3 || argc == 4) && strcmp(argv[1], "--coalesce") == 0 && argv[2][0] == '/')
		return coalesce_main(argv[2], argc == 4 ? atoi(argv[3]) : -1);
	if (argv[1][0] == '-')
		return explain(stderr);
	return verb_main(argv[1], argv + 2);
}
