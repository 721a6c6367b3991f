#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completes every command of sxm, and of each every option that its --help names; for report the moves of this host.
. "${SXM_SRCDIR:?start me with ./run}/tests/functions.sh"
. "$SXM_SRCDIR/cmd/sxm.bash-completion"
sxm=$SXM_BUILDDIR/sxm

complete_words() { # the words after sxm, the last one to be completed
	COMP_WORDS=("$sxm" "$@")
	COMP_CWORD=$#
	_sxm "$sxm"
	printf '%s\n' "${COMPREPLY[@]}" | sort -u
}

commands=$("$sxm" --help | awk '/^  [a-z]/ { print $1 }')
[ "$(wc -w <<<"$commands")" -ge 5 ]
[ "$(complete_words "" | grep -v '^--')" = "$(sort -u <<<"$commands")" ]
[ "$(complete_words stat)" = status ]
[ "$(complete_words --ver)" = --version ]
for command in $commands; do
	offered=$(complete_words "$command" --)
	for option in $("$sxm" "$command" --help | grep -oE -- '--[a-z][a-z-]*'); do
		grep -qxe "$option" <<<"$offered" || { echo "sxm $command: $option is not completed"; exit 1; }
	done
done
[ "$(complete_words status --w)" = --watch ]

# What is wrong is said last but for how it is called: it is not scrolled away by what each option does.
[ "$("$sxm" help migrate)" = "$("$sxm" migrate --help)" ] && [ "$("$sxm" migrate a b:c --help)" = "$("$sxm" migrate --help)" ]
[ "$("$sxm" help)" = "$("$sxm" --help)" ]
for command in $commands; do
	said=$("$sxm" "$command" --no-such-option 2>&1 </dev/null) && { echo "sxm $command takes anything"; exit 1; }
	grep -q "^sxm $command: .*--no-such-option" <<<"$said" || [ "$command" = relay ] || { echo "sxm $command: $said"; exit 1; }
	[ "$(wc -l <<<"$said")" -le 9 ] || { echo "sxm $command says too much: $said"; exit 1; }
done

SXM_STATE_DIR=$(mktemp -d)
trap 'rm -rf "$SXM_STATE_DIR"' EXIT
mkdir "$SXM_STATE_DIR/journeys"
touch "$SXM_STATE_DIR/journeys/web-42.history" "$SXM_STATE_DIR/journeys/web-42.json"
cd "$SXM_STATE_DIR"
[ "$(complete_words report web)" = web-42 ]
[ "$(complete_words status web)" = web-42 ]
[ "$(complete_words migrate --resume web)" = web-42 ]
[ "$(complete_words migrate web)" = "" ]
echo "all of $(wc -w <<<"$commands") commands are completed"
