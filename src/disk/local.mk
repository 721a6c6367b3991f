noinst_LTLIBRARIES += libdisk.la
libdisk_la_SOURCES = \
	src/disk/disk-cache.c src/disk/disk-cache.h \
	src/disk/disk-clone.c \
	src/disk/disk-extents.c src/disk/disk-extents.h \
	src/disk/disk-file.h src/disk/disk-open.c \
	src/disk/disk-lease.c \
	src/disk/disk-nbd.c src/disk/disk-nbd.h src/disk/disk-nbd-fence.c \
	src/disk/disk-nbd-link.c src/disk/disk-nbd-open.c \
	src/disk/disk-order.c src/disk/disk-order.h \
	src/disk/disk-qcow2.c src/disk/disk-qcow2.h src/disk/disk-qcow2-command.c src/disk/disk-qcow2-server.c \
	src/disk/disk-raw.c src/disk/disk-raw.h src/disk/disk.h \
	src/disk/disk-zero.c src/disk/disk-zero.h \
	src/disk/engine-pool.c src/disk/engine-uring.c src/disk/engine.h
libdisk_la_CFLAGS = $(AM_CFLAGS) $(URING_CFLAGS) $(NBD_CFLAGS)
libdisk_la_LIBADD = libblock.la libqcow2.la libjson.la $(URING_LIBS) $(NBD_LIBS)
EXTRA_DIST += src/disk/README
