#!/bin/bash
# The user has logged out and does not linger: all of it ends. Then the user may linger.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh

ended() { ! pgrep -u $user && ! test -e /run/user/1000; }
wait_for 120 "the last logout has ended what the user ran" ended
check "nothing is left in the user's cgroups" test ! -e $scope
command=$(asked /home/$user/report Delegate)
eval "$command"
# More than lingering must be said to help: what a login leaves is killed.
mkdir -p /etc/systemd/logind.conf.d
printf '[Login]\nKillUserProcesses=yes\n' > /etc/systemd/logind.conf.d/kill.conf
systemctl kill -s HUP systemd-logind
loginctl enable-linger $user
wait_for 60 "the user's systemd runs" systemctl is-active user@1000.service
handed_on=$(cat $manager/cgroup.controllers)
check "the line of doctor hands all of it on" test "$handed_on" = 'cpuset cpu io memory pids'
