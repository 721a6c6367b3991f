/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * kexec - another kernel in this one's place: kexec now|crash KERNEL INITRAMFS COMMAND-LINE
 *
 * now: this one shuts its devices down and jumps. crash: it jumps when it panics, and does nothing else. In neither case is
 * anything synced, or a process told.
 */
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	bool is_now = argc == 5 && strcmp(argv[1], "now") == 0;
	int kernel, initramfs;

	if (argc != 5 || (!is_now && strcmp(argv[1], "crash") != 0)) {
		fprintf(stderr, "usage: kexec now|crash KERNEL INITRAMFS COMMAND-LINE\n");
		return 2;
	}
	kernel = open(argv[2], O_RDONLY);
	initramfs = open(argv[3], O_RDONLY);
	if (kernel != -1 && initramfs != -1 &&
	    syscall(SYS_kexec_file_load, kernel, initramfs, strlen(argv[4]) + 1, argv[4],
		    is_now ? 0UL : (unsigned long)KEXEC_FILE_ON_CRASH) == 0 &&
	    (!is_now || reboot((int)LINUX_REBOOT_CMD_KEXEC) == 0))
		return 0;
	perror("kexec");
	return 1;
}
