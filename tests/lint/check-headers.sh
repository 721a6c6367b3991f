#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each header compiles alone, and has a guard named for its path.
set -euo pipefail
cd "${SXM_SRCDIR:?start me with ./run}"
flags=$(pkg-config --cflags libuv libnbd json-c uuid 2>/dev/null || :)
broken=0
while read -r header; do
	# shellcheck disable=SC2086 # flags are several words
	printf '#include "%s"\n' "$header" | ${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only \
		-I"$SXM_BUILDDIR" -Isrc -I. $flags -x c - || { echo "$header: does not compile alone" >&2; broken=1; }
	guard=SXM_$(printf '%s' "${header#src/}" | tr 'a-z/.-' 'A-Z___')
	grep -qx "#ifndef $guard" "$header" && grep -qx "#define $guard" "$header" ||
		{ echo "$header: its guard should be $guard" >&2; broken=1; }
done < <(find src mirror migrate plugins cmd -name '*.h' | sort)
exit $broken
