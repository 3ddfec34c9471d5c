"""Pages of one message, with all that they need in them."""

from __future__ import annotations

import base64
import hashlib
import html

_STYLE = """
:root { color-scheme: light dark }
body { margin: 0; min-height: 100vh; display: grid; place-items: center;
  font: 16px/1.5 system-ui, sans-serif; background: light-dark(#f5f6f8, #12151a);
  color: light-dark(#1c2128, #e6e9ee) }
main { max-width: 32rem; margin: 1.5rem; padding: 2rem; border-radius: 12px;
  background: light-dark(#fff, #1b2027); border: 1px solid light-dark(#dde1e7, #2d343e) }
h1 { margin: 0 0 .5rem; font-size: 1.25rem }
p { margin: .5rem 0 0 }
code { font: .95em ui-monospace, monospace; padding: .1em .4em; border-radius: 4px;
  background: light-dark(#eef0f3, #262d36) }
"""
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
