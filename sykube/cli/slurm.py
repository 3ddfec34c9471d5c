"""sykube slurm: Slurm clusters in the pods of a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sykube.cli import completion, context, debian_image, logfile
from sykube.cli import efficiency as shown_efficiency
from sykube.cluster.commands.slurm import (
    accounting,
    jobs,
    limits,
    removal,
    rest,
    scaling,
    setup,
)
from sykube.cluster.commands.slurm import status as slurm_status
from sykube.cluster.commands.slurm.place import NAMESPACE, Place, at
from sykube.errors import UsageError
from sykube.image import slurm as image_of_slurm
from sykube.slurm import manifests, users
from sykube.slurm.controller import (
    ACCOUNTING_CONTAINER,
    ACCOUNTING_POD,
    CONTAINER,
    NODE_CONTAINER,
    POD,
    REST,
)
from sykube.slurm.spec import (
    BY_CGROUP,
    BY_POD,
    IDLE_S,
    MANY,
    MUNGE,
    NONE,
    ONE,
    SLURM,
    SlurmSpec,
    parse_nodes,
)

# What follows the command's own options is the other program's.
_THE_REST = {"allow_interspersed_args": False}
_NAMESPACE = click.option(
    "--namespace", "-n", default=NAMESPACE, show_default=True, metavar="NAMESPACE",
    help="Namespace of the Slurm cluster, a different one for each.",
)  # fmt: skip
_AS_USER = click.option(
    "--user", default="", metavar="USER", help="As this user. [default: the first one]"
)


def _sized(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a new Slurm cluster."""
    for option in reversed((
        click.option("--nodes", default="2", show_default=True, metavar="N|MIN-MAX",
                     help="Number of Slurm's nodes, each a pod. MIN-MAX: as jobs need them."),
        click.option("--idle", type=int, default=IDLE_S, show_default=True, metavar="SECONDS",
                     help="With --nodes MIN-MAX: nodes without a job for so long go."),
        click.option("--cpus", type=int, default=1, show_default=True, metavar="C",
                     help="CPUs of each node: the limit of its pod."),
        click.option("--memory", default="1Gi", show_default=True, metavar="SIZE",
                     help="Memory of each node: request and limit of its pod."),
        click.option("--users", type=click.Choice([ONE, MANY]), default=ONE, show_default=True,
                     help="One user, and pods without any of root's rights, or many."),
        click.option("--user", "names", multiple=True, metavar="USER",
                     help="Name of a user. May be repeated with --users many. [default: user]"),
        click.option("--users-file", type=click.Path(path_type=Path), metavar="FILE",
                     shell_complete=completion.files,
                     help="Users by a file: names, or lines of passwd(5) with their numbers."),
        click.option("--auth", type=click.Choice([SLURM, MUNGE, NONE]), default=SLURM,
                     show_default=True, help="How Slurm knows who asks. None: by the network."),
        click.option("--confine", type=click.Choice([BY_POD, BY_CGROUP]), default=BY_POD,
                     show_default=True,
                     help="What holds a job to its memory: a pod for each job, or a cgroup in it."),
        click.option("--compilers", is_flag=True,
                     help="A login pod with gcc, g++, gfortran, make and Open MPI's compilers."),
        click.option("--accounting", is_flag=True,
                     help="Keep what jobs took: slurmdbd, for sacct, sacctmgr and sreport."),
        click.option("--rest", is_flag=True,
                     help="Serve Slurm's REST API: slurmrestd, for who has a token."),
        click.option("--runtime", default="", metavar="NAME",
                     help="RuntimeClass of its pods. [default: what pods without one run in]"),
    )):  # fmt: skip
        command = option(command)
    return command


@click.group()
def slurm() -> None:
    """Slurm clusters in pods: of nodes smaller than a machine, which come and go."""


