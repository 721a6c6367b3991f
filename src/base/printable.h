/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * printable - text from outside, made fit to be shown on one line of a terminal or a log
 */
#ifndef SXM_BASE_PRINTABLE_H
#define SXM_BASE_PRINTABLE_H

/* In place, of the same length: substitute for every byte of what controls a terminal (C0, DEL, C1), breaks or turns lines
 * (U+2028, U+2029, U+202A to U+202E, U+2066 to U+2069), or is no UTF-8, as the end of a text that was cut off may be. */
void printable_make(char *text, char substitute);

#endif
