"""sykube init"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sykube.cli import completion, context, sources
from sykube.cluster import archive, lifecycle, reborn
from sykube.cluster.lifecycle import InitOptions
from sykube.cluster.spec import MAX_WORKERS
from sykube.cluster.spec_reader import make_spec, split_options
from sykube.errors import UsageError
from sykube.host import preflight, proxies

_F = TypeVar("_F", bound=Callable[..., Any])


def _repeated(*names: str, text: str, **settings: Any) -> Callable[[_F], _F]:
    """An option that may be given several times, for a tuple; None where it is not given."""
    return click.option(
        *names,
        multiple=True,
        callback=lambda _ctx, _parameter, given: given or None,
        help=f"{text}; may be repeated.",
        **settings,
    )


@click.command()
@click.option(
    "--name",
    metavar="CLUSTER",
    envvar=context.CLUSTER_VARIABLE,
    help="Name of the cluster. [default: sykube]",
)
@click.option(
    "--from",
    "from_snapshot",
    metavar="SNAPSHOT",
    shell_complete=completion.snapshots,
    help="Start from what a snapshot holds, with new keys and addresses.",
)
@click.option(
    "--workers",
    "--nodes",
    type=int,
    metavar="N",
    help=f"Nodes beside the control planes, 0 to {MAX_WORKERS}. [default: 1]",
)
@click.option(
    "--control-planes",
    type=int,
    metavar="N",
    help="Nodes with a control plane, 1, 3 or 5: any minority of them can fail. [default: 1]",
)
@click.option(
    "--taint-master", is_flag=True, default=None, help="Keep ordinary pods off the master."
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the cluster from a YAML file; options win.",
)
@click.option(
    "--dest",
    metavar="DIR",
    shell_complete=completion.folders,
    help="Keep the cluster's data in this folder.",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    default=None,
    help="Keep the cluster's data in memory: fast, and gone after a reboot.",
)
@_repeated(
    "--dns",
    metavar="ADDRESS|none",
    text="Forward names to this resolver instead of the host's, or to none",
)
@_repeated(
    "--addon",
    "addons",
    metavar="NAME",
    shell_complete=completion.addons,
    text="Begin with this add-on (see: sykube addons list)",
)
@_repeated(
    "--port",
    "ports",
    metavar="HOST:NODE",
    text="Let a port of this host's loopback lead to a port of the nodes",
)
@_repeated(
    "--mount",
    "mounts",
    metavar="HOST:NODE",
    text="Let nodes see a folder of this host, read-only with :ro at the end",
)
@_repeated(
    "--registry-mirror",
    "registry_mirrors",
    metavar="HOST=URL",
    text="Look for images of this registry here first",
)
@click.option(
    "--registry-auth",
    metavar="FILE",
    shell_complete=completion.files,
    help="Credentials for registries, as in ~/.docker/config.json.",
)
@click.option(
    "--network-dir",
    metavar="DIR",
    shell_complete=completion.folders,
    help="Folder for the engine's CNI configuration.",
)
@click.option(
    "--options",
    metavar="OPTIONS",
    help="Further options of `apptainer instance start`, in one text.",
)
@sources.of_image
@click.option(
    "--mirror", metavar="URL", help="Debian mirror. [default: SYKUBE_MIRROR, or the host's own]"
)
@sources.of_kubernetes
@sources.allow_cgroup_v1
@click.option("--node-subnet", metavar="CIDR", help="Addresses of the nodes, a /24.")
@click.option("--pod-subnet", metavar="CIDR", help="Addresses of pods, a /16.")
@click.option("--service-subnet", metavar="CIDR", help="Addresses of Services.")
@click.option("--cpus", metavar="N", help="Processors that each node may use, such as 1.5.")
@click.option("--memory", metavar="SIZE", help="Memory that each node may use, such as 2Gi.")
@click.option("--pids", type=int, metavar="N", help="Processes that each node may have.")
@click.option(
    "--http-proxy",
    metavar="URL",
    help="Proxy that nodes fetch images by, for http: URLs. [default: yours, http_proxy]",
)
@click.option(
    "--https-proxy", metavar="URL", help="And for https: URLs. [default: yours, https_proxy]"
)
@click.option(
    "--no-proxy",
    metavar="NAMES",
    help="Names, domains and ranges that nodes reach without, separated by commas. "
    "[default: yours, no_proxy]",
)
@_repeated(
    "--ca-certificate",
    "ca_certificates",
    metavar="FILE",
    shell_complete=completion.files,
    text="Let nodes trust the authorities of this PEM file, too",
)
@click.option("--retain", is_flag=True, help="Leave a failed cluster as it is; init again resumes.")
@click.option("--yes", "-y", is_flag=True, help="Install missing packages without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@context.output_option
@context.common
def init(
    file: Path | None, retain: bool, yes: bool, dry_run: bool, output: str, **flags: Any
) -> None:
    """Make a cluster and add its context to your kubeconfig."""
    if flags["no_proxy"] is not None:
        flags["no_proxy"] = proxies.split_exceptions(flags["no_proxy"])
    if flags["ca_certificates"]:
        files = flags["ca_certificates"]
        flags["ca_certificates"] = tuple(str(Path(each).absolute()) for each in files)
    if flags["options"] is not None:
        flags["options"], problem = split_options(flags["options"])
        if problem:
            raise UsageError(problem, resolution="Correct it and run the command again.")
    for name in ("dest", "network_dir", "local_image", "public_key", "registry_auth"):
        if flags[name]:
            flags[name] = str(Path(flags[name]).absolute())
    file = file.absolute() if file else None
    spec = make_spec(file, flags)
    if spec.from_snapshot:
        preflight.check_identity(context.host())
        snapshot = archive.find(context.host(), spec.from_snapshot)
        spec = make_spec(file, flags, reborn.defaults(snapshot))
        reborn.check(spec, snapshot)
    ui = context.ui()
    if dry_run:
        _show_dry_run(lifecycle.dry_run(context.host(), spec, ui), output)
        return
    preflight.check_identity(context.host())
    context.open_log(spec.name)
    cluster = lifecycle.init(context.host(), spec, InitOptions(retain, yes, context.ask), ui)
    if output == "json":
        context.emit(
            {
                "name": spec.name,
                "created": cluster is not None,
                "seconds": {title: round(took, 2) for title, took in ui.timings.items()},
            }
        )
        return
    if cluster is None:
        ui.say(f"The cluster {spec.name} is up.")
        return
    ui.say(
        f"\nThe cluster {spec.name} is up. Try:\n"
        f"  sykube kubectl{cluster.name_option} get nodes\n"
        f"  kubectl --context {spec.name} get pods --all-namespaces"
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
