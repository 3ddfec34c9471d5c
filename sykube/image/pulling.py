"""Why an image of the control plane could not be pulled, from the output of a build."""

from __future__ import annotations

import re

from sykube.errors import SykubeError
from sykube.image.mirrors import elsewhere

# As definitions/container-images-upstream.def.j2 says it, after skopeo's own words.
_MARK = re.compile(r"^sykube: cannot pull (\S+)$", re.MULTILINE)
_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
# Of github.com/containers/image, docker/errors.go and its callers; of Go's crypto/x509; and codes
# of the OCI distribution specification, "Error Codes".
_FIXES = (
    (
        ("x509: ",),
        "If the registry has its own CA, name it: --ca-certificate FILE",
    ),
    (
        ("unauthorized", "authentication required", "invalid username/password", "denied"),
        "Give a login that may pull it, as `docker login` writes it: --registry-auth FILE",
    ),
    (
        ("manifest unknown", "name unknown", "status code 404", "not found"),
        f"Does the registry have it, and is its path right? {elsewhere('images')}",
    ),
)
_NETWORK = f"Look at the network, then run the command again. {elsewhere('images')}"


def explain(output: str) -> SykubeError | None:
    """The error in a build's output; None if it failed for another reason."""
    named = _MARK.search(output)
    if not named:
        return None
    said = _FATAL.findall(output[: named.start()])
    why = re.sub(r"\\(.)", r"\1", said[-1]) if said else "skopeo does not say why"
    return SykubeError(
        f"cannot pull the image {named[1]}",
        details=why,
        resolution=next((fix for words, fix in _FIXES if _says(why, words)), _NETWORK),
    )


def _says(why: str, words: tuple[str, ...]) -> bool:
    return any(word in why.lower() for word in words)
