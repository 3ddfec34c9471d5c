#!/bin/bash
# The user has logged out and lingers: the cluster goes on, although logouts kill.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

without_login() { ! loginctl list-sessions --no-legend | grep -qw $user; }
wait_for 60 "the user is logged out" without_login
sleep 15
check "the cluster runs on" pgrep -x kubelet
check "and slirp4netns, by which it reaches the world" pgrep -u $user -x slirp4netns
rm /etc/systemd/logind.conf.d/kill.conf
