# The clock jumps by a day under a running cluster, and by two more while it is stopped.
. /vm/lib.sh

image=$(sykube kubectl -n kube-system get deployment storage \
    -o 'jsonpath={.spec.template.spec.containers[0].image}')
sykube kubectl create cronjob minutely --image="$image" --schedule='* * * * *' -- true
# Beyond 100 missed times the controller of 1.20 starts nothing without a deadline.
sykube kubectl patch cronjob minutely -p '{"spec":{"startingDeadlineSeconds":200}}'

since() { [ "$(date -d "$(sykube kubectl get cronjob minutely \
    -o 'jsonpath={.status.lastScheduleTime}')" +%s)" -ge "$1" ]; }
succeeds() { [ "$(sykube kubectl get pod "$1" -o 'jsonpath={.status.phase}')" = Succeeded ]; }
goes_on() {
    local now; now=$(date +%s)
    check "sykube status: healthy" sykube status
    sykube kubectl run "after-$1" --image="$image" --restart=Never --command -- true
    wait_for 120 "a new pod runs $1 later" succeeds "after-$1"
    wait_for 300 "the CronJob goes on $1 later" since "$now"
}

date -s '+1 day'
wait_for 300 "the cluster is healthy a day later" sykube status
goes_on one-day

sykube stop
date -s '+2 days'
sykube start
goes_on three-days
sykube kubectl delete cronjob minutely
sykube kubectl delete pod after-one-day after-three-days
