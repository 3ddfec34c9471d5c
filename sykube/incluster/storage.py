"""`python3 -m incluster.storage`: provisions a folder for each claim; deletes it with the claim.

What an external provisioner has to do and must not do:
https://github.com/kubernetes/design-proposals-archive/blob/main/storage/volume-provisioning.md
"""

from __future__ import annotations

import argparse
import http.client
import logging
import math
import re
import shutil
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from . import events
from .api import Api, ApiError, Json
from .reconcile import Objects, serve

log = logging.getLogger("incluster.storage")

PROVISIONER = "sykube.local/folder"
# Kubernetes sets the second from 1.23 on, beside the first.
_ASKED_OF = (
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
)
_MADE_BY = "pv.kubernetes.io/provisioned-by"
_MANY = "ReadWriteMany"
_WATCHED = ("persistentvolumeclaims", "persistentvolumes")
_SUFFIXES: dict[str, int] = {
    suffix: 1000**power for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))
}
_QUANTITY = re.compile(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)([A-Za-z]*)")
_SUFFIXES |= {f"{s}i": 1024**p for p, s in enumerate(("K", "M", "G", "T", "P", "E"), 1)}


class RefusedError(Exception):
    """A claim that cannot be met, and why, for its events."""


class Provisioner:
    """Makes a volume for each claim that asks for one, and removes it after its claim.

    Args:
        root: folder of the volumes as this program sees it.
        shown: the same folder as nodes see it.
    """

    def __init__(self, api: Api, root: Path, shown: str) -> None:
        self._api, self._root, self._shown = api, root, shown
        self._said: dict[str, str] = {}

    def reconcile(self, claims: Sequence[Json], volumes: Sequence[Json]) -> None:
        """Do what is to be done now; what fails is tried again at the next call."""
        there = {volume["metadata"]["name"] for volume in volumes}
        for claim in claims:
            if is_waiting(claim) and name_of(claim) not in there:
                self._attempt(claim, self._provision, "ProvisioningFailed")
        for volume in volumes:
            if is_released(volume):
                self._attempt(volume, self._remove, "VolumeFailedDelete")

    def _attempt(self, obj: Json, action: Callable[[Json], None], reason: str) -> None:
        uid = obj["metadata"]["uid"]
        try:
            action(obj)
            self._said.pop(uid, None)
        except (RefusedError, ApiError, OSError, http.client.HTTPException) as error:
            log.warning("%s object=%s error=%s", reason, obj["metadata"]["name"], error)
            if self._said.get(uid) != str(error):
                self._warn(obj, reason, str(error))
                self._said[uid] = str(error)

    def _provision(self, claim: Json) -> None:
        spec, metadata = claim["spec"], claim["metadata"]
        place = f"/apis/storage.k8s.io/v1/storageclasses/{spec['storageClassName']}"
        storage_class = self._api.send("GET", place)
        self._check(claim, storage_class)
        folder = self._root / name_of(claim)
        made = not folder.exists()
        folder.mkdir(exist_ok=True)
        # Whatever user the pod's program is; nobody else comes as far as here.
        folder.chmod(0o777)
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name_of(claim), "annotations": {_MADE_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
                "storageClassName": spec["storageClassName"],
                "hostPath": {"path": f"{self._shown}/{name_of(claim)}", "type": "Directory"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    **{key: metadata[key] for key in ("namespace", "name", "uid")},
                },
            },
        }
        try:
            self._api.send("POST", "/api/v1/persistentvolumes", volume)
        except ApiError as error:
            if error.status == http.HTTPStatus.CONFLICT:
                return
            if made:
                folder.rmdir()
            raise
        log.info("made volume=%s claim=%s/%s", folder.name, metadata["namespace"], metadata["name"])

    def _check(self, claim: Json, storage_class: Json) -> None:
        spec = claim["spec"]
        many = storage_class.get("parameters", {}).get("shared") == "true"
        if _MANY in spec["accessModes"] and not many:
            raise RefusedError(
                f"the StorageClass {spec['storageClassName']} has no {_MANY} volumes: "
                "ask for storageClassName: shared"
            )
        if spec.get("volumeMode", "Filesystem") != "Filesystem":
            raise RefusedError("volumes are folders: volumeMode Block is not to be had")
        for key in ("selector", "dataSource"):
            if spec.get(key):
                raise RefusedError(f"a volume is made empty and for one claim: leave out {key}")
        wanted = quantity(spec["resources"]["requests"]["storage"])
        free = shutil.disk_usage(self._root).free
        if wanted > free:
            raise RefusedError(
                f"the claim asks for {wanted // 10**6} MB, and the disk of the cluster's folder "
                f"has {free // 10**6} MB free: ask for less, or free some"
            )

    def _remove(self, volume: Json) -> None:
        name = volume["metadata"]["name"]
        folder = self._root / name
        if volume["spec"]["hostPath"]["path"] != f"{self._shown}/{name}":
            raise RefusedError(f"its folder is not {self._shown}/{name}: remove it yourself")
        if folder.exists():
            shutil.rmtree(folder)
        try:
            self._api.send("DELETE", f"/api/v1/persistentvolumes/{name}")
        except ApiError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise
        log.info("removed volume=%s", name)

    def _warn(self, obj: Json, reason: str, message: str) -> None:
        claims = "claimRef" not in obj["spec"] and "resources" in obj["spec"]
        kind = "PersistentVolumeClaim" if claims else "PersistentVolume"
        try:
            events.warn(self._api, kind, obj, reason, message, PROVISIONER)
        except (ApiError, OSError, http.client.HTTPException) as error:
            log.warning("no event object=%s error=%s", obj["metadata"]["name"], error)


def name_of(claim: Json) -> str:
    """Name of the volume for a claim; Kubernetes' own provisioners name theirs so, too."""
    return f"pvc-{claim['metadata']['uid']}"


def is_waiting(claim: Json) -> bool:
    """Whether a claim waits for a volume of ours."""
    annotations = claim["metadata"].get("annotations", {})
    return (
        PROVISIONER in [annotations.get(name) for name in _ASKED_OF]
        and not claim["spec"].get("volumeName")
        and not claim["metadata"].get("deletionTimestamp")
    )


def is_released(volume: Json) -> bool:
    """Whether a volume of ours has lost its claim, and shall go."""
    return (
        volume["metadata"].get("annotations", {}).get(_MADE_BY) == PROVISIONER
        and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        and volume.get("status", {}).get("phase") in ("Released", "Failed")
        and not volume["metadata"].get("deletionTimestamp")
    )


def quantity(text: str) -> int:
    """Bytes of a quantity such as 1Gi, 500M or 1e9, rounded up.

    Raises:
        RefusedError: it is none.
    """
    match = _QUANTITY.fullmatch(text)
    try:
        number, suffix = match.groups() if match else ("", "")
        return math.ceil(Fraction(number) * _SUFFIXES[suffix])
    except (ValueError, KeyError) as error:
        raise RefusedError(f"the size {text!r} is no quantity") from error


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="incluster.storage", description=__doc__)
    parser.add_argument("--volumes", type=Path, required=True, help="the folder, here and in nodes")
    options = parser.parse_args(arguments)
    kept: list[Provisioner] = []

    def act(api: Api, objects: Objects) -> None:
        if not kept:
            kept.append(Provisioner(api, options.volumes, str(options.volumes)))
        kept[0].reconcile(*(objects.all(resource) for resource in _WATCHED))

    serve(_WATCHED, act)


if __name__ == "__main__":
    main()
