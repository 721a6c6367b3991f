# SPDX-License-Identifier: LGPL-2.1-or-later
# SXM_STATIC_VERBS: the verbs' program takes its libraries with it, where they can be had so: of the 0.9 ms in which a short verb is
# started and done, a dynamic linker takes 0.4. After SXM_SANITIZE and the libraries.
AC_DEFUN([SXM_STATIC_VERBS], [
AC_ARG_ENABLE([static-verbs],
  [AS_HELP_STRING([--disable-static-verbs], [link the verbs' program with shared libraries; each verb takes 0.4 ms longer])],
  [], [enable_static_verbs=auto])
AS_IF([test "x$enable_asan" = xyes && test "x$enable_static_verbs" = xauto], [enable_static_verbs=no])
VERBS_LDFLAGS=
AS_IF([test "x$enable_static_verbs" != xno], [
  AC_MSG_CHECKING([whether the verbs' program can be linked statically])
  static_verbs_LIBS=$LIBS static_verbs_LDFLAGS=$LDFLAGS
  LIBS="$JSONC_LIBS $UUID_LIBS $BLKID_LIBS $LIBS"
  LDFLAGS="$LDFLAGS -static"
  AC_LINK_IFELSE([AC_LANG_PROGRAM([[
char json_object_new_object(void);
char uuid_generate(void);
char blkid_new_probe(void);
  ]], [[return json_object_new_object() + uuid_generate() + blkid_new_probe();]])],
    [VERBS_LDFLAGS=-all-static; AC_MSG_RESULT([yes])],
    [AC_MSG_RESULT([no])
     AS_IF([test "x$enable_static_verbs" = xyes],
       [AC_MSG_ERROR([--enable-static-verbs: libc, json-c, libuuid or libblkid is not there as a static library])])])
  LIBS=$static_verbs_LIBS LDFLAGS=$static_verbs_LDFLAGS
])
AC_SUBST([VERBS_LDFLAGS])
])
