"""The folders that are installed with the wheel: definitions, supervisor, cni, manifests."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sykube.errors import SykubeError

if TYPE_CHECKING:
    import jinja2

PACKAGE = Path(__file__).resolve().parent


def folder(name: str, package: Path | None = None) -> Path:
    """The folder `name`, in the installed package or in the checkout.

    Raises:
        SykubeError: the installation is incomplete.
    """
    package = package or PACKAGE
    for candidate in (package / "data" / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise SykubeError(
        f"the folder {name!r} of sykube is missing",
        resolution="Install sykube again: pip install --force-reinstall sykube",
    )


def render(folder_name: str, template: str, **variables: Any) -> str:
    """Render a Jinja2 template of one of those folders; a missing variable is an error."""
    return _environment(folder(folder_name)).get_template(template).render(**variables)


def script(name: str, *arguments: str) -> list[str]:
    """The command line of a shell script of definitions/scripts, wherever it is run."""
    text = (folder("definitions") / "scripts" / name).read_text(encoding="utf-8")
    return ["sh", "-c", text, name, *arguments]


# It keeps the templates that it compiled: that takes many times as long as to render one.
@functools.cache
def _environment(templates: Path) -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
