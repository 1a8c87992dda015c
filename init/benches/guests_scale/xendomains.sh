# Debian's xendomains in a tree of Debian's, driven against the fake xl: starts all guests, then stops them. Nothing that is
# written reaches the tree. $1: a folder with auto/ and xl.toml, $2: the tree, $3: the fake xl, $4: what is added to its settings.
set -e
root=$1/root
mkdir "$1/upper" "$root"
mount -t tmpfs tmpfs "$1/upper"
mkdir "$1/upper/files" "$1/upper/work"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper/files,workdir=$1/upper/work" overlay "$root"
# All that the script wants to see of Xen; the fake needs nothing there.
mount -t tmpfs tmpfs "$root/proc"
mkdir "$root/proc/xen"
touch "$root/proc/xen/privcmd"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -p "$root/$1" "$root/etc/xen/auto"
mount --bind "$1" "$root/$1"
cp "$1"/auto/* "$root/etc/xen/auto/"
rm -f "$root/usr/sbin/xl"
cp -L "$3" "$root/usr/sbin/xl"
echo "$4" >> "$root/etc/default/xendomains"
export FAKE_XL="$1/xl.toml" LC_ALL=C
for what in start stop; do
    date +%s%N > "$1/$what.began"
    chroot "$root" /etc/init.d/xendomains "$what" > "$1/$what.said" 2>&1
    date +%s%N > "$1/$what.ended"
done
