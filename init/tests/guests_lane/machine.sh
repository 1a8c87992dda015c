# The played host's mounts: nothing that is written reaches the machine that the test runs on. $1: its folder, $2: this program,
# $3: sino, $4: the fake xl.
set -e
mkdir -p "$1/upper" "$1/dev" "$1/proc"
mount -t tmpfs tmpfs "$1/upper"
for folder in etc usr var root; do
    mkdir "$1/upper/$folder" "$1/upper/$folder.work"
    mount -t overlay -o "lowerdir=/$folder,upperdir=$1/upper/$folder,workdir=$1/upper/$folder.work" overlay "/$folder"
done
mkdir -p /usr/lib/xen-4.20/bin /etc/xen/auto /var/log/xen /srv
for program in oxenstored xenconsoled; do
    touch "/usr/lib/xen-4.20/bin/$program"
    mount --bind "$2" "/usr/lib/xen-4.20/bin/$program"
done
ln -sf "$3" /usr/sbin/sino-supervisor
ln -sf "$3" /usr/sbin/sino
ln -sf "$4" /usr/sbin/xl
ln -sf "$1/xl.toml" /usr/sbin/xl.toml
ln -sf /bin/true /usr/sbin/modprobe
mount -t tmpfs tmpfs /sys
mkdir -p /sys/hypervisor/version /sys/class/net/xenbr0/bridge
echo xen > /sys/hypervisor/type
echo 4 > /sys/hypervisor/version/major
echo 20 > /sys/hypervisor/version/minor
mount -t tmpfs tmpfs "$1/dev"
for device in null zero full random urandom; do
    touch "$1/dev/$device"
    mount --bind "/dev/$device" "$1/dev/$device"
done
touch "$1/dev/kmsg"
mount --bind "$1/kmsg" "$1/dev/kmsg"
mount --rbind "$1/dev" /dev
mount --bind "$1/srv" /srv
mount --bind "$1/auto" /etc/xen/auto
mount --bind "$1/xen-log" /var/log/xen
mount --bind "$1/run" /run
# The kernel has no /proc/xen, and nothing can be made in its /proc: links to all that it has, and a folder beside them.
mount -t proc proc "$1/proc"
mount -t tmpfs -o nr_inodes=0 tmpfs /proc
exec "$2" --machine "$1"
