# The verbs' binary links neither libnbd, GnuTLS nor libssh2, and where it can nothing that is shared: it starts in half a millisecond.
noinst_LTLIBRARIES += libplugins.la
libplugins_la_SOURCES = \
	plugins/bounded.c plugins/bounded.h plugins/branch.c plugins/branch.h plugins/chain.c plugins/chain.h plugins/child.c plugins/child.h plugins/coalesce.c \
	plugins/coalesce.h plugins/coalesce-look.c plugins/data.c plugins/datapath.c plugins/datapath.h plugins/device.c plugins/device.h \
	plugins/device-owner.c plugins/device-owner.h plugins/failure.c plugins/failure.h plugins/joint.c plugins/joint.h plugins/hold.c plugins/hold.h \
	plugins/image.c plugins/image.h plugins/image-clone.c plugins/image-qcow2.c plugins/image-raw.c plugins/lock.c \
	plugins/lock.h plugins/merge.c plugins/merge.h plugins/meta.c plugins/meta.h plugins/mount.c plugins/mount.h \
	plugins/mount-table.c plugins/mount-table.h plugins/nfs-options.c plugins/nfs-options.h plugins/doubt.c plugins/doubt.h \
	plugins/owner-file.c \
	plugins/owner-file.h plugins/ownership.c \
	plugins/ownership.h plugins/plugin.c plugins/probe.c plugins/probe.h plugins/process.c plugins/process.h \
	plugins/qemu-img.c plugins/qemu-img.h plugins/records.c plugins/records.h plugins/side.c plugins/side.h \
	plugins/side-qcow2.c plugins/smapi.h plugins/snapshot-group.c plugins/snapshot-group.h plugins/spawn.c plugins/spawn.h plugins/sr.c plugins/sr.h plugins/sr-filebased.c \
	plugins/sr-format.c plugins/sr-device.c plugins/sr-device.h plugins/sr-ext4.c plugins/sr-xfs.c plugins/sr-nfs.c \
	plugins/sr-mounted.c plugins/sr-mounted.h plugins/taking.c plugins/taking.h plugins/taking-qcow2.c plugins/taking-raw.c plugins/types.c plugins/types.h plugins/unit.c plugins/unit.h \
	plugins/tree.c plugins/tree.h plugins/vdi-id.c plugins/vdi-id.h plugins/verb.c plugins/verb.h \
	plugins/volume.c plugins/volume-cbt.c plugins/volume-clone.c plugins/volume-compare.c plugins/volume-compose.c \
	plugins/volume-writer.c plugins/volume.h
libplugins_la_SOURCES += plugins/fsck.c plugins/fsck.h plugins/fsck-private.h plugins/fsck-salvage.c plugins/fsck-volume.c \
	plugins/fsck-chain.c
libplugins_la_SOURCES += plugins/doctor.c plugins/doctor.h plugins/doctor-private.h plugins/doctor-host.c plugins/doctor-process.c \
	plugins/doctor-volume.c plugins/program.c plugins/program.h plugins/unfinished.c plugins/unfinished.h
libplugins_la_CFLAGS = $(AM_CFLAGS) -DSXM_LIBEXECDIR='"$(sxmlibexecdir)"' $(UUID_CFLAGS) $(BLKID_CFLAGS)
libplugins_la_LIBADD = libclient.la libcbtlog.la liboverlayfile.la libqcow2.la $(UUID_LIBS) $(BLKID_LIBS)
sxmlibexec_PROGRAMS += sxm-smapi
sxm_smapi_SOURCES = plugins/main-smapi.c
sxm_smapi_LDADD = libplugins.la
sxm_smapi_LDFLAGS = $(AM_LDFLAGS) $(VERBS_LDFLAGS)
sxmlibexec_PROGRAMS += sxm-handover
sxm_handover_SOURCES = plugins/main-handover.c
sxm_handover_LDADD = libplugins.la
if HAVE_POD2MAN
man8_MANS += plugins/sxm-handover.8
endif
EXTRA_DIST += plugins/sxm-handover.pod
CLEANFILES += plugins/sxm-handover.8

# One file for each verb that is there, and no other: xapi offers what it finds.
EXTRA_DIST += plugins/verb-stub plugins/README
VOLUME_VERBS = Plugin.Query Plugin.diagnostics Plugin.ls \
	SR.probe SR.create SR.attach SR.detach SR.destroy SR.stat SR.set_name SR.set_description SR.ls \
	Volume.create Volume.destroy Volume.stat Volume.set Volume.unset Volume.set_name Volume.set_description Volume.resize \
	Volume.snapshot Volume.clone Volume.copy Volume.revert Volume.compare Volume.compose Volume.similar_content \
	Volume.enable_cbt Volume.disable_cbt Volume.data_destroy Volume.list_changed_blocks
DATAPATH_VERBS = Plugin.Query \
	Datapath.open Datapath.attach Datapath.activate Datapath.activate_readonly Datapath.deactivate Datapath.detach Datapath.close \
	Datapath.import_activate \
	Data.copy Data.mirror Data.stat Data.cancel Data.destroy Data.ls
VOLUME_TYPES = filebased ext4-ng xfs-ng nfs-ng
plugin_root = $(libexecdir)/xapi-storage-script

# A verb's file names the program as its interpreter, so that no shell is started for a verb: that is a third of what a short one takes.
# Linux takes no blanks there, and before 5.1 no more than 127 bytes; then, and where the tree is moved, it is a shell again.
verb_program = $(sxmlibexecdir)/sxm-smapi

# xapi asks a datapath plugin its name as soon as the directory appears, so a new directory is filled under another name (in the
# root, which is not watched) and moved into place whole.
install-exec-hook:
	@set -e; root='$(DESTDIR)$(plugin_root)'; stub=$$root/.stub; program='$(verb_program)'; \
	case $$program in *[[:space:]]*) program=/bin/sh ;; esac; \
	test "$${#program}" -le 125 || program=/bin/sh; \
	$(MKDIR_P) "$$root"; \
	sed "1s|.*|#!$$program|" '$(srcdir)/plugins/verb-stub' >"$$stub"; \
	install_verbs() { \
		place=$$root/$$1; shift; to=$$place; \
		test -d "$$place" || { to=$$root/.new; rm -rf "$$to"; }; \
		$(MKDIR_P) "$$to" "$${place%/*}"; \
		for verb in "$$@"; do \
			echo " install $$place/$$verb"; \
			$(INSTALL_SCRIPT) "$$stub" "$$to/.$$verb.new"; \
			mv -f "$$to/.$$verb.new" "$$to/$$verb"; \
		done; \
		test "$$to" = "$$place" || mv "$$to" "$$place"; \
	}; \
	for type in $(VOLUME_TYPES); do install_verbs "volume/org.xen.xapi.storage.$$type" $(VOLUME_VERBS); done; \
	install_verbs datapath/sxm $(DATAPATH_VERBS); \
	rm -f "$$stub"

uninstall-hook:
	@root='$(DESTDIR)$(plugin_root)'; \
	for type in $(VOLUME_TYPES); do \
		for verb in $(VOLUME_VERBS); do rm -f "$$root/volume/org.xen.xapi.storage.$$type/$$verb"; done; \
		rmdir "$$root/volume/org.xen.xapi.storage.$$type" 2>/dev/null; \
	done; \
	for verb in $(DATAPATH_VERBS); do rm -f "$$root/datapath/sxm/$$verb"; done; \
	rmdir "$$root/datapath/sxm" "$$root/datapath" "$$root/volume" "$$root" 2>/dev/null; :
