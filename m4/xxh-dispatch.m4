# SPDX-License-Identifier: LGPL-2.1-or-later
# SXM_XXH_DISPATCH
# The library may have been built for each kind of processor, and choose when it runs: some of its headers and symbols say so.
AC_DEFUN([SXM_XXH_DISPATCH],
[AC_CHECK_LIB([xxhash], [XXH3_128bits_update_dispatch],
    [AC_CHECK_HEADER([xxh_x86dispatch.h], [XXHASH_CFLAGS="$XXHASH_CFLAGS -DHAVE_XXH_DISPATCH"])], [], [$XXHASH_LIBS])])
