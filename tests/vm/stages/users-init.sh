#!/bin/bash
# As an ordinary user, of what Debian's systemd hands on: a node with cgroups, in which limits hold.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

echo "this login: $(cat /proc/self/cgroup), $(loginctl show-user "$USER" -p State -p Linger | xargs)"
sykube doctor > report || true
cat report
check "doctor: cgroups are the user's, but for what Debian does not hand on" \
    grep -q 'warning *cgroups: yours to share out among nodes; without cpuset .*; without io ' report
check "doctor: the kernel's default of inotify is enough" grep -q 'warning *inotify: 128 instances.*one small cluster' report
check "doctor says what a logout ends" grep -q 'warning *logout: your last logout ends your clusters' report

sykube init --workers 0 --retain --kubelet-config-patch /vm/patient.yaml \
    --containerd-config-patch /vm/patient.toml 2> said || { cat said; exit 1; }
cat said
check "init has said what a logout ends, and what to ask for" grep -q 'logout.*loginctl enable-linger ada' said
check "all is well" sykube status
find $scope -maxdepth 3 -type d | sort
check "the first process is in the scope" test "$(wc -l < $scope/init/cgroup.procs)" -gt 0

image=$(sykube kubectl -n kube-system get deployment storage \
    -o 'jsonpath={.spec.template.spec.containers[0].image}')
run_pod() {  # NAME COMMAND
    sykube kubectl apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata: { name: $1 }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: $image
      imagePullPolicy: Never
      command: [python3, -c, "$2"]
      resources: { limits: { memory: 64Mi, cpu: 500m } }
EOF
}
run_pod modest 'import time; time.sleep(3600)'
run_pod greedy 'x = bytearray(200 << 20)'
sykube kubectl wait --for=condition=Ready pod/modest --timeout=200s
uid=$(sykube kubectl get pod modest -o 'jsonpath={.metadata.uid}')
pod=$(find $scope/sykube/sykube-master/kubepods -name "*$uid" -type d)
check "the pod's limit of memory is in the kernel" test "$(cat "$pod/memory.max")" = $((64 << 20))
check "the pod's limit of CPUs is in the kernel" test "$(cat "$pod/cpu.max")" = '50000 100000'
killed() { [ "$(sykube kubectl get pod greedy \
    -o 'jsonpath={.status.containerStatuses[0].state.terminated.reason}')" = OOMKilled ]; }
wait_for 120 "a pod that wants more is killed for it" killed

sykube pause
check "the node is frozen" grep -qx 'frozen 1' $scope/sykube/sykube-master/cgroup.events
sykube unpause
check "all is well" sykube status
sykube kubectl delete pod modest greedy
