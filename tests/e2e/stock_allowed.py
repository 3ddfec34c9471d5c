"""How a cluster of sykube's may differ from one of stock kubeadm's, and why."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.stock_compare import Allowed

_MASTER, _WORKER, _OBJECT = "master > /", "worker > /", "objects > "
_CONFIGURATION = f"{_OBJECT}ConfigMap kube-system/kubeadm-config > data > ClusterConfiguration"
_ELECTING = ("kube-controller-manager", "kube-scheduler")
_ELECTION = ("lease-duration: ", "90s"), ("renew-deadline: ", "80s"), ("retry-period: ", "1s")
_SYNC = 'syncFrequency: "0s" -> "10s"'


def _static(name: str) -> tuple[str, str]:
    """Where a container of the control plane is described: in its file, and in its Pod."""
    container = f"spec > containers > {name}"
    return (
        f"{_MASTER}etc/kubernetes/manifests/{name}.yaml > content > {container}",
        f"{_OBJECT}Pod kube-system/{name}-<master> > {container}",
    )


def _program(name: str) -> Iterator[str]:
    """The objects of one of sykube's programs."""
    for kind in (
        *(f"ServiceAccount kube-system/{name}", f"Deployment kube-system/{name}"),
        *(f"ReplicaSet kube-system/{name}-(hash)", f"Pod kube-system/{name}-(hash)-(any)"),
        *(f"ClusterRole sykube:{name}", f"ClusterRoleBinding sykube:{name}"),
    ):
        yield f"{_OBJECT}{kind}: absent -> {{*}}"


