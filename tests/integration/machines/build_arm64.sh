#!/bin/bash
# Build a bootable arm64 machine: Debian's cloud kernel, an initramfs that mounts the disk, and an
# ext4 disk with busybox, dropbear, OpenSSH's sftp-server and socat. Its first process is a script of
# twenty lines, or, where the kernel's command line has PID1=/lib/systemd/systemd, Debian's systemd. No
# root is needed.
#
#   build_arm64.sh DIRECTORY      writes DIRECTORY/{vmlinuz,initrd.cpio,disk.ext4,hostkey.pub}
#
# Debian packages: busybox-static (for arm64, fetched), cpio, e2fsprogs, qemu-user-static. The arm64
# packages come from the mirror that this machine's apt uses, through an apt configuration of our
# own, so that the machine's dpkg architectures stay as they are.
set -euo pipefail
out=$1
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
early=$work/early
packages=(busybox-static dropbear-bin openssh-sftp-server socat systemd)
# In the order of loading. busybox has no modprobe here: there is no modules.dep before depmod ran.
modules=(virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover
  net_failover virtio_net virtio_blk crc16 crc32c_generic libcrc32c mbcache jbd2 ext4)

fetch_packages() {
  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg kernel
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 '/debian/\?$' | sed 's,/*$,,')
  mkdir -p "$work"/apt/{lists/partial,archives/partial}
  : > "$work/apt/status"
  printf 'deb [signed-by=%s] %s bookworm main\ndeb [signed-by=%s] %s-security bookworm-security main\n' \
    "$keyring" "$mirror" "$keyring" "$mirror" > "$work/apt/sources.list"
  cat > "$work/apt/conf" << CONF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Debug::NoLocking "true";
Dir::State "$work/apt";
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt";
Dir::Cache::archives "$work/apt/archives";
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "-";
CONF
  export APT_CONFIG=$work/apt/conf
  apt-get -qq update
  apt-get -qq --download-only install "${packages[@]}"
  kernel=$(apt-cache depends linux-image-cloud-arm64 | awk '/Depends: linux-image/{print $2}')
  (cd "$work/apt/archives" && apt-get -qq download "$kernel")
  unset APT_CONFIG
  release=${kernel#linux-image-}
}

unpack() {
  local deb
  mkdir -p "$root" "$work/kernel"
  for deb in "$work"/apt/archives/*.deb; do
    case $deb in
      */linux-image-*) dpkg -x "$deb" "$work/kernel" ;;
      *) dpkg -x "$deb" "$root" ;;
    esac
  done
  rm -rf "$root"/usr/share/{doc,man,locale,info,zoneinfo} "$root"/var/{cache,lib}/*
  rm -rf "$root"/usr/lib/*/gconv
  cp "$work/kernel/boot/vmlinuz-$release" "$out/vmlinuz"
}

# The initramfs: load the drivers, mount the disk, go on from there.
make_initramfs() {
  local module file
  mkdir -p "$early"/{bin,proc,sys,dev,disk,modules}
  cp "$root/bin/busybox" "$early/bin/busybox"
  for module in "${modules[@]}"; do
    file=$(find "$work/kernel/lib/modules" -name "$module.ko")
    if [ -n "$file" ]; then cp "$file" "$early/modules/"; fi
  done
  cat > "$early/init" << INIT
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in ${modules[*]}; do
  [ ! -e /modules/\$module.ko ] || /bin/busybox insmod /modules/\$module.ko
done
until [ -b /dev/vda ]; do /bin/busybox usleep 20000; done
/bin/busybox mount -t ext4 -o rw /dev/vda /disk || { echo "the disk does not mount"; exit 1; }
/bin/busybox mount --move /dev /disk/dev
# The kernel makes a variable of what it does not know itself.
exec /bin/busybox switch_root /disk "\${PID1:-/sbin/edge-init}"
INIT
  chmod 755 "$early/init"
  (cd "$early" && find . | cpio --quiet -o -H newc -R 0:0) > "$out/initrd.cpio"
}

# Of systemd's own units only the journal's are wanted: no generators, no first boot, no tty.
tame_systemd() {
  local units=$root/lib/systemd/system own=$root/etc/systemd/system
  find "$units" -path '*.wants/*' ! -name 'systemd-journald.s*' -delete
  rm -rf "$root/lib/systemd/system-generators"
  mkdir -p "$own/multi-user.target.wants"
  ln -s /lib/systemd/system/multi-user.target "$own/default.target"
  echo 5ba1e5ba1e5ba1e5ba1e5ba1e5ba1e5b > "$root/etc/machine-id"
  cat > "$own/edge-reachable.service" << 'UNIT'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/edge-reachable
ExecStartPost=/bin/sh -c 'echo MACHINE READY > /dev/console'
UNIT
  ln -s ../edge-reachable.service "$own/multi-user.target.wants/"
}

make_disk() {
  local applet
  mkdir -p "$root"/{proc,sys,dev,run,tmp,root/.ssh,etc/dropbear,var/{lib,tmp,log},bin,sbin}
  tame_systemd
  # The first program that is found under a name is busybox's, but for those of the packages.
  for applet in $(qemu-aarch64-static "$root/bin/busybox" --list); do
    [ -e "$root/bin/$applet" ] || [ -e "$root/usr/bin/$applet" ] || [ -e "$root/sbin/$applet" ] \
      || [ -e "$root/usr/sbin/$applet" ] || ln -s /bin/busybox "$root/bin/$applet"
  done
  echo 'root:x:0:0:root:/root:/bin/sh' > "$root/etc/passwd"
  echo 'root:*:19000::::::' > "$root/etc/shadow"
  echo 'root:x:0:' > "$root/etc/group"
  echo /bin/sh > "$root/etc/shells"
  chmod 700 "$root/root" "$root/root/.ssh"
  qemu-aarch64-static -L "$root" "$root/usr/bin/dropbearkey" -t ed25519 \
    -f "$root/etc/dropbear/hostkey" | grep '^ssh-' > "$out/hostkey.pub"
  # Whatever the first process is, the machine gets reachable by this.
  cat > "$root/sbin/edge-reachable" << 'REACHABLE'
#!/bin/sh
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
hostname edge-arm64
chown -R 0:0 /root /etc/dropbear
# The key that may log in comes on a second disk of 4 KiB, so that one image serves every test run.
tr -d '\0' < /dev/vdb > /root/.ssh/authorized_keys
chmod 600 /root/.ssh/authorized_keys
/usr/sbin/dropbear -E -r /etc/dropbear/hostkey -s -p 22
# The served API is a Unix socket; tests ask it through port 8080, as an application here would.
socat TCP-LISTEN:8080,fork,reuseaddr UNIX-CONNECT:/var/lib/edgepack/run/agent.sock &
REACHABLE
  cat > "$root/sbin/edge-init" << 'INIT'
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
/sbin/edge-reachable
# A device starts its agent at boot, whatever state the power cut left the store in.
agent=/var/lib/edgepack/bin/edgepack-agent
[ ! -x $agent ] || $agent --root /var/lib/edgepack serve --detach
echo MACHINE READY
while :; do sleep 3600; done
INIT
  chmod 755 "$root/sbin/edge-init" "$root/sbin/edge-reachable"
  rm -f "$out/disk.ext4"
  mke2fs -q -t ext4 -d "$root" -E root_owner=0:0 "$out/disk.ext4" 256M
}

fetch_packages
unpack
make_initramfs
make_disk
