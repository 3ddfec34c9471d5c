#!/bin/bash
# One node: each further one has daemons that take time of the same two processors.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

# init waits 5 min for pods, which the emulator may take longer for; once more, it goes on.
for _ in 1 2 3; do
    if sykube init --local-image /vm/node.sif --no-verify --workers 0 --retain \
        --kubelet-config-patch /vm/patient.yaml --kubelet-config-patch /vm/few-pods.yaml \
        --containerd-config-patch /vm/patient.toml; then exit; fi
done
exit 1
