"""The REST API of a Slurm cluster: slurmrestd's objects, and tokens."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sykube.cli import slurm as cli
from sykube.cluster.commands.slurm import rest, setup, status
from sykube.cluster.commands.slurm.place import Place
from sykube.errors import ExitCode, SykubeError, UsageError
from sykube.slurm import manifests
from sykube.slurm.spec import SlurmSpec
from tests.fakes import World
from tests.fakes.slurm import FakeSlurm
from tests.unit.helpers import Sykube, made
from tests.unit.test_slurm import containers, made_of, mounted, pods, role

ONE = SlurmSpec("slurm", "sykube.local/slurm:1", nodes=1)
SERVED = dataclasses.replace(ONE, rest=True)
MANY = dataclasses.replace(SERVED, users="many", names=("ada", "bob"))
BOTH = [SERVED, MANY, dataclasses.replace(SERVED, auth="munge")]


@pytest.mark.parametrize("spec", BOTH)
def test_slurmctld_has_the_key_of_tokens_and_nobody_else(spec: SlurmSpec) -> None:
    conf = made_of(spec, "ConfigMap")[0]["data"]["slurm.conf"].splitlines()
    assert "AuthAltTypes=auth/jwt" in conf
    assert "AuthAltParameters=jwt_key=/run/keys/jwt.key" in conf
    for name, pod in pods(spec).items():
        for each in containers(pod):
            assert ("jwt" in mounted(each)) == (each["name"] == "slurmctld"), name


@pytest.mark.parametrize("spec", BOTH)
def test_slurmrestd_has_no_key_and_is_a_user_that_is_nobody_else(spec: SlurmSpec) -> None:
    pod = pods(spec)["slurmrestd"]
    (slurmrestd,) = containers(pod)
    assert mounted(slurmrestd) == {"conf", "run", "tmp", "users"}
    assert slurmrestd["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    uid = pod["securityContext"]["runAsUser"]
    assert uid == pod["securityContext"]["runAsGroup"] == 64033
    assert uid not in {user.uid for user in (*spec.accounts, spec.slurm_user)}
    (service,) = [e for e in made_of(spec, "Service") if e["metadata"]["name"] == "slurmrestd"]
    assert service["spec"]["ports"][0]["port"] == 6820
    assert service["spec"]["selector"]["app.kubernetes.io/component"] == "rest"


def test_without_it_nothing_is_said_of_it() -> None:
    text = manifests.whole_text(ONE, "QQ==")
    for word in ("jwt", "slurmrestd"):
        assert word not in text


def test_the_entrypoint_gives_slurmctld_a_key_of_its_own_and_slurmrestd_none(
    tmp_path: Path,
) -> None:
    files = {"key/slurm.key": "k", "jwt/jwt.key": "j"}
    role(tmp_path, "slurmctld", files=files, programs={"slurmctld": "exit 0"})
    key = tmp_path / "run/keys/jwt.key"
    assert key.read_text() == "j\n"
    assert key.stat().st_mode & 0o777 == 0o400


def test_the_entrypoint_starts_slurmrestd_for_tokens_only(tmp_path: Path) -> None:
    shows = 'echo "$SLURM_JWT" "$@"'
    done = role(tmp_path, "slurmrestd", programs={"slurmrestd": shows})
    assert done.stdout == "daemon -a rest_auth/jwt -s slurmctld 0.0.0.0:6820\n"


@pytest.fixture
def slurm() -> FakeSlurm:
    """A Slurm cluster of one node."""
    found = FakeSlurm()
    found.sets, found.nodes = {"c1"}, {"c1-0": ("idle", "")}
    node = {"status": {"allocatable": {"cpu": "2", "memory": f"{8 * 1024**2}Ki"}}}
    found.objects = {
        "/api/v1/nodes": {"items": [node]},
        "/apis/storage.k8s.io/v1/storageclasses": {"items": [{"metadata": {"name": "shared"}}]},
    }
    for each in manifests.objects(ONE, "QQ==", owned=True):
        found.apply(each)
    return found


@pytest.fixture
def place(world: World, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Place:
    world.programs.answers["kubectl"] = slurm.kubectl
    world.stride = 0.0
    there = Place(made(world, workers=0), "slurm", slurm)

    @contextlib.contextmanager
    def found(*_: object) -> Iterator[Place]:
        yield there

    monkeypatch.setattr(setup, "at", found)
    monkeypatch.setattr(cli, "at", found)
    return there


def up(place: Place, spec: SlurmSpec) -> SlurmSpec | None:
    return setup.up(place.cluster.host, "fake", spec, lambda _: False, place.cluster.ui)


def key_of(slurm: FakeSlurm) -> Any:
    return slurm.objects["/api/v1/namespaces/slurm/secrets/slurm-jwt"]["data"]["jwt.key"]


def test_one_that_is_up_gets_it_and_keeps_it_with_its_key(place: Place, slurm: FakeSlurm) -> None:
    assert not status.collect(place).rest
    spec = up(place, SERVED)
    assert spec
    assert spec.rest
    assert slurm.rest
    assert status.collect(place).to_dict()["rest"]
    key = key_of(slurm)
    assert up(place, SERVED) is up(place, ONE) is None
    setup.set_up(place, spec, new=False)
    assert key_of(slurm) == key
    assert slurm.ended == slurm.deleted == []
    slurm.unready = {"slurmrestd-x": "0/1 nodes are available: 1 Insufficient memory."}
    assert setup.whole_problem(place, spec).startswith("slurmrestd-x: 0/1 nodes")


def test_one_of_another_image_does_not_get_it(place: Place, slurm: FakeSlurm) -> None:
    with pytest.raises(UsageError, match="may have no slurmrestd") as caught:
        up(place, dataclasses.replace(SERVED, image="sykube.local/slurm:2"))
    assert "again with --rest" in caught.value.resolution
    assert not slurm.rest


def test_a_token_is_printed_and_kept_out_of_logs(
    place: Place, slurm: FakeSlurm, sykube: Sykube
) -> None:
    up(place, SERVED)
    host, secret = place.cluster.host, list[str]()

    def run(argv: Any, **options: Any) -> Any:
        done = host.run(argv, **options)
        # Of those, no output is logged (sykube/host/run.py).
        secret.extend([done.stdout] if options.get("secret") else [])
        return done

    place.cluster.host = dataclasses.replace(host, run=run)
    done = sykube("slurm", "token", "--lifetime", "60", "--name", "fake")
    assert (done.code, done.out) == (0, "eyJ-of-user\n")
    assert slurm.said[-1] == "scontrol token username=user lifespan=60"
    assert secret == ["SLURM_JWT=eyJ-of-user\n"]


def test_no_token_is_made_for_nobody_or_where_nobody_serves(
    place: Place, slurm: FakeSlurm, sykube: Sykube
) -> None:
    with pytest.raises(SykubeError, match="slurm has no REST API") as caught:
        rest.token(place, "", 60)
    assert "sykube slurm up --name fake --rest" in caught.value.resolution
    up(place, SERVED)
    with pytest.raises(UsageError, match="no user 'eve'"):
        rest.token(place, "eve", 60)
    assert not any("token" in each for each in slurm.said)
    assert sykube("slurm", "token", "--lifetime", "0", "--name", "fake").code == ExitCode.USAGE
