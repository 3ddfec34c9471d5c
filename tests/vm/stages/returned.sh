#!/bin/bash
# After a reboot the cluster comes back by itself, as it was.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

check "this is the second boot" test "$(cat /vm/boots)" = 2
journalctl -b -1 -u sykube-sykube.service --no-pager | tail -n 5
wait_for 1200 "the unit has started the cluster" systemctl is-active sykube-sykube.service
check "all is well" sykube status
addresses > /vm/addresses-after
check "nodes and Services have their addresses" diff /vm/addresses-before /vm/addresses-after
answer=$(sykube kubectl get configmap kept -o 'jsonpath={.data.answer}')
check "what the API had acknowledged is there" test "$answer" = 42
sykube kubectl rollout status deployment/web --timeout=300s
port=$(sykube kubectl get service web -o 'jsonpath={.spec.ports[0].nodePort}')
node=$(sykube kubectl get node sykube-node1 -o 'jsonpath={.status.addresses[0].address}')
answers() { python3 -c "import urllib.request as r; r.urlopen('http://$node:$port/', timeout=20)"; }
wait_for 120 "the Service answers from the host" answers
