#!/bin/bash
# Sourced by the stages: stops at the first command that fails, and says which.
set -eEuo pipefail
trap 'echo "FAILED: ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export snapshot=/vm/host-before.json

# check TEXT COMMAND …: a line that says whether it holds; a failure ends the stage.
check() {
    local text=$1; shift
    if "$@"; then echo "ok: $text"; else echo "NOT OK: $text ($*)" >&2; return 1; fi
}

# wait_for SECONDS TEXT COMMAND …
wait_for() {
    local end=$((SECONDS + $1)) text=$2; shift 2
    until "$@" > /dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then echo "NOT OK: $text" >&2; "$@"; return 1; fi
        sleep 2
    done
    echo "ok: $text"
}

# The snapshot of the host before the first sykube command, and the comparison with it.
hostdiff() { (cd /vm/sykube && python3 -m tests.hostdiff "$@"); }

# Of the ordinary user: where the user's systemd has what it runs, and the scope of the clusters.
export user=ada
manager=/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service
export scope=$manager/app.slice/sykube.scope

# asked FILE WORD: the line for the administrator, of what sykube has said, that has this word.
asked() { sed -n "s/.*Ask the administrator for: //p" "$1" | grep -- "$2"; }

# Addresses of nodes and Services, a line each.
addresses() {
    sykube kubectl get nodes \
        -o 'jsonpath={range .items[*]}{.metadata.name} {.status.addresses[0].address}{"\n"}{end}'
    sykube kubectl get services -A \
        -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.clusterIP}{"\n"}{end}'
}
