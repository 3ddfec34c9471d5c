#!/bin/bash
# In another login than the one that made the cluster: it works, and its nodes are apart.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

check "sykube status says that all is well" sykube status
sykube kubectl get nodes,pods -A -o wide
ready() { [ "$(sykube kubectl get nodes --no-headers | awk '$2 == "Ready"' | wc -l)" = 2 ]; }
check "both nodes are Ready" ready

tree=/sys/fs/cgroup/sykube
# Processes of a cgroup and below it that have a given command name; without one, all.
processes() {
    find "$1" -name cgroup.procs -exec cat {} + | while read -r pid; do
        if [ "${2:-$(cat "/proc/$pid/comm")}" = "$(cat "/proc/$pid/comm")" ]; then echo "$pid"; fi
    done
}
one() { [ "$(processes "$@" | wc -l)" = 1 ]; }
for node in sykube-master sykube-node1; do
    find $tree/$node -maxdepth 2 -type d | sort
    check "$node has one kubelet" one $tree/$node kubelet
    check "$node has one kube-proxy, in its own kubepods" one $tree/$node/kubepods kube-proxy
    check "$node sees its tree as the root" sykube exec ${node#sykube-} \
        sh -c 'test -d /sys/fs/cgroup/kubepods && ! test -e /sys/fs/cgroup/system.slice'
    # The kubelet's own limits reach the kernel: kubepods has shares and a limit of memory.
    check "$node's kubepods have a limit of memory" grep -qE '^[0-9]+$' $tree/$node/kubepods/memory.max
done
check "the control plane is in the master's tree" one $tree/sykube-master/kubepods kube-apiserver
for program in kubelet containerd kube-proxy; do
    check "there is no $program but these two" test "$(pgrep -xc $program)" = 2
done
