#!/bin/bash
# An ordinary user, and what an administrator gives users: by the lines that sykube says.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

chmod 755 /vm
useradd --create-home --shell /bin/bash $user
check "$user is who the disk was made for" test "$(id -u $user):$(grep -c "^$user:100000:65536$" /etc/subuid)" = 1000:1
mkdir -p "$SYKUBE_CACHE_DIR/node-images"
ln -s /vm/node-images/* "$SYKUBE_CACHE_DIR/node-images/"
unpacked=/home/$user/.cache/sykube/unpacked
runuser -u $user -- mkdir -p $unpacked
ln -s /vm/unpacked/* $unpacked/
chmod 755 "$SYKUBE_CACHE_DIR"
printf '%s\n' tun overlay br_netfilter nf_tables > /etc/modules-load.d/sykube.conf
systemctl restart systemd-modules-load

as_user() { runuser -u $user -- env HOME=/home/$user XDG_RUNTIME_DIR=/run/user/1000 "$@"; }

sysctl -qw user.max_user_namespaces=0
code=0; as_user sykube init > /tmp/refused 2>&1 || code=$?
cat /tmp/refused
check "init is refused where users may have no user namespaces" test $code = 6
command=$(asked /tmp/refused max_user_namespaces)
eval "$command"
check "the line that init says lets them: $command" test "$(sysctl -n user.max_user_namespaces)" -gt 0
check "inotify is at the kernel's default" test "$(sysctl -n fs.inotify.max_user_instances)" = 128
