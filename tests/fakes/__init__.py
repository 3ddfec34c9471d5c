"""Stand-ins for the outside, a module a subject; `World` is a whole host of them.

The same cases run against the real engine, iptables and cgroups: tests/contracts.
"""

from tests.fakes.answers import Answer as Answer
from tests.fakes.calls import Call as Call
from tests.fakes.calls import Calls as Calls
from tests.fakes.calls import Injected as Injected
from tests.fakes.files import fill as fill
from tests.fakes.host import FakeHost as FakeHost
from tests.fakes.kernel import Kernel as Kernel
from tests.fakes.programs import FakePrograms as FakePrograms
from tests.fakes.world import World as World