@slurm.command()
@context.named
@_NAMESPACE
@_sized
@click.option("--yes", "-y", is_flag=True, help="Install missing Debian packages without asking.")
@context.common
def up(name: str, yes: bool, **asked: Any) -> None:
    """Set up a Slurm cluster and wait until it takes jobs.

    Its image is built of Debian's packages when it is needed for the first time.
    """
    logfile.open_for(name)
    spec = _spec(**asked)
    made = setup.up(
        context.host(), name, spec, lambda question: yes or context.ask(question), context.ui()
    )
    context.ui().say(
        f"The Slurm cluster {spec.namespace} is up." if made else
        f"The Slurm cluster {spec.namespace} is up already."
    )  # fmt: skip


@slurm.command()
@_NAMESPACE
@_sized
@click.option("--image", default="", metavar="NAME:TAG",
              help="Name of the image there. [default: as in clusters of sykube]")  # fmt: skip
@click.option("--login-image", default="", metavar="NAME:TAG",
              help="With --compilers: that of the login pod.")  # fmt: skip
@click.option("--domain", default="cluster.local", show_default=True,
              help="Domain of that cluster's own names.")  # fmt: skip
@click.option("--sidecars", is_flag=True,
              help="For Kubernetes 1.29 and later: munged as a sidecar container.")  # fmt: skip
@click.option("--state-class", default="", metavar="NAME",
              help="StorageClass of the daemons' volumes. [default: the default one]")  # fmt: skip
@click.option("--home-class", default="", metavar="NAME",
              help="StorageClass of /home, ReadWriteMany. [default: the default one]")  # fmt: skip
@context.common
def render(**asked: Any) -> None:
    """Print the manifests of a Slurm cluster, for `kubectl apply` on any Kubernetes.

    They hold the key by which its parts know each other: another one each time.
    """
    click.echo(manifests.whole_text(_spec(**asked).check(), manifests.new_key()), nl=False)


# Else click takes a negative number for an option.
@slurm.command(context_settings={"ignore_unknown_options": True})
@context.named
@_NAMESPACE
@click.argument("count", metavar="N|MIN-MAX")
@click.option("--force", is_flag=True, help="Do not wait for jobs for longer than --grace.")
@click.option("--grace", type=click.IntRange(0), default=60, show_default=True, metavar="SECONDS",
              help="With --force: then jobs on nodes that go are queued again.")  # fmt: skip
@context.output_option
@context.common
def scale(name: str, namespace: str, count: str, force: bool, grace: int, output: str) -> None:
    """Set the number of nodes while jobs run, or the limits of one that scales by itself.

    Idle nodes go first; others get no more jobs and go when theirs have ended.
    """
    number, most = parse_nodes(count)
    logfile.open_for(name)
    if most:
        if force:
            raise UsageError(
                "--force is for a number of nodes, and these are limits", resolution="Leave it out."
            )
        done = limits.set_limits(context.host(), name, namespace, number, most, context.ui())
    else:
        done = scaling.scale(
            context.host(), name, namespace, number, context.ui(), grace=grace if force else None
        )
    lines = [f"{each} is added." for each in done.added]
    lines += [f"{each} is removed." for each in done.removed]
    context.show(output, {"added": [*done.added], "removed": [*done.removed]}, lines)


@slurm.command()
@context.named
@_NAMESPACE
@context.output_option
@context.common
@click.pass_context
def status(ctx: click.Context, name: str, namespace: str, output: str) -> None:
    """Show nodes and jobs; exit code 0 only when all nodes take jobs."""
    with at(context.host(), name, namespace, context.ui()) as place:
        found = slurm_status.collect(place)
    if output == "json":
        context.emit(found.to_dict())
    else:
        click.echo(f"Slurm cluster {namespace}: {found.problem or 'healthy'}")
        for each in found.nodes:
            click.echo(
                f"  {each.name:8} {each.state:12} {each.allocated} of {each.cpus} CPUs  "
                f"{each.memory_mib:6} MiB  {each.on}  {each.reason}".rstrip()
            )
        for pod in found.unscheduled:
            click.echo(f"  {pod.pod:8} waits for room: {pod.reason}")
        if scales := found.automatic:
            click.echo(
                f"  scales by itself: {scales.least} to {scales.most} nodes, of which those go that"
                f" are idle for {scales.idle_seconds} s"
            )
        jobs_ = ", ".join(f"{count} {state}" for state, count in found.jobs.items())
        click.echo(f"  jobs: {jobs_ or 'none'}")
        click.echo(f"  accounting: {'by slurmdbd' if found.accounting else 'none'}")
        click.echo(f"  REST API: {'slurmrestd, port 6820' if found.rest else 'none'}")
    ctx.exit(found.exit_code)


