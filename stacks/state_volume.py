"""The script that mounts a machine's state volume at boot, and its systemd unit.

The volume outlives the machine. It is attached while the machine boots or after, so the script waits for it; it is
formatted only when nothing at all is on it. Whoever writes under the mount point first runs
`systemctl start fedspan-state.service`, which returns when the volume is mounted and fails when it is not.
"""

from __future__ import annotations

MOUNT_POINT = "/var/lib/fedspan"
LABEL = "fedspan-state"
SCRIPT_PATH = "/usr/local/sbin/fedspan-state-volume"
UNIT_NAME = "fedspan-state.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT_NAME}"
WAIT_S = 600
"""Seconds that the script waits for the volume: EC2 attaches it only when the machine runs."""

AWS_DEVICE = "/dev/sdf"
"""The name under which EC2 attaches the volume; NVMe machines show it by its vendor's name instead."""

AZURE_LUN = 0
"""The logical unit number at which Azure attaches the volume."""

_SCRIPT = """\
#!/bin/sh
# Written by fedspan at first boot. Mounts the state volume; formats it only when it is empty.
# Usage: fedspan-state-volume [DEV [MOUNT_POINT [SECONDS]]]
set -eu
dev=${1:-/dev}
mount_point=${2:-@MOUNT_POINT@}
left=${3:-@WAIT_S@}

# The one data disk: Azure's logical unit @LUN@, or EC2's volume that is not the boot disk (which has partitions).
candidate() {
  for link in "$dev"/disk/azure/scsi1/lun@LUN@ "$dev"/disk/azure/data/by-lun/@LUN@ \\
    "$dev"/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol* "$dev"/xvdf "$dev"/sdf; do
    [ -e "$link" ] || continue
    disk=$(readlink -f "$link")
    case "$(lsblk -ndo TYPE "$disk")" in disk | loop) ;; *) continue ;; esac
    [ "$(lsblk -nlo NAME "$disk" | wc -l)" -eq 1 ] || continue
    echo "$disk"
    return 0
  done
}

# Empty means: no signature of anything, and nothing but zeros in the first MiB.
empty() {
  status=0
  blkid -p "$1" >"$dev"/null 2>&1 || status=$?
  [ "$status" -eq 2 ] && cmp -s -n 1048576 "$1" "$dev"/zero
}

if mountpoint -q "$mount_point"; then
  exit 0
fi
while :; do
  if disk=$(findfs LABEL=@LABEL@ 2>"$dev"/null); then
    break
  fi
  disk=$(candidate)
  if [ -n "$disk" ] && empty "$disk"; then
    echo "formatting $disk"
    mkfs.ext4 -q -L @LABEL@ "$disk"
    break
  fi
  if [ "$left" -le 0 ]; then
    echo "no state volume: ${disk:-no data disk} is not one of fedspan's and not empty" >&2
    exit 1
  fi
  left=$((left - 2))
  sleep 2
done
mkdir -p "$mount_point"
mount -o noatime,nosuid,nodev "$disk" "$mount_point"
# The volume may have been enlarged since.
resize2fs "$disk"
"""

_UNIT = """\
[Unit]
Description=fedspan's state volume
After=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=@SCRIPT_PATH@
TimeoutStartSec=@TIMEOUT_S@

[Install]
WantedBy=multi-user.target
"""


def script() -> str:
    """The shell script, POSIX sh."""
    return _filled(_SCRIPT)


def unit() -> str:
    """The systemd unit that runs the script once at each boot."""
    return _filled(_UNIT)


def _filled(text: str) -> str:
    values = {
        "MOUNT_POINT": MOUNT_POINT,
        "LABEL": LABEL,
        "WAIT_S": str(WAIT_S),
        "TIMEOUT_S": str(WAIT_S + 60),
        "LUN": str(AZURE_LUN),
        "SCRIPT_PATH": SCRIPT_PATH,
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
