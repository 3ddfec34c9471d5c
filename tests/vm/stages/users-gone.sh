#!/bin/bash
# Nothing is left of the user's cluster.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

gone() { ! test -e $scope; }
wait_for 30 "the scope is gone" gone
check "nothing of a node runs" test "$(pgrep -c -x 'kubelet|etcd|containerd|slirp4netns|supervisord')" = 0
check "no cluster is left" test ! -e /home/$user/.local/share/sykube
