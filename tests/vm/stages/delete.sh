#!/bin/bash
# sykube delete, and nothing is left of it.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

sykube delete --yes
code=0; sykube status || code=$?
check "sykube status says that there is no such cluster" test $code = 5
hostdiff compare "$snapshot" --patience 30 --rebooted \
    --allow cgroup '/sys/fs/cgroup(/system.slice)?' \
        'systemd hands more controllers on for scopes of Apptainer, and takes them back later'
echo "ok: the host is as it was"
