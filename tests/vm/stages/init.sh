#!/bin/bash
# sykube init, as a user would.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh
# A cluster that fails is kept, so that failure.sh can look into its nodes.
sykube init --local-image /vm/node.sif --no-verify --workers 1 --retain --kubelet-config-patch /vm/patient.yaml \
    --containerd-config-patch /vm/patient.toml
