# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest of xl's whose disk is a volume's URI in its configuration: sxm-xl-dm stands for QEMU, and sxm-xenbus has the disk served."""
import bed


class XlGuest(bed.Guest):
    def __init__(self, host, name, disk, **options):
        super().__init__(host, name, **options)
        self.disk = disk
        self.config += f"""
device_model_override="/usr/local/libexec/sxm/sxm-xl-dm"
disk=[ "format=raw,vdev=xvda,access=rw,backendtype=qdisk,target={disk.uri}" ]
"""

    def find(self):
        super().find()
        self.backend["xvda"] = f"/local/domain/0/backend/qdisk/{self.domid}/{bed.DEVICES['xvda']}"

    def wait_until_up(self):
        self.host.sh(f"/bed/in-guest {self.name} {60 * bed.PATIENCE} ''", 90)
        self.connected()
        self.sh("mkdir -p /sbin; printf '#!/bin/sh\\nexec /bin/poweroff -f\\n' >/sbin/poweroff; "
                "printf '#!/bin/sh\\nexec /bin/reboot -f\\n' >/sbin/reboot; chmod +x /sbin/*")
        bed.say(f"guest {self.name} is up as domain {self.domid}")

    def create(self):
        super().create()
        state = self.host.sh(f"xenstore-read {self.backend['xvda']}/state")
        assert state == "2", f"xl create was done before the disk was offered: {state}"
        self.host.sh(f"xl unpause {self.name}")
        self.wait_until_up()
        return self

    def has_rebooted(self, how):
        """xl's on_reboot makes a domain of another number."""
        before = self.domid
        self.host.sh(f": >$(ls -t /var/log/xen/guest-{self.name}*.log | head -n 1); {how}")
        self.host.until(f"xl domid {self.name} && [ $(xl domid {self.name}) != {before} ]", 60)
        self.find()
        self.wait_until_up()
        self.host.until(f"! xl list {before}")
