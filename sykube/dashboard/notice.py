"""Pages of one message, with all that they need in them."""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path

_STYLE = (Path(__file__).parent / "static/notice.css").read_text(encoding="utf-8")
_digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# Nothing from anywhere but what stands in the page.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_digest}'; frame-ancestors 'none'; base-uri 'none'"
)


def notice(title: str, *paragraphs: str, refresh: str = "") -> str:
    """A page.

    Args:
        paragraphs: text; what stands between backticks is shown as code.
        refresh: a path that the browser goes to at once.
    """
    body = "".join(f"<p>{_marked(each)}</p>" for each in paragraphs)
    head = f'<meta http-equiv="refresh" content="0; url={html.escape(refresh)}">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{head}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)} – sykube</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{body}</main></body></html>"
    )


def _marked(text: str) -> str:
    parts = html.escape(text).split("`")
    return "".join(f"<code>{p}</code>" if number % 2 else p for number, p in enumerate(parts))
