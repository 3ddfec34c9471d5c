"""The steps of init, in their order; delete undoes them from the last to the first."""

from sykube.cluster.commands.plan import Step
from sykube.cluster.model.pod_network import Manifest, from_setting
from sykube.cluster.model.spec import ClusterSpec
from sykube.cluster.operations.addons import Addons
from sykube.cluster.operations.control_plane import ControlPlane
from sykube.cluster.operations.data import Data
from sykube.cluster.operations.dns import Dns
from sykube.cluster.operations.handout import Handout
from sykube.cluster.operations.join import Join
from sykube.cluster.operations.network import Network
from sykube.cluster.operations.nodes import Nodes
from sykube.cluster.operations.pod_network import PodNetwork
from sykube.cluster.operations.ready import Ready
from sykube.cluster.operations.unpack import Unpack

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
