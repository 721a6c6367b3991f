# SPDX-License-Identifier: LGPL-2.1-or-later
# SXM_WARNINGS: the house's warnings in WARN_CFLAGS; --enable-werror makes them errors (check.sh does, packagers need not).
AC_DEFUN([SXM_WARNINGS], [
AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [treat warnings as errors])], [], [enable_werror=no])
WARN_CFLAGS="-std=gnu11 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wconversion -Wno-sign-conversion -Wundef -Wpointer-arith -Wwrite-strings -Wno-missing-field-initializers"
AS_IF([test "x$enable_werror" = xyes], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
AC_SUBST([WARN_CFLAGS])
])
