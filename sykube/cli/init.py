"""sykube init"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sykube.cli import context, deadline, options
from sykube.cluster.commands import deadline as deadlines
from sykube.cluster.commands import lifecycle
from sykube.cluster.commands.lifecycle import InitOptions
from sykube.cluster.model import pod_network
from sykube.cluster.model.cluster import Cluster
from sykube.cluster.model.spec import SETTINGS, ClusterSpec
from sykube.cluster.model.spec_reader import make_spec
from sykube.cluster.operations import archive, clone
from sykube.errors import UsageError
from sykube.host import identity
from sykube.host.host import Host

_NAMES = [name for name, declared in SETTINGS.items() if declared.flags]


def of_new_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what cluster shall be made."""
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Install missing packages without asking."),
        click.option(
            "--config", "file", type=click.Path(path_type=Path), metavar="FILE",
            help="Read the cluster from a YAML file, sykube's (docs/configuration.md) or kind's "
            "(docs/kind-config.md), or from standard input (-); options win.",
        ),
        options.of_cluster(*_NAMES),
    ):  # fmt: skip
        command = option(command)
    return command


def read_spec(file: Path | None, flags: dict[str, Any]) -> ClusterSpec:
    """What cluster shall be made, by those options.

    Raises:
        SykubeError: they say what cannot be, or there is no such snapshot.
    """
    if file:
        file = Path("/dev/stdin") if str(file) == "-" else file.absolute()
    spec = make_spec(context.host(), file, flags, warn=context.ui().warn)
    if not spec.from_snapshot:
        return spec
    identity.check(context.host())
    snapshot = archive.find(context.host(), spec.from_snapshot)
    spec = make_spec(context.host(), file, flags, clone.defaults(snapshot))
    clone.require_clonable(spec, snapshot)
    return spec


@click.command()
@of_new_cluster
@deadline.options
@click.option(
    "--retain", is_flag=True, help="Keep a cluster whose init failed; init again resumes."
)
@click.option(
    "--rootless", is_flag=True, help="Refuse to create it as root; without root it always is."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@context.timings_option
@context.output_option
@context.common
def init(
    file: Path | None,
    retain: bool,
    yes: bool,
    dry_run: bool,
    rootless: bool,
    stop_before: str,
    snapshot_name: str,
    timings: bool,
    output: str,
    **flags: Any,
) -> None:
    """Create a cluster and add its context to your kubeconfig."""
    if rootless:
        _require_user(context.host())
    spec = read_spec(file, flags)
    ui = context.ui()
    if dry_run:
        _show_dry_run(lifecycle.dry_run(context.host(), spec, ui), output)
        return
    identity.check(context.host())
    if snapshot_name and not stop_before:
        raise UsageError(
            "--snapshot saves the cluster when --stop-before stops it",
            resolution=f"Give both, or save it later: sykube snapshot save {snapshot_name}",
        )
    ends = deadlines.before_end(context.host(), stop_before, snapshot_name)
    context.open_log(spec.name)
    with context.timed(shown=timings and output != "json") as host:
        cluster = lifecycle.init(host, spec, InitOptions(retain, yes, context.ask), ui)
    if ends.at:
        deadlines.keep(context.host(), spec.name, ends, ui)
    if output == "json":
        detailed = {"timings": ui.timings.to_dict()} if timings else {}
        context.emit(
            {
                "name": spec.name,
                "created": cluster is not None,
                "seconds": ui.timings.seconds(),
                **detailed,
            }
        )
        return
    if cluster is None:
        ui.say(f"The cluster {spec.name} is up.")
        return
    first = "apply -f YOUR-CNI.yaml" if spec.pod_network == pod_network.NONE else "get nodes"
    # A user's in a batch job has its context in a file of the job's.
    kubectl = f"kubectl --kubeconfig {cluster.state.kubeconfig}" if _in_job(cluster) else "kubectl"
    ui.say(
        f"\nThe cluster {spec.name} is up. Try:\n"
        f"  sykube kubectl{cluster.name_option} {first}\n"
        f"  {kubectl} --context {spec.name} get pods --all-namespaces"
    )


def _in_job(cluster: Cluster) -> bool:
    return cluster.host.grants.job is not None


def _require_user(host: Host) -> None:
    if not host.grants.rootless:
        raise UsageError(
            "--rootless is for users other than root: what root runs has root's rights",
            resolution="Run it as that user, or leave the option out for a cluster of root's.",
        )


def _show_dry_run(found: dict[str, Any], output: str) -> None:
    if output == "json":
        context.emit(found)
        return
    for finding in found["findings"]:
        cure = f"  → {finding['cure']}" if finding["cure"] else ""
        click.echo(f"{finding['level']:8} {finding['what']}: {finding['detail']}{cure}")
    click.echo(f"engine: {found['engine']}")
    if chosen := found["kubernetes"]:
        name, why = chosen["source"].capitalize(), chosen["reason"]
        click.echo(f"Kubernetes: {chosen['kubernetes']} from {name} ({why})")
    click.echo(f"kubeconfig: {found['kubeconfig']}")
    click.echo(f"node image: {found['nodeImage']}")
    for what, subnet in found["subnets"].items():
        click.echo(f"subnet of {what}: {subnet}")
    click.echo("steps:")
    for title in found["steps"]:
        click.echo(f"  {title}")
