"""Which container engine to use on this host: Apptainer, SingularityCE or a private Apptainer.

Both engines come from one code and share their command line, the form of their instances' records
and of their configuration files; `Kind` holds where they differ. Sources, read at Apptainer 1.2.0
and 1.5.3, SingularityCE 4.0.0 and 4.5.1 (github.com: apptainer/apptainer, sylabs/singularity):

- what --version prints: cmd/internal/cli/apptainer.go and singularity.go (PACKAGE_NAME)
- variables: APPTAINER_… and SINGULARITY_…, envPrefix in the same files
- capabilities: prepareRootCaps in internal/pkg/runtime/engine/*/prepare_linux.go; what *_DROP_CAPS
  names is taken from what --keep-privs and "root default capabilities = full" give
- the options of `build`: cmd/internal/cli/build.go; --mksquashfs-args came with Apptainer 1.4.0
  (CHANGELOG.md), SingularityCE has none
- CNI plugins: defaultCNIPluginPath in internal/pkg/runtime/engine/*/container_linux.go
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sykube.errors import HostError, UsageError
from sykube.host import apt, capabilities, provision
from sykube.host.host import Host
from sykube.host.run import PATH, CommandError

# Names the engine to use instead of the first one that will do: apptainer, singularity, private,
# or the path of a program.
VARIABLE = "SYKUBE_ENGINE"
_PRIVATE = "private"


@dataclass(frozen=True)
class Kind:
    """One of the two engines.

    Attributes:
        name: its program's, as distributions install it.
        title: how it calls itself before its version.
        least: the oldest version that nodes run in.
        prefix: of the variables that it reads.
        mksquashfs_args: the first version whose `build` has --mksquashfs-args; None for no version.
    """

    name: str
    title: str
    least: tuple[int, int]
    prefix: str
    mksquashfs_args: tuple[int, int] | None


APPTAINER = Kind("apptainer", "apptainer", (1, 2), "APPTAINER_", (1, 4))
SINGULARITY = Kind("singularity", "singularity-ce", (4, 0), "SINGULARITY_", None)
# In the order of preference.
KINDS = (APPTAINER, SINGULARITY)


@dataclass(frozen=True)
class FoundEngine:
    """An engine's program and what it is called with.

    Attributes:
        version: for people, such as "apptainer 1.4.5".
        environment: variables for each call.
        why: why it is this one.
    """

    binary: Path
    version: str
    environment: Mapping[str, str]
    why: str = ""


@dataclass(frozen=True)
class Candidate:
    """An engine that was looked at.

    Attributes:
        numbers: of its version.
        problem: why it will not do; empty where it will.
    """

    binary: Path
    kind: Kind
    numbers: tuple[int, ...] = ()
    problem: str = ""

    @property
    def version(self) -> str:
        return f"{self.kind.name} {'.'.join(map(str, self.numbers))}"

    def mksquashfs_options(self, arguments: str) -> tuple[str, ...]:
        """Options of `build` that hand arguments to mksquashfs; none where it cannot do that."""
        since = self.kind.mksquashfs_args
        return ("--mksquashfs-args", arguments) if since and self.numbers >= since else ()

    def work_environment(self, folder: Path) -> dict[str, str]:
        """Variables that keep the engine's temporary files and its cache in a folder."""
        names = ("TMPDIR", f"{self.kind.prefix}TMPDIR", f"{self.kind.prefix}CACHEDIR")
        return dict.fromkeys(names, str(folder))


def private(host: Host) -> provision.PrivateApptainer:
    """Where sykube's own Apptainer is, or would be."""
    places = [provision.PrivateApptainer(host, cache / "apptainer") for cache in host.caches]
    return next((each for each in places if each.exists()), places[0])


