# sykube delete, and nothing is left of it.
. /vm/lib.sh

sykube delete --yes
code=0; sykube status || code=$?
check "sykube status says that there is no such cluster" test $code = 5
hostdiff compare $snapshot --patience 30
echo "ok: the host is as it was"
