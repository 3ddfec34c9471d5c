#!/bin/bash
# Pods from an image that the nodes have: they run, find names, and reach each other across nodes.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

image=$(sykube kubectl -n kube-system get deployment storage \
    -o 'jsonpath={.spec.template.spec.containers[0].image}')
for node in master node1; do
    sykube kubectl apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata:
  name: on-$node
spec:
  nodeName: sykube-$node
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: $image
      imagePullPolicy: Never
      command: [python3, -m, http.server, "8000"]
      resources:
        requests: { cpu: 50m, memory: 32Mi }
        limits: { memory: 64Mi }
EOF
done
sykube kubectl wait --for=condition=Ready pod/on-master pod/on-node1 --timeout=300s
sykube kubectl get pods -o wide

service=$(sykube kubectl get service kubernetes -o 'jsonpath={.spec.clusterIP}')
resolve='import socket, sys; print(socket.gethostbyname(sys.argv[1]))'
fetch='import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).status)'
address() { sykube kubectl get pod "$1" -o 'jsonpath={.status.podIP}'; }
answers() {  # POD SERVICE-NAME ADDRESS
    [ "$(sykube kubectl exec "$1" -- python3 -c "$resolve" "$2")" = "$3" ]
}
reaches() {  # POD POD
    [ "$(sykube kubectl exec "$1" -- python3 -c "$fetch" "http://$(address "$2"):8000/")" = 200 ]
}
for node in master node1; do
    check "the pod on $node finds kubernetes.default" \
        answers on-$node kubernetes.default.svc.cluster.local "$service"
done
check "the pod on master reaches the one on node1" reaches on-master on-node1
check "the pod on node1 reaches the one on master" reaches on-node1 on-master

# A pod's limit is in the kernel, in the tree of the pod's own node.
uid=$(sykube kubectl get pod on-node1 -o 'jsonpath={.metadata.uid}')
limit() { cat /sys/fs/cgroup/sykube/sykube-node1/kubepods/burstable/pod"$uid"/memory.max; }
check "the pod's limit of memory is in its node's cgroups" test "$(limit)" = $((64 << 20))
sykube kubectl delete pod on-master on-node1
