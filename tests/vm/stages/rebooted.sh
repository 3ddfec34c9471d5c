#!/bin/bash
# After a reboot: what was written before is there, and so is the machine.
# shellcheck source=tests/vm/guest/lib.sh
. /vm/lib.sh
check "this is the second boot" test "$(cat /vm/boots)" = 2
check "files outlive the reboot" test -e "$snapshot" -a -x /usr/local/bin/sykube
