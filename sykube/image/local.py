"""Node images that the user gives (--local-image): checked, then taken into the cache.

What is verified is the copy in the cache, which only root can change and which nodes are started
from, and not the file of the user, which can be another one a moment later. Nothing of an image is
run or mounted before.
"""

from __future__ import annotations

import contextlib
import filecmp
import functools
import hashlib
from pathlib import Path

from sykube.errors import UsageError
from sykube.host.host import Host
from sykube.host.run import CommandError
from sykube.image import bundle, signature
from sykube.image.build import Builder, is_sif, keep, list_images, locked_cache
from sykube.image.node_image import NodeImage
from sykube.image.trust import Trust

_COPY_TIMEOUT_S = 3600.0
_MAKE_ONE = "Make one with: sykube bundle save FILE"


def require_trust(host: Host, file: Path, *, trusted: bool) -> NodeImage | None:
    """Refuse a file that is no SIF image, or about which nobody said whose signature to trust.

    Args:
        trusted: whether the user named a trusted key, or wants nothing verified.

    Returns:
        The image in the cache that this machine built and of which the file is a copy.

    Raises:
        UsageError: it is so, or cannot be read.
    """
    try:
        looks_like_one = is_sif(file)
    except OSError as error:
        raise UsageError(
            f"cannot read the image {file}: {error.strerror}", resolution=_MAKE_ONE
        ) from error
    if not looks_like_one:
        raise UsageError(f"{file} is no SIF image", resolution=_MAKE_ONE)
    own = _built_here(host, file)
    if not trusted and own is None:
        raise UsageError(
            f"{file} was not built by this machine: whose signature is it to have?",
            resolution="Name the key that you trust: --fingerprint FINGERPRINT, and its file with\n"
            "  --public-key FILE unless root's key ring has it. Have the fingerprint from whoever\n"
            "  signed the image, by another way than the image. To run it unverified: --no-verify",
        )
    return own


def adopt(
    host: Host, file: Path, trust: Trust | None, builder: Builder, *, unverified: bool = False
) -> NodeImage:
    """Verify a node image that the user gives and take it into the cache.

    One that this machine built itself and has in its cache is taken from there as it is.

    Args:
        trust: whose signature it must have.
        unverified: whether it may do without, where `trust` is None.

    Raises:
        UsageError: as `require_trust`, or it is not one of sykube's node images.
        SykubeError: it is not signed by the trusted key (UNTRUSTED), or made by another sykube.
    """
    # Once more: it may be another file by now.
    own = require_trust(host, file, trusted=unverified or trust is not None)
    if own:
        return own
    digest = _digest(file)
    check = functools.partial(_check, host, shown=file, trust=trust, builder=builder)

    def copy(sif: Path) -> None:
        host.run(["cp", "--reflink=auto", file, sif], timeout=_COPY_TIMEOUT_S)
        if _digest(sif) != digest:
            raise UsageError(
                f"{file} changed while it was read",
                resolution="Run the command again when nothing writes to it.",
            )
        check(sif)

    with locked_cache(host):
        for image in list_images(host):
            if image.fingerprint == digest:
                check(image.sif)
                return image
        try:
            return keep(host, digest, {}, builder, copy)
        except CommandError as error:
            raise UsageError(
                f"{file} is no node image of sykube",
                details=error.details,
                resolution=_MAKE_ONE,
            ) from error


def _check(host: Host, sif: Path, *, shown: Path, trust: Trust | None, builder: Builder) -> None:
    if trust:
        signature.verify(host, sif, trust, builder, shown=shown)
    bundle.check_fits(host, sif, builder, shown=shown)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _built_here(host: Host, file: Path) -> NodeImage | None:
    """The image in the cache that this machine built and of which the file is a copy."""
    for image in list_images(host):
        # An image that goes meanwhile is none that could be taken.
        with contextlib.suppress(OSError):
            if image.built_here and filecmp.cmp(file, image.sif, shallow=False):
                return image
    return None