@slurm.command()
@context.named
@_NAMESPACE
@click.option("--volumes", is_flag=True, help="Also remove /home and what is kept of jobs.")
@click.option("--force", is_flag=True, help="Even if jobs wait or run: they are lost.")
@context.common
def down(name: str, namespace: str, volumes: bool, force: bool) -> None:
    """Remove a Slurm cluster and its queue.

    /home, and what is kept of jobs, are there for the next one.
    """
    logfile.open_for(name)
    removal.down(context.host(), name, namespace, context.ui(), volumes=volumes, force=force)
    context.ui().say(f"The Slurm cluster {namespace} is removed.")


@slurm.command(context_settings=_THE_REST)
@context.named
@_NAMESPACE
@_AS_USER
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, required=True)
@context.common
def run(name: str, namespace: str, user: str, arguments: tuple[str, ...]) -> None:
    """Run a command as a job by srun, with its input, output and exit code.

    Options of srun come first: sykube slurm run -- -n 4 hostname
    """
    _enter(name, namespace, user, ("srun", *arguments))


@slurm.command(context_settings=_THE_REST)
@context.named
@_NAMESPACE
@_AS_USER
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@context.common
def shell(name: str, namespace: str, user: str, command: tuple[str, ...]) -> None:
    """Open a shell in the login pod, in the home of a user, or run a command there.

    For all that is no job itself: sykube slurm shell -- squeue
    """
    _enter(name, namespace, user, command or ("bash", "-l"))