ALLOWED = (
    Allowed(
        "a controller manager that cannot renew its lease in time ends itself: on a slow disk again"
        " and again (sykube/kubernetes/election.py)",
        tuple(
            f'{place} > command > --leader-elect-{option}absent -> "{value}"'
            for place in _static("kube-controller-manager")
            for option, value in _ELECTION
        ),
    ),
    Allowed(
        "the only scheduler needs no election (sykube/kubernetes/election.py)",
        (
            *(
                f'{place} > command > --leader-elect: "true" -> "false"'
                for place in _static("kube-scheduler")
            ),
            f"{_CONFIGURATION} > scheduler > extraArgs: absent -> {{*}}",
            f"{_OBJECT}Lease kube-system/kube-scheduler: {{*}} -> absent",
        ),
    ),
    Allowed(
        "the controller manager and the scheduler need not make keys of RSA at each start"
        " (definitions/scripts/serving-certificate)",
        (
            *(
                f"{place}{field}"
                for name in _ELECTING
                for place in _static(name)
                for field in (" > command > --tls-*: absent -> *", " > volumeMounts > serving: *")
            ),
            *(
                f"{place.partition(' > containers')[0]} > volumes > serving: absent -> *"
                for name in _ELECTING
                for place in _static(name)
            ),
            f"{_MASTER}etc/kubernetes/serving*: absent -> {{*}}",
            f"{_CONFIGURATION} > controllerManager > extraVolumes: absent -> {{*}}",
            f"{_CONFIGURATION} > scheduler > extraVolumes: absent -> {{*}}",
        ),
    ),
    Allowed(
        "sykube gives nodes their pod subnets: kubeadm's allocator would hold up every controller"
        " that starts after it for 10 s",
        (
            *(
                f'{place} > command > --allocate-node-cidrs: "true" -> "false"'
                for place in _static("kube-controller-manager")
            ),
            f"{_CONFIGURATION} > controllerManager > extraArgs: absent -> {{*}}",
        ),
    ),
    Allowed(
        "the control plane is probed each second, so that init need not wait for the next time",
        tuple(
            f"{place} > startupProbe > {field}"
            for name in ("etcd", "kube-apiserver", *_ELECTING)
            for place in _static(name)
            for field in (
                "failureThreshold: 54 -> 540",
                "initialDelaySeconds: 10 -> 1",
                "periodSeconds: 10 -> 1",
            )
        ),
    ),
    Allowed(
        "a kubelet shows its static pods at its next sync, for which init waits",
        (
            f"{_OBJECT}ConfigMap kube-system/kubelet-config* > data > kubelet > {_SYNC}",
            f"{_MASTER}var/lib/kubelet/config.yaml > content > {_SYNC}",
            f"{_WORKER}var/lib/kubelet/config.yaml > content > {_SYNC}",
        ),
    ),
    Allowed(
        "a kubelet of before 1.26 says 10 s after its start that it is ready",
        tuple(
            f"{place} > {field}"
            for place in (
                f"{_OBJECT}ConfigMap kube-system/kubelet-config* > data > kubelet",
                f"{_MASTER}var/lib/kubelet/config.yaml > content",
                f"{_WORKER}var/lib/kubelet/config.yaml > content",
            )
            for field in (
                'nodeStatusReportFrequency: "0s" -> "5m0s"',
                'nodeStatusUpdateFrequency: "0s" -> "2s"',
            )
        ),
        before=26,
    ),
    Allowed(
        "an etcd of one member that is started again waits a second longer for others",
        (
            *(
                f'{place} > command > --election-timeout: absent -> "500"'
                for place in _static("etcd")
            ),
            f"{_CONFIGURATION} > etcd > local > extraArgs: absent -> {{*}}",
        ),
    ),
    Allowed(
        "nodes join by a token that is deleted when they have; that of stock kubeadm is for a day",
        (
            f"{_OBJECT}Secret kube-system/bootstrap-token-(any): {{*}} -> absent",
            f"{_OBJECT}ConfigMap kube-public/cluster-info > data > jws-kubeconfig-(any):"
            ' "(data)" -> absent',
        ),
    ),
    Allowed(
        "the control plane's address, which can move, is on the same link as a node's own",
        (
            f"{_WORKER}var/lib/kubelet/kubeadm-flags.env > content > KUBELET_KUBEADM_ARGS"
            ' > --node-ip: absent -> "<worker-address>"',
        ),
    ),
    Allowed(
        "Debian has no CoreDNS: sykube's own DNS",
        (
            *_program("cluster-dns"),
            *(
                f"{_OBJECT}{kind} kube-system/kube-dns{varying}: absent -> {{*}}"
                for kind, varying in (
                    ("Service", ""), ("Endpoints", ""), ("EndpointSlice", "-(any)"),
                )
            ),
            f"{_OBJECT}Secret kube-system/cluster-dns-token-(any): absent -> {{*}}",
        ),
        before=21,
    ),
    Allowed(
        "CoreDNS is probed each second, so that init need not wait for the next time",
        (
            f"{_OBJECT}Deployment kube-system/coredns > spec > template > spec > containers"
            " > coredns > readinessProbe > periodSeconds: 10 -> 1",
        ),
        since=21,
    ),
    Allowed(
        "CoreDNS asks nobody else for the addresses of Services and pods, as a resolver that does"
        " not answer takes its time (sykube/addons/dns.py)",
        (
            f"{_OBJECT}ConfigMap kube-system/coredns > data > Corefile: "
            '"*kubernetes cluster.local in-addr.arpa ip6.arpa {*" -> '
            '"*kubernetes cluster.local *.in-addr.arpa 127.in-addr.arpa {*"',
        ),
        since=21,
    ),
    Allowed(
        "the add-ons that every cluster has",
        (
            *_program("storage"),
            *_program("loadbalancer"),
            *(
                f"{_OBJECT}{each}: absent -> {{*}}"
                for each in (
                    "ServiceAccount kube-system/network-policy",
                    "DaemonSet kube-system/network-policy",
                    "ControllerRevision kube-system/network-policy-(hash)",
                    "Pod kube-system/network-policy-(any) on *",
                    "ClusterRole sykube:network-policy",
                    "ClusterRoleBinding sykube:network-policy",
                )
            ),
            f"{_OBJECT}StorageClass standard: absent -> {{*}}",
            f"{_OBJECT}StorageClass shared: absent -> {{*}}",
        ),
    ),
    Allowed(
        "what nodes can run pods by",
        tuple(
            f"{_OBJECT}RuntimeClass {name}: absent -> {{*}}"
            for name in ("runc", "crun", "apptainer")
        ),
    ),
    Allowed(
        "the tokens of their ServiceAccounts",
        (
            f"{_OBJECT}Secret kube-system/storage-token-(any): absent -> {{*}}",
            f"{_OBJECT}Secret kube-system/loadbalancer-token-(any): absent -> {{*}}",
            f"{_OBJECT}Secret kube-system/network-policy-token-(any): absent -> {{*}}",
        ),
        before=24,
    ),
    Allowed(
        "keys are ECDSA's where kubeadm can make them so: a dozen of RSA takes it seconds"
        " (sykube/kubernetes/kubeadm.py)",
        (
            *(
                f"{node}etc/kubernetes/{file} > content > {field}"
                for node, file in (
                    (_MASTER, "pki/*.crt"),
                    (_MASTER, "*#certificate-authority-data"),
                    (_WORKER, "pki/ca.crt"),
                    (_WORKER, "kubelet.conf#certificate-authority-data"),
                )
                for field in (
                    *('ASN1 OID: absent -> "prime256v1"', 'Signature Algorithm: "sha256With*'),
                    'Public Key Algorithm: "rsaEncryption" -> "id-ecPublicKey"',
                    'keys: ["Public-Key: (2048 bit)"] -> ["Public-Key: (256 bit)"]',
                )
            ),
            f'{_MASTER}etc/kubernetes/*#client-certificate-data > content > Signature Algorithm: *',
            f'{_MASTER}etc/kubernetes/pki/*.key > content > parts: ["RSA PRIVATE KEY"]'
            ' -> ["EC PRIVATE KEY"]',
            f"{_MASTER}etc/kubernetes/pki/*.key > content > keys: *2048 bit*256 bit*",
            f"{_MASTER}etc/kubernetes/pki/sa.pub > content > keys: *2048 bit*256 bit*",
            f"{_WORKER}var/lib/kubelet/pki/kubelet-client-(time).pem > content > Signature"
            ' Algorithm: "sha256WithRSAEncryption" -> "ecdsa-with-SHA256"',
        ),
    ),
    Allowed(
        "what asks kubeadm for them",
        (f"{_CONFIGURATION} > featureGates: absent -> {{*}}",),
        before=21,
    ),
    Allowed(
        "and so are those of administrators and of the control plane's programs from 1.31 on",
        (
            *(
                f"{_MASTER}etc/kubernetes/*#client-certificate-data > content > {field}"
                for field in (
                    'ASN1 OID: absent -> "prime256v1"',
                    'Public Key Algorithm: "rsaEncryption" -> "id-ecPublicKey"',
                    "keys: *2048 bit*256 bit*",
                )
            ),
            f"{_MASTER}etc/kubernetes/*#client-key-data > content > keys: *2048 bit*256 bit*",
        ),
        since=31,
    ),
    Allowed(
        "a kubelet that is bootstrapped writes no empty preferences, and asks for a signature only",
        (
            f"{_WORKER}etc/kubernetes/kubelet.conf > content > preferences: absent -> {{}}",
            f"{_WORKER}var/lib/kubelet/pki/kubelet-client-(time).pem > content > X509v3 Key Usage: *",
        ),
        since=21,
    ),
    Allowed(
        "what asks kubeadm for them from 1.31 on",
        (f'{_CONFIGURATION} > encryptionAlgorithm: "RSA-2048" -> "ECDSA-P256"',),
        since=31,
    ),
    Allowed(
        "the controller manager's controllers start sooner with more requests a second",
        tuple(
            f"{place} > command > --kube-api-{option}: absent -> {value}"
            for place in _static("kube-controller-manager")
            for option, value in (("qps", '"200"'), ("burst", '"400"'))
        ),
    ),
    Allowed(
        "kubelets have the requests a second that are the default from 1.27 on",
        tuple(
            f"{place} > {field}"
            for place in (
                f"{_OBJECT}ConfigMap kube-system/kubelet-config* > data > kubelet",
                f"{_MASTER}var/lib/kubelet/config.yaml > content",
                f"{_WORKER}var/lib/kubelet/config.yaml > content",
            )
            for field in ("kubeAPIQPS: * -> 50", "kubeAPIBurst: * -> 100")
        ),
    ),
    Allowed(
        "the kubelet of the master starts again when the API server is there, and goes on with the"
        " certificate that kubeadm made; stock's asks for one of its own at once",
        (f"{_MASTER}var/lib/kubelet/pki/kubelet-client-(time).pem*",),
    ),
    Allowed(
        "nor do workers, which have certificates that were made beforehand"
        " (sykube/cluster/operations/kubelet_identity.py)",
        (f"{_OBJECT}CertificateSigningRequest csr-(any)*",),
    ),
    Allowed(
        "kubeadm keeps what its phase control-plane has added to the configuration only in a run"
        " of both; it adds it again each time that it writes the manifest",
        (f"{_CONFIGURATION} > apiServer > extraArgs: {{*}} -> absent",),
        before=21,
    ),
    Allowed(
        "static pods are looked at again as soon as they have started (sykube/kubernetes/stalled.py)",
        (f"{_OBJECT}Pod kube-system/*-<master> > metadata > annotations > sykube.local/hastened: *",),
        by_chance=True,
    ),
)  # fmt: skip
