#!/bin/bash
# One node: each further one has daemons that take time of the same two processors.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

sykube init --local-image /vm/node.sif --no-verify --workers 0 --retain \
    --kubelet-config-patch /vm/patient.yaml --kubelet-config-patch /vm/few-pods.yaml \
    --containerd-config-patch /vm/patient.toml
