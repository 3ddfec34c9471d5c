"""The steps of init, in their order; delete undoes them from the last to the first."""

from sykube.cluster.plan import Step
from sykube.cluster.pod_network import Manifest, from_setting
from sykube.cluster.spec import ClusterSpec
from sykube.cluster.steps.addons import Addons
from sykube.cluster.steps.control_plane import ControlPlane
from sykube.cluster.steps.data import Data
from sykube.cluster.steps.dns import Dns
from sykube.cluster.steps.handout import Handout
from sykube.cluster.steps.join import Join
from sykube.cluster.steps.network import Network
from sykube.cluster.steps.nodes import Nodes
from sykube.cluster.steps.pod_network import PodNetwork
from sykube.cluster.steps.ready import Ready
from sykube.cluster.steps.unpack import Unpack

ALL: tuple[Step, ...] = (
    Data(),
    Network(),
    Nodes(),
    ControlPlane(),
    Dns(),
    Addons(),
    Join(),
    Ready(),
    Handout(),
)


def of(spec: ClusterSpec) -> tuple[Step, ...]:
    """The steps for one cluster: with a snapshot's files (init --from), or a manifest of CNI."""
    steps = [*ALL]
    if spec.from_snapshot:
        steps.insert(1, Unpack())
    elif isinstance(from_setting(spec.pod_network), Manifest):
        steps.insert([step.name for step in steps].index(Dns.name), PodNetwork())
    return tuple(steps)
