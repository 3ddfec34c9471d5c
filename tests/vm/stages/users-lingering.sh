#!/bin/bash
# The user has logged out and lingers: the cluster goes on, although logouts kill.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

without_login() { ! loginctl list-sessions --no-legend | grep -w $user | grep -qvw manager; }
wait_for 60 "the user is logged out" without_login
sleep 15
check "the cluster runs on" pgrep -x kubelet
check "and slirp4netns, by which it reaches the world" pgrep -u $user -x slirp4netns
inotify=$(find $scope -name cgroup.procs -exec cat {} + | while read -r pid; do
    find "/proc/$pid/fd" -lname anon_inode:inotify 2> /dev/null
done | wc -l)
check "of 128 instances of inotify a node leaves room: it has $inotify" test "$inotify" -lt 100
rm /etc/systemd/logind.conf.d/kill.conf
