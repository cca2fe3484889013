#!/usr/bin/env bash
# systemd.sh FOLDER - a real systemd as the first process of its own world: the machine's files under an overlay that is
# gone afterwards, its own processes, mounts and cgroup, the machine's network. Needs root and unshare.
#
# It ends when this process does. FOLDER is where the overlay lies.
set -euo pipefail
folder=$1 root=$1/root

if [ "${2:-}" != inside ]; then
  # A cgroup of its own, which it takes for the whole tree.
  tree=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  cgroup=$tree/parley-$$
  mkdir "$cgroup"
  echo $$ >"$cgroup/cgroup.procs"
  exec unshare --cgroup --mount --pid --fork --kill-child --uts --ipc --propagation private "$0" "$folder" inside
fi

mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
# What is the kernel's belongs to the machine.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue" "$root/dev/hugepages" "$root/run/lock"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

# Nothing but what a service needs is started: neither what looks after hardware nor what the machine has installed.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-sysctl.service systemd-modules-load.service \
  systemd-journal-flush.service systemd-binfmt.service systemd-random-seed.service systemd-tmpfiles-setup-dev.service \
  systemd-timesyncd.service systemd-remount-fs.service systemd-hwdb-update.service systemd-pstore.service \
  dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
  sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount keyboard-setup.service console-setup.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >"$root/etc/systemd/system/bare.target"
rm -f "$root/usr/sbin/policy-rc.d"
: >"$root/etc/fstab"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
exec chroot "$root" env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=bare.target --log-target=console --show-status=no
