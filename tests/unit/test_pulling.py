"""What a build says of an image that cannot be pulled, as one error."""

from __future__ import annotations

import subprocess

import pytest

from sykube import resources
from sykube.image import pulling

REFERENCE = "registry.example:5000/kubernetes/kube-proxy:v1.36.2"


def output(said: str) -> str:
    """What a build of the engine's has written, with skopeo's own line and that of the script."""
    quoted = said.replace('"', '\\"')
    return (
        "INFO:    Running post scriptlet\n+ skopeo copy\n"
        f'time="2026-11-22T22:22:22Z" level=fatal msg="{quoted}"\n'
        f"sykube: cannot pull {REFERENCE}\n"
        "FATAL:   While performing build: while running engine: exit status 1\n"
    )


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("reading manifest v1.36.2 in registry.example:5000/kubernetes/kube-proxy: unauthorized: "
         "authentication required", "--registry-auth FILE"),
        ('pinging container registry registry.example:5000: Get "https://registry.example:5000/v2/'
         '": tls: failed to verify certificate: x509: certificate signed by unknown authority',
         "--ca-certificate FILE"),
        ("reading manifest v1.36.2 in registry.example:5000/kubernetes/kube-proxy: manifest "
         "unknown", "Does the registry have it"),
        ("pinging container registry registry.example:5000: dial tcp 192.0.2.1:5000: connect: "
         "connection refused", "Look at the network"),
    ],
)  # fmt: skip
def test_each_failure_has_its_cure(said: str, cure: str) -> None:
    error = pulling.explain(output(said))
    assert error is not None
    assert error.brief == f"cannot pull the image {REFERENCE}"
    assert error.details == said
    assert cure in error.resolution


def test_other_failures_of_a_build_are_not_meant() -> None:
    assert pulling.explain("E: Failed to fetch\nFATAL:   while running engine\n") is None


def test_the_definition_says_what_is_looked_for() -> None:
    text = (resources.folder("definitions") / "container-images-upstream.def.j2").read_text()
    (line,) = [each for each in text.splitlines() if "sykube: cannot pull" in each]
    words = [line.replace("$said", "a word of skopeo's").replace("$reference", REFERENCE)]
    done = subprocess.run(["sh", "-c", *words], stderr=subprocess.PIPE, text=True, check=True)
    assert done.stderr == f"a word of skopeo's\nsykube: cannot pull {REFERENCE}\n"