@slurm.command(context_settings=_THE_REST)
@context.named
@_NAMESPACE
@_AS_USER
@click.argument(
    "file", type=click.Path(path_type=Path), metavar="FILE", shell_complete=completion.files
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@context.common
def submit(name: str, namespace: str, user: str, file: Path, options: tuple[str, ...]) -> None:
    """Submit a script of this host by sbatch; it runs in the home of a user.

    Options of sbatch follow the file: sykube slurm submit job.sh --array=1-20
    """
    with at(context.host(), name, namespace, context.ui()) as place:
        chosen = jobs.user_of(place.require(), user)
        click.echo(jobs.submit(place, chosen, file, options))


@slurm.command()
@context.named
@_NAMESPACE
@_AS_USER
@click.option("--lifetime", type=click.IntRange(1), default=3600, show_default=True,
              metavar="SECONDS", help="How long it is valid.")  # fmt: skip
@context.common
def token(name: str, namespace: str, user: str, lifetime: int) -> None:
    """Print a token for the REST API, by which somebody is a user: `up --rest`.

    It is the value of the header X-SLURM-USER-TOKEN.
    """
    with at(context.host(), name, namespace, context.ui()) as place:
        click.echo(rest.token(place, user, lifetime))


@slurm.command()
@context.named
@_NAMESPACE
@click.argument("node", default=POD)
@click.option("--follow", "-f", is_flag=True, help="Keep printing new lines until Ctrl-C.")
@context.common
def logs(name: str, namespace: str, node: str, follow: bool) -> None:
    """Show what slurmctld logs, or the slurmd of a NODE: c1-0 …, or slurmdbd-0, or slurmrestd."""
    with at(context.host(), name, namespace, context.ui()) as place:
        spec = place.require()
        others = [ACCOUNTING_POD] * spec.accounting + [REST] * spec.rest
        known = [POD, *manifests.pod_names(place.numbers()), *others]
        if node not in known:
            raise UsageError(
                f"the Slurm cluster {namespace} has no node {node!r}",
                resolution=f"There are: {', '.join(known)}",
            )
        kubectl = str(place.cluster.image.kubectl)
        # munged may be beside it, and MariaDB.
        containers = {POD: CONTAINER, ACCOUNTING_POD: ACCOUNTING_CONTAINER, REST: REST}
        container = containers.get(node, NODE_CONTAINER)
        options = ["--container", container, *(["--follow"] if follow else [])]
        pod = f"deployment/{REST}" if node == REST else node
        _become(place, [kubectl, "--namespace", namespace, "logs", pod, *options])


@slurm.command()
@context.named
@_NAMESPACE
@click.option("--file", "files", multiple=True, metavar="FILE", shell_complete=completion.files,
              help="Output of `sacct --parsable2` (- is stdin). May be repeated.")  # fmt: skip
@click.option("--worst", type=click.IntRange(0), default=5, show_default=True, metavar="N",
              help="Number of jobs to show that waste the most.")  # fmt: skip
@click.option("--box-plot", "box", multiple=True, metavar="FILE", shell_complete=completion.files,
              type=click.Path(path_type=Path),
              help="Draw efficiencies of jobs: .svg or .png. May be repeated.")  # fmt: skip
@click.option("--scatter-plot", "scatter", multiple=True, metavar="FILE",
              shell_complete=completion.files, type=click.Path(path_type=Path),
              help="Draw impact and efficiency: .svg or .png. May be repeated.")  # fmt: skip
@context.output_option
@context.common
def efficiency(
    name: str,
    namespace: str,
    files: tuple[str, ...],
    worst: int,
    box: tuple[Path, ...],
    scatter: tuple[Path, ...],
    output: str,
) -> None:
    """Show what jobs make of the CPUs that are allocated to them.

    Average, median and overall CPU efficiency, and what each job wastes: of each FILE, or of
    this Slurm cluster, where it has accounting.
    """
    plots = shown_efficiency.require_plots([*box, *scatter]) if box or scatter else None
    if files:
        surveys = shown_efficiency.read(files)
    else:
        with at(context.host(), name, namespace, context.ui()) as place:
            surveys = [accounting.survey(place)]
    if plots:
        wanted = [(plots.box_plot, box), (plots.scatter_plot, scatter)]
        shown_efficiency.draw(surveys, wanted, plots.save)
    if output == "json":
        context.emit([shown_efficiency.described(each) for each in surveys])
        return
    for line in shown_efficiency.lines(surveys, worst):
        click.echo(line)


@slurm.command()
@click.option("--compilers", is_flag=True, help="That of `up --compilers`, for the login pod.")
@debian_image.options
def image(compilers: bool, **asked: Any) -> None:
    """Build the image of Slurm, unless it is cached, and print its file, an OCI archive."""
    recipe = image_of_slurm.COMPILERS if compilers else image_of_slurm.RECIPE
    debian_image.show(recipe, **asked)


def _spec(
    namespace: str,
    nodes: str,
    names: tuple[str, ...],
    users_file: Path | None,
    compilers: bool,
    image: str = "",
    login_image: str = "",
    **asked: Any,
) -> SlurmSpec:
    if names and users_file:
        raise UsageError("users are by --user or by --users-file", resolution="Leave out one.")
    if login_image and not compilers:
        raise UsageError("--login-image is for --compilers", resolution="Leave it out.")
    if image and compilers and not login_image:
        raise UsageError(
            f"compilers are in an image of their own, which {image} is not",
            resolution="Name it there, too: --login-image NAME:TAG",
        )
    chosen = image or image_of_slurm.RECIPE.name(context.host())
    if compilers:
        login_image = login_image or image_of_slurm.COMPILERS.name(context.host())
    least, most = parse_nodes(nodes)
    spec = SlurmSpec(
        namespace,
        chosen,
        least,
        most=most,
        names=names or ("user",),
        login_image=login_image,
        **asked,
    )
    return spec.with_users(users.read(users_file)) if users_file else spec


def _enter(name: str, namespace: str, user: str, command: tuple[str, ...]) -> None:
    """Become a command of a user's in the login pod."""
    with at(context.host(), name, namespace, context.ui()) as place:
        chosen = jobs.user_of(place.require(), user)
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        _become(place, jobs.entering(place, chosen, command, terminal=terminal))


def _become(place: Place, command: list[str]) -> None:
    environment = place.cluster.environment(os.environ)
    place.cluster.host.replace_process(command, environment)
