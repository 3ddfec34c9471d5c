#!/bin/bash
# A workload, and a unit that brings the cluster back: what the reboot after this stage is for.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

image=$(sykube kubectl -n kube-system get deployment storage \
    -o 'jsonpath={.spec.template.spec.containers[0].image}')
sykube kubectl create configmap kept --from-literal=answer=42
sykube kubectl apply -f - <<EOF
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: $image
          command: [python3, -m, http.server, "8000"]
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, type: NodePort, ports: [{ port: 80, targetPort: 8000 }] }
EOF
sykube kubectl rollout status deployment/web --timeout=300s
addresses > /vm/addresses-before
cat /vm/addresses-before

sykube autostart enable
check "systemd finds nothing wrong with the unit" \
    systemd-analyze verify /etc/systemd/system/sykube-sykube.service
wait_for 300 "the unit is active, so that shutdown stops the cluster" \
    systemctl is-active sykube-sykube.service
