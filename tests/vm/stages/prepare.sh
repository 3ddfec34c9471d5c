#!/bin/bash
# The machine is what it is said to be; sykube is installed; the host is written down.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

# shellcheck source=/dev/null
. /etc/os-release
echo "$PRETTY_NAME, Linux $(uname -r), $(python3 --version), $(nproc) processors, $(free -m | awk '/^Mem/ { print $2 }') MB"
check "Debian 13" test "$VERSION_ID" = 13
check "process 1 is systemd" test "$(cat /proc/1/comm)" = systemd
check "cgroup v2 alone" test "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs
echo "this login: $(cat /proc/self/cgroup), capabilities $(sed -n 's/^CapEff:\t//p' /proc/self/status)"

cat > /usr/local/bin/sykube <<'EOF'
#!/bin/sh
PYTHONPATH=/vm/site-packages exec python3 -m sykube "$@"
EOF
chmod 755 /usr/local/bin/sykube

# The tree is the host's; its configuration is written anew, as sykube would on this machine.
mkdir -p "$SYKUBE_CACHE_DIR"
cp -a /vm/apptainer "$SYKUBE_CACHE_DIR/"
(cd /vm/sykube && PYTHONPATH=/vm/site-packages python3 -m tests.vm.private_apptainer)
sykube version
sykube doctor

loginctl enable-linger root
hostdiff save "$snapshot"
