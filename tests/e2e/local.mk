# Whole programs against each other. A test that needs root or a tool that is not there skips itself (77).
E2E_TESTS = \
	tests/e2e/test-bad-input.sh \
	tests/e2e/test-barrier.sh \
	tests/e2e/test-commit.sh \
	tests/e2e/test-completion.sh \
	tests/e2e/test-demo.sh \
	tests/e2e/test-disk-nbd.sh \
	tests/e2e/test-functions.sh \
	tests/e2e/test-group.sh \
	tests/e2e/test-guest.sh \
	tests/e2e/test-install-deps.sh \
	tests/e2e/test-life.sh \
	tests/e2e/test-life-keeper.sh \
	tests/e2e/test-life-kill.sh \
	tests/e2e/test-life-mirror.sh \
	tests/e2e/test-mirror-far-sides.sh \
	tests/e2e/test-mirror-faults.sh \
	tests/e2e/test-mirror-targets.sh \
	tests/e2e/test-nbd-interop.sh \
	tests/e2e/test-nbd-server.sh \
	tests/e2e/test-power-loss.sh \
	tests/e2e/test-qcow2.sh \
	tests/e2e/test-reboot.sh \
	tests/e2e/test-remember.sh \
	tests/e2e/test-resume.sh \
	tests/e2e/test-stress.sh \
	tests/e2e/test-systemd.sh \
	tests/e2e/test-tls.sh \
	tests/e2e/test-tls-records.py \
	tests/e2e/test-verify.sh \
	tests/e2e/test-xen-attach.sh \
	tests/e2e/test-xen-broker.sh \
	tests/e2e/test-xen-guest.sh \
	tests/e2e/test-xen-move.sh \
	tests/e2e/test-xen-xl.sh
TESTS += $(E2E_TESTS)
EXTRA_DIST += $(E2E_TESTS) tests/e2e/netns.sh tests/e2e/systemd.sh tests/e2e/reboots.sh tests/e2e/mirror-try.sh
# Takes minutes: ./check.sh --long.
EXTRA_DIST += tests/e2e/test-power.sh tests/e2e/test-nfs.sh tests/e2e/machine.sh tests/e2e/machine-init tests/e2e/machine-power tests/e2e/machine-nfs \
	tests/e2e/machine-nfs-guests tests/e2e/machine-vm
# The verbs, in Python (which xapi's hosts have too).
SMAPI_TESTS = tests/e2e/test-every-verb.py tests/e2e/test-smapi-vectors.py tests/e2e/test-smapi-volumes.py tests/e2e/test-smapi-snapshots.py \
	tests/e2e/test-qcow2-pause.py tests/e2e/test-paused-disk.py tests/e2e/test-smapi-qcow2.py tests/e2e/test-smapi-qcow2-live.py tests/e2e/test-smapi-datapath.py tests/e2e/test-cbt.py tests/e2e/test-cbt-moves.py \
	tests/e2e/test-lease.py \
	tests/e2e/test-crash-verbs.py tests/e2e/test-far.py tests/e2e/test-records.py tests/e2e/test-sr-device.py tests/e2e/test-sr-nfs.py
SMAPI_TESTS += tests/e2e/test-doctor.py tests/e2e/test-doctor-person.py tests/e2e/test-dom0-access.py tests/e2e/test-figures.py tests/e2e/test-many-mirrors.py tests/e2e/test-many-stats.py tests/e2e/test-verb-files.py tests/e2e/test-xapi-weak-points.py
SMAPI_TESTS += tests/e2e/test-snapshot-group.py tests/e2e/test-fsck.py tests/e2e/test-hostile-sr.py tests/e2e/test-sr-crowd.py
SMAPI_TESTS += tests/e2e/test-import.py tests/e2e/test-export.py
SMAPI_TESTS += tests/e2e/test-copy.py tests/e2e/test-ls.py tests/e2e/test-serve.py
SMAPI_TESTS += tests/e2e/test-carriers.py
SMAPI_TESTS += tests/e2e/test-export-import.py
SMAPI_TESTS += tests/e2e/test-migrate.py tests/e2e/test-migrate-vm.py tests/e2e/test-migrate-vm-faults.py tests/e2e/test-vm-memory.py
SMAPI_TESTS += tests/e2e/test-progress.py tests/e2e/test-status.py
TESTS += $(SMAPI_TESTS)
EXTRA_DIST += $(SMAPI_TESTS) tests/e2e/smapi.py tests/e2e/vm_hosts.py tests/e2e/sick.py tests/e2e/stress.py tests/e2e/stress_faults.py tests/e2e/stress_hosts.py tests/e2e/stress_round.py \
	tests/e2e/vectors.json
