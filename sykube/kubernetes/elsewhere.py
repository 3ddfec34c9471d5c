"""A cluster of the user's own kubeconfig that sykube has not made.

By kubectl, which knows every way to log in that a kubeconfig can name: tokens, files, programs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sykube.host.host import Host
from sykube.host.owner import Owner
from sykube.kubernetes import kubeconfig
from sykube.kubernetes.api import ApiError

# Of a request, and of kubectl, which may run a program to log in.
_REQUEST_S, _KUBECTL_S = 10, 60.0
_REFUSED = re.compile(r"^Error from server \((\w+)\): ", re.MULTILINE)
# Source: apimachinery, pkg/apis/meta/v1/types.go, StatusReason.
_STATUS = {"Unauthorized": 401, "Forbidden": 403, "NotFound": 404, "AlreadyExists": 409}
_ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True)
class Elsewhere:
    """A context of a user's kubeconfig.

    A kubeconfig can name programs, which run as its owner: sudo lends them no rights.

    Attributes:
        context: its name.
        kubectl: the program.
        owner: whose kubeconfig it is.
    """

    host: Host
    context: str
    kubectl: Path
    owner: Owner

    def command(self, *words: str) -> list[str | Path]:
        """The command line of kubectl there; it needs `environment`."""
        owner = self.owner
        as_owner = ["setpriv", f"--reuid={owner.uid}", f"--regid={owner.gid}", "--init-groups"]
        return [
            *(as_owner if owner.uid != self.host.user() else []),
            self.kubectl, f"--context={self.context}", *words,
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """Variables of `command`: which files are the user's kubeconfig."""
        files = map(str, kubeconfig.user_kubeconfigs(self.owner))
        return {"HOME": str(self.owner.home), "KUBECONFIG": os.pathsep.join(files)}

    def request(
        self, method: str, path: str, body: Any = None, *, params: Mapping[str, str] | None = None
    ) -> Any:
        """Send one request: GET, POST or DELETE; the parsed JSON of the answer, or its text.

        Raises:
            ApiError: the API server refuses it, or does not answer (status 0).
        """
        verb = {"GET": "get", "POST": "create", "DELETE": "delete"}[method]
        target = f"{path}?{urlencode(params)}" if params else path
        given = ["--filename=-"] if body is not None else []
        done = self.host.run(
            self.command(f"--request-timeout={_REQUEST_S}s", verb, f"--raw={target}", *given),
            stdin=None if body is None else json.dumps(body),
            env=self.environment, timeout=_KUBECTL_S, check=False,
        )  # fmt: skip
        if done.code:
            raise self._refused(done.stderr)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout

    def get(self, path: str, **params: str) -> Any:
        return self.request("GET", path, params=params)

    def delete(self, path: str) -> None:
        """Delete an object; one that is gone is no error."""
        try:
            self.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise

    def may(self, verb: str, resource: str, namespace: str = "") -> bool:
        """Whether the user may do something there.

        Args:
            resource: of the core group, such as pods/exec.
            namespace: where; empty for what is in none.

        Raises:
            ApiError: the API server does not say so.
        """
        kind, _, part = resource.partition("/")
        asked = {"verb": verb, "resource": kind, "subresource": part, "namespace": namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        return bool(self.request("POST", _ACCESS, review)["status"]["allowed"])

    def _refused(self, said: str) -> ApiError:
        found = _REFUSED.search(said)
        reason = (said.strip().splitlines() or ["kubectl says nothing"])[-1]
        error = ApiError(
            f"the cluster of the context {self.context} refuses it: {reason}"
            if found
            else f"the cluster of the context {self.context} is not reached: {reason}",
            _STATUS.get(found[1], 500) if found else 0,
        )
        error.resolution = f"Try: kubectl --context {self.context} get namespaces"
        return error
