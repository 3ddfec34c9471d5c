"""A cluster of sykube's beside one that stock kubeadm has made: the same, but for what has a reason."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import stock
from sykube.cluster.model import lookup
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.operations import control_plane
from sykube.host.host import Host
from sykube.ui import Ui
from tests.e2e import stock_facts
from tests.e2e.cluster import TestCluster
from tests.e2e.stock_allowed import ALLOWED
from tests.e2e.stock_compare import problems

NAME = "e2e-stock"
# Stock kubelets show the control plane's pods up to a minute after they run.
SETTLE_S = 90


@pytest.fixture(scope="module")
def clusters(
    cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Cluster]]:
    """Stock kubeadm's, and sykube's, which stays as it is."""
    folder = tmp_path_factory.mktemp("stock")
    TestCluster(NAME, folder).delete_quietly()
    ours = lookup.load(Host(), cluster.name, Ui(quiet=True))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KUBECONFIG", str(folder / "kubeconfig"))
        with stock.prepared(dataclasses.replace(ours.state.spec, name=NAME)) as made:
            stock.init(made)
            stock.join(made)
            control_plane.keep_credentials(made, made.master)
            yield made, ours


def test_it_has_what_stock_kubeadm_makes_and_no_more_but_for_what_has_a_reason(
    clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    minor, kept = clusters[0].minor.number, tmp_path / "clusters.json"
    deadline = time.monotonic() + SETTLE_S
    while True:
        read = [stock_facts.read(each) for each in clusters]
        kept.write_text(json.dumps(read))
        theirs, ours = map(stock_facts.facts, read)
        found = problems(theirs, ours, ALLOWED, minor)
        if not found or time.monotonic() > deadline:
            break
        time.sleep(3)
    assert "ConfigMap kube-system/kubeadm-config" in theirs["objects"]
    assert theirs["master"]["/etc/kubernetes/pki/ca.crt"]["content"]["Subject"]
    assert not found, "\n".join([f"of stock kubeadm -> of sykube, all in {kept}", *found])
