#!/bin/bash
# Nothing is left of the user's cluster.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

gone() { ! test -e $scope; }
wait_for 30 "the scope is gone" gone
nothing_runs() { ! pgrep -l -x 'kubelet|etcd|containerd|slirp4netns|supervisord'; }
check "nothing of a node runs" nothing_runs
check "no cluster is left" test ! -e /home/$user/.local/share/sykube
