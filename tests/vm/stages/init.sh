# sykube init, as a user would.
. /vm/lib.sh
sykube init --local-image /vm/node.sif --workers 1
