# SPDX-License-Identifier: LGPL-2.1-or-later
# SXM_OPTIONAL(NAME, VAR, PKG-CONFIG MODULES, WHAT IT BRINGS)
#   --with-NAME: must be there; --without-NAME: not used; neither: used where found. Sets HAVE_VAR (automake and config.h).
AC_DEFUN([SXM_OPTIONAL], [
AC_ARG_WITH([$1], [AS_HELP_STRING([--with-$1], [$4 @<:@where found@:>@])], [], [with_$1=check])
have_$1=no
AS_IF([test "x$with_$1" != xno],
  [PKG_CHECK_MODULES([$2], [$3], [have_$1=yes],
    [AS_IF([test "x$with_$1" = xyes], [AC_MSG_ERROR([--with-$1 was given, but pkg-config does not find $3])])])])
AS_IF([test "x$have_$1" = xyes], [AC_DEFINE([HAVE_$2], [1], [$4])])
AM_CONDITIONAL([HAVE_$2], [test "x$have_$1" = xyes])
])
