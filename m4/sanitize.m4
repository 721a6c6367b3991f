# SPDX-License-Identifier: LGPL-2.1-or-later
# SXM_SANITIZE: --enable-asan builds with AddressSanitizer and UndefinedBehaviorSanitizer, every finding fatal.
AC_DEFUN([SXM_SANITIZE], [
AC_ARG_ENABLE([asan], [AS_HELP_STRING([--enable-asan], [build with ASan and UBSan])], [], [enable_asan=no])
SAN_CFLAGS=
AS_IF([test "x$enable_asan" = xyes],
  [SAN_CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"])
AC_SUBST([SAN_CFLAGS])
AM_CONDITIONAL([ASAN], [test "x$enable_asan" = xyes])
])
