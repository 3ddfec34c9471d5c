"""Volumes that come and go with their claims."""

from __future__ import annotations

import http
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sykube.incluster import storage
from sykube.incluster.api import ApiError
from sykube.incluster.storage import Provisioner, RefusedError, quantity

Json = dict[str, Any]
SHOWN = "/var/lib/sykube/volumes"
CLASSES: dict[str, Json] = {
    "standard": {"provisioner": storage.PROVISIONER, "reclaimPolicy": "Delete"},
    "shared": {"provisioner": storage.PROVISIONER, "parameters": {"shared": "true"}},
    "kept": {"provisioner": storage.PROVISIONER, "reclaimPolicy": "Retain"},
}


class FakeApi:
    """Takes in what is made and answers for StorageClasses."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Json | None]] = []
        self.failing: dict[tuple[str, str], int] = {}

    def send(self, method: str, path: str, body: Json | None = None) -> Json:
        status = self.failing.get((method, path), 0)
        if status:
            raise ApiError(f"{status} no", status)
        if method == "GET":
            return CLASSES[path.rpartition("/")[2]]
        self.sent.append((method, path, body))
        return {}

    def made(self) -> list[Json]:
        return [b for m, p, b in self.sent if p == "/api/v1/persistentvolumes" and b and m]

    def events(self) -> list[str]:
        return [b["message"] for _, p, b in self.sent if p.endswith("/events") and b]


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def provisioner(api: FakeApi, tmp_path: Path) -> Provisioner:
    return Provisioner(api, tmp_path, SHOWN)  # type: ignore[arg-type]


def claim(storage_class: str = "standard", **spec: Any) -> Json:
    return {
        "metadata": {
            "name": "data",
            "namespace": "shop",
            "uid": "11-22",
            "annotations": {"volume.beta.kubernetes.io/storage-provisioner": storage.PROVISIONER},
        },
        "spec": {
            "storageClassName": storage_class,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
            **spec,
        },
    }


def volume(policy: str = "Delete", phase: str = "Released", path: str = "") -> Json:
    return {
        "metadata": {
            "name": "pvc-11-22",
            "uid": "v",
            "annotations": {"pv.kubernetes.io/provisioned-by": storage.PROVISIONER},
        },
        "spec": {
            "persistentVolumeReclaimPolicy": policy,
            "hostPath": {"path": path or f"{SHOWN}/pvc-11-22"},
            "claimRef": {},
        },
        "status": {"phase": phase},
    }


def test_a_claim_gets_a_folder_that_any_user_can_write_to(
    provisioner: Provisioner, api: FakeApi, tmp_path: Path
) -> None:
    provisioner.reconcile([claim()], [])
    assert (tmp_path / "pvc-11-22").stat().st_mode & 0o777 == 0o777
    (made,) = api.made()
    assert made["spec"]["hostPath"] == {"path": f"{SHOWN}/pvc-11-22", "type": "Directory"}
    assert made["spec"]["capacity"] == {"storage": "1Mi"}
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert made["spec"]["claimRef"] == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": "shop",
        "name": "data",
        "uid": "11-22",
    }
    assert storage.is_released(made | {"status": {"phase": "Released"}})
    assert api.events() == []


def test_several_nodes_can_write_to_the_class_for_it(
    provisioner: Provisioner, api: FakeApi
) -> None:
    provisioner.reconcile([claim("shared", accessModes=["ReadWriteMany"])], [])
    assert api.made()[0]["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (claim(accessModes=["ReadWriteMany"]), "storageClassName: shared"),
        (claim(resources={"requests": {"storage": "5000Ti"}}), "MB free"),
        (claim(resources={"requests": {"storage": "much"}}), "no quantity"),
        (claim(volumeMode="Block"), "Block is not to be had"),
        (claim(dataSource={"name": "x"}), "leave out dataSource"),
    ],
)
def test_what_cannot_be_had_is_said_once_and_changes_nothing(
    provisioner: Provisioner, api: FakeApi, tmp_path: Path, asked: Json, words: str
) -> None:
    for _ in range(3):
        provisioner.reconcile([asked], [])
    (message,) = api.events()
    assert words in message
    assert api.made() == []
    assert list(tmp_path.iterdir()) == []


def bound(asked: Json) -> None:
    asked["spec"]["volumeName"] = "pvc-11-22"


def ending(asked: Json) -> None:
    asked["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z"


def of_another(asked: Json) -> None:
    asked["metadata"]["annotations"] = {
        "volume.beta.kubernetes.io/storage-provisioner": "another.example"
    }


def unasked(asked: Json) -> None:
    del asked["metadata"]["annotations"]


@pytest.mark.parametrize("change", [bound, ending, of_another, unasked])
def test_claims_that_wait_for_nothing_of_ours_are_left_alone(
    provisioner: Provisioner, api: FakeApi, tmp_path: Path, change: Callable[[Json], None]
) -> None:
    asked = claim()
    change(asked)
    provisioner.reconcile([asked], [])
    assert api.sent == []
    assert list(tmp_path.iterdir()) == []


def test_a_claim_whose_volume_is_there_is_left_alone(
    provisioner: Provisioner, api: FakeApi
) -> None:
    provisioner.reconcile([claim()], [volume(phase="Available")])
    assert api.sent == []


def test_a_volume_that_cannot_be_recorded_leaves_no_folder(
    provisioner: Provisioner, api: FakeApi, tmp_path: Path
) -> None:
    api.failing["POST", "/api/v1/persistentvolumes"] = http.HTTPStatus.FORBIDDEN
    provisioner.reconcile([claim()], [])
    assert list(tmp_path.iterdir()) == []
    assert len(api.events()) == 1


def test_a_volume_that_was_recorded_just_now_keeps_its_folder(
    provisioner: Provisioner, api: FakeApi, tmp_path: Path
) -> None:
    api.failing["POST", "/api/v1/persistentvolumes"] = http.HTTPStatus.CONFLICT
    provisioner.reconcile([claim()], [])
    assert (tmp_path / "pvc-11-22").is_dir()
    assert api.events() == []


def test_a_volume_goes_after_its_claim_with_all_that_is_in_it(
    provisioner: Provisioner, api: FakeApi, tmp_path: Path
) -> None:
    (tmp_path / "pvc-11-22/of/a/pod").mkdir(parents=True)
    (tmp_path / "pvc-33").mkdir()
    provisioner.reconcile([], [volume()])
    assert [path.name for path in tmp_path.iterdir()] == ["pvc-33"]
    assert api.sent == [("DELETE", "/api/v1/persistentvolumes/pvc-11-22", None)]


@pytest.mark.parametrize("left", [volume("Retain"), volume(phase="Bound")])
def test_a_volume_that_shall_stay_stays(
    provisioner: Provisioner, api: FakeApi, tmp_path: Path, left: Json
) -> None:
    (tmp_path / "pvc-11-22").mkdir()
    provisioner.reconcile([], [left])
    assert (tmp_path / "pvc-11-22").is_dir()
    assert api.sent == []


def test_a_folder_elsewhere_is_never_removed(
    provisioner: Provisioner, api: FakeApi, tmp_path: Path
) -> None:
    (tmp_path / "pvc-11-22").mkdir()
    provisioner.reconcile([], [volume(path="/etc")])
    assert (tmp_path / "pvc-11-22").is_dir()
    assert "remove it yourself" in api.events()[0]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1k", 1000), ("1Ki", 1024), ("1.5Gi", 3 * 2**29), ("0.1", 1), ("2E", 2 * 10**18)],
)
def test_quantities(text: str, size: int) -> None:
    assert quantity(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "1Xi", "-", "1 Gi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(RefusedError, match="is no quantity"):
        quantity(text)
