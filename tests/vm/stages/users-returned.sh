#!/bin/bash
# After a reboot, as the user: the cluster has come back by itself; delete leaves nothing.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

check "this is the second boot" test "$(cat /vm/boots)" = 2
wait_for 700 "the unit has started the cluster" systemctl --user is-active sykube-sykube.service
check "all is well" sykube status
answer=$(sykube kubectl get configmap kept -o 'jsonpath={.data.answer}')
check "what the API had acknowledged is there" test "$answer" = 42
sykube delete --yes
check "the unit is gone" test ! -e ~/.config/systemd/user/sykube-sykube.service