def find(host: Host) -> FoundEngine | None:
    """The engine that SYKUBE_ENGINE names, else the host's own if it will do, else the private one.

    Returns:
        None where there is none, or the private one was asked for and is not set up yet.

    Raises:
        UsageError: SYKUBE_ENGINE names none that will do.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted != _PRIVATE:
        for candidate in candidates(host, wanted):
            if not candidate.problem:
                why = f"{VARIABLE} asks for it" if wanted else f"the first on {PATH} that will do"
                return _found(host, candidate, why)
        if wanted:
            raise _unusable(host, wanted)
    own = private(host)
    if not own.exists():
        return None
    passed = [each.problem for each in candidates(host) if not wanted]
    why = f"{VARIABLE} asks for it" if wanted else "; ".join(passed) or "the host has none"
    return _found(host, probe(host, own.binary), why, private=True)


def candidates(host: Host, wanted: str = "") -> list[Candidate]:
    """The host's own engines in the order of preference, also those that will not do.

    One that is configured for root with every capability cannot build for a root that lacks some:
    it unpacks images without the variables that it was called with.

    Args:
        wanted: the name or path of the only one to look at; all of them when empty.
    """
    found = _of_the_host(host, wanted)
    missing = ", ".join(sorted(capabilities.missing(host)))
    if not missing:
        return found
    problem = f"asks for capabilities that this root lacks ({missing})"
    return [
        each
        if each.problem or each.binary == private(host).binary
        else replace(each, problem=f"{each.binary} {problem}")
        for each in found
    ]


def _of_the_host(host: Host, wanted: str) -> list[Candidate]:
    if "/" in wanted:
        return [probe(host, Path(wanted).absolute())]
    found = []
    for kind in KINDS:
        binary = host.which(kind.name) if wanted in ("", kind.name) else None
        if binary:
            found.append(probe(host, Path(binary), kind))
    return found


def find_for_files(host: Host) -> FoundEngine:
    """An engine to look into images, which no node is to be started with.

    Raises:
        HostError: there is none.
    """
    found = find(host)
    if found is None:
        usable = [each for each in _of_the_host(host, "") if not each.problem]
        found = _found(host, usable[0], "only to look into images") if usable else None
    if found is None:
        raise HostError(
            "there is no Apptainer that sykube can use",
            resolution="Install Apptainer 1.2 or later, or let sykube set one up as root: "
            "sykube node-image build",
        )
    return found


def find_or_create(
    host: Host, mirror: Callable[[], apt.Mirror], say: Callable[[str], None]
) -> FoundEngine:
    """The engine to use; a private Apptainer is set up where there is none.

    Raises:
        SykubeError: it could not be set up.
    """
    found = find(host)
    if found is None:
        private(host).create(mirror(), say)
        found = find(host)
    assert found is not None, "create() raises unless the program starts"
    return found


def _found(host: Host, candidate: Candidate, why: str, *, private: bool = False) -> FoundEngine:
    version = f"{candidate.version} (private)" if private else candidate.version
    return FoundEngine(candidate.binary, version, _environment(host, candidate.kind), why)


def _environment(host: Host, kind: Kind) -> dict[str, str]:
    """Variables that make an engine ask for no capability that this process lacks.

    It refuses to start otherwise: "Requesting capability set … while permitted …".
    """
    missing = sorted(capabilities.missing(host))
    return {f"{kind.prefix}DROP_CAPS": ",".join(missing)} if missing else {}


def probe(host: Host, binary: Path, expected: Kind = APPTAINER) -> Candidate:
    """What a program says of itself: `singularity` may be a link to Apptainer."""
    try:
        said = host.run([binary, "--version"], check=False).stdout
    except CommandError as error:
        return Candidate(binary, expected, problem=error.brief)
    match = re.match(r"(\S+) version (\d+)\.(\d+)\.(\d+)", said.strip())
    kind = next((kind for kind in KINDS if match and match[1] == kind.title), None)
    if match is None or kind is None:
        problem = f"{binary} says {said.strip() or 'nothing'!r} of its version"
        return Candidate(binary, expected, problem=problem)
    numbers = tuple(map(int, match.groups()[1:]))
    problem = ""
    if numbers < kind.least:
        least = ".".join(map(str, kind.least))
        problem = f"{binary} is {match[0]}, nodes need {least} or later"
    return Candidate(binary, kind, numbers, problem)


def _unusable(host: Host, wanted: str) -> UsageError:
    problems = [candidate.problem for candidate in candidates(host, wanted)]
    return UsageError(
        f"{VARIABLE}={wanted} names no engine that will do",
        details="\n".join(problems) or f"there is no program {wanted} in {PATH}",
        resolution=f"Unset {VARIABLE}, or set it to apptainer, singularity, private or a path.",
    )
