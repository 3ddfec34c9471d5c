"""The steps of init, in their order; delete undoes them from the last to the first."""

from sykube.cluster.plan import Step
from sykube.cluster.spec import ClusterSpec
from sykube.cluster.steps.addons import Addons
from sykube.cluster.steps.control_plane import ControlPlane
from sykube.cluster.steps.data import Data
from sykube.cluster.steps.dns import Dns
from sykube.cluster.steps.handout import Handout
from sykube.cluster.steps.join import Join
from sykube.cluster.steps.network import Network
from sykube.cluster.steps.nodes import Nodes
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
    """The steps for one cluster: a snapshot's files come first (init --from)."""
    return (ALL[0], Unpack(), *ALL[1:]) if spec.from_snapshot else ALL
