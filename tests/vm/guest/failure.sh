#!/bin/bash
# Runs after a stage that failed: what somebody who looks for the cause would look at.
section() { printf '\n===== %s\n' "$*"; }
# A kubelet says ten times a second that its node is not registered yet.
end_of() { grep -v 'kubelet.go.*node ".*" not found' "$1" | cut -c 1-400 | tail -n 40; }
shopt -s nullglob

section "sykube's log"
tail -n 150 /var/log/sykube/*.log /home/*/.local/state/sykube/*.log /run/user/*/sykube/log
for pid in $(pgrep supervisord); do
    section "node of supervisord $pid: $(nsenter -t "$pid" -u hostname), cgroup $(cat /proc/"$pid"/cgroup)"
    nsenter -t "$pid" -a supervisorctl status
    for name in containerd kubelet supervisord; do
        section "$name of that node"
        end_of "/proc/$pid/root/var/log/sykube/$name.log"
    done
    section "containers of that node, and their last and fatal lines"
    nsenter -t "$pid" -a sh -c 'ctr -n k8s.io containers list; ip address; ip route
        tail -n 5 /var/log/containers/*; grep -h " F[0-9]\{4\} " /var/log/containers/*' | cut -c 1-400
done
section "logs of nodes that init kept"
for log in {/var/log,/home/*/.local/state}/sykube/*/*/sykube/*.log; do printf '\n--- %s\n' "$log"; end_of "$log"; done
section "logs of Apptainer's instances"
tail -n 40 {/root,/home/*}/.apptainer/instances/logs/*/*/*
section "processes by processor time"
ps -e -o time,rss,stat,args --sort=-time | head -n 25 | cut -c 1-160
section cgroups
find /sys/fs/cgroup/{sykube,user.slice} -maxdepth 6 -type d
section memory
free -m
section "journal"
journalctl --no-pager --boot --lines=120
exit 0
