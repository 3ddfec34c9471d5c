"""Who may ask: only the API server, by the certificate of its front proxy.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FrontProxy:
    """What the ConfigMap kube-system/extension-apiserver-authentication says.

    Attributes:
        ca: certificates that its client certificate is signed by.
        names: common names that it may have; any where there are none.
        user_headers: headers that name the user, the first one that is there counting.
    """

    ca: str
    names: tuple[str, ...]
    user_headers: tuple[str, ...]

    @classmethod
    def of(cls, data: Mapping[str, str]) -> FrontProxy:
        """Read the ConfigMap.

        Raises:
            KeyError, ValueError: the API server has no front proxy.
        """
        return cls(
            data["requestheader-client-ca-file"],
            tuple(json.loads(data["requestheader-allowed-names"])),
            tuple(json.loads(data["requestheader-username-headers"])),
        )

    def user(self, peer: Mapping[str, Any] | None, header: Callable[[str], str | None]) -> str:
        """The user that a request is made for, or nothing where it is not from the API server.

        Args:
            peer: the client's certificate, verified against `ca`, as ssl's getpeercert has it.
            header: the value of a header of the request.
        """
        subject = dict(pair for part in (peer or {}).get("subject", ()) for pair in part)
        if not subject or (self.names and subject.get("commonName") not in self.names):
            return ""
        return next(filter(None, map(header, self.user_headers)), "")
