#!/bin/bash
# The tests of tests/e2e, by the checkout: each of them, for each runtime.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

export PYTHONPATH=/vm/site-packages:/vm/test-packages SYKUBE_TEST_CLUSTER=sykube SYKUBE_TEST_PATIENCE=6
export SYKUBE_RUNTIMES_TABLE=/vm/runtimes.md
code=0
(cd /vm/sykube && python3 -m pytest -v --tb=short --durations=0 -p no:cacheprovider tests/e2e/test_runtimes.py) || code=$?
sykube runtimes
sykube kubectl get nodes -o wide
cat $SYKUBE_RUNTIMES_TABLE
exit $code
