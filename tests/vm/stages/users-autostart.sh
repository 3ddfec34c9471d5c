#!/bin/bash
# As the user, who lingers: a unit of the user's own systemd starts the cluster.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

busctl get-property org.freedesktop.login1 /org/freedesktop/login1 \
    org.freedesktop.login1.Manager KillUserProcesses
sykube doctor > report || true
check "doctor: all of cgroup v2 is the user's" grep -q 'ok *cgroups: yours to share out among nodes$' report
check "doctor: a logout ends nothing" grep -q 'ok *logout: your clusters outlive it' report
sykube autostart enable 2> said
cat said
lacks_nothing() { ! grep -i linger said; }
check "nothing lacks for it" lacks_nothing
check "systemd finds nothing wrong with the unit" \
    systemd-analyze --user verify ~/.config/systemd/user/sykube-sykube.service
wait_for 700 "the unit has started the cluster" systemctl --user is-active sykube-sykube.service
check "all is well" sykube status
check "the node has it" test "$(cat $scope/sykube/sykube-master/cgroup.controllers)" = 'cpuset cpu io memory pids'
sykube kubectl create configmap kept --from-literal=answer=42
