"""Everything that sykube writes for other programs, read back as those programs would."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import pytest
import yaml

from sykube import resources
from sykube.addons import dns
from sykube.errors import SykubeError
from sykube.host.apt import Mirror
from sykube.host.host import Host
from sykube.image import build, hpcc, slurm, stream, versions
from sykube.image.versions import minor
from sykube.kubernetes import kubeadm
from sykube.kubernetes.kubeadm import ControlPlaneSettings
from sykube.slurm.spec import SlurmSpec
from tests.fakes import Calls, FakeHost
from tests.fakes.apiserver import FakeApi, Kubernetes

REPOSITORY = Path(__file__).resolve().parents[2]
MIRROR = Mirror("https://deb.example/debian", "https://deb.example/debian-security")
Json = dict[str, Any]

UPSTREAM = versions.Upstream(
    kubernetes_version="1.36.4",
    containerd_version="2.3.4",
    runc_version="1.4.3",
    image_repository="registry.example/kubernetes",
    files={
        name: versions.Published(Path("/cache", name), digit * (128 if name == "runc" else 64))
        for name, digit in zip(versions.PUBLISHED, "12345", strict=True)
    },
    auth_file=Path("/root/auth.json"),
    authorities=(Path("/root/site.pem"), Path("/root/other.pem")),
)

CNI: dict[str, Json] = {
    "host-bridge.conflist.j2": {"name": "sk-lab", "bridge": "sk-lab", "gateway": "10.11.11.1"},
    "pod-network.conflist.j2": {"pod_subnet": "10.244.7.0/24"},
    "keepalived.conf.j2": {
        "instance": "lab-master",
        "address": "10.11.11.2",
        "endpoint": "10.11.11.254",
        "peers": ["10.11.11.244", "10.11.11.245"],
        "priority": 200,
    },
}
UNITS: dict[str, Json] = {
    "host/autostart.service.j2": {
        "name": "lab",
        "data": "/var/lib/sykube/lab",
        "cache": "/var/cache/sykube",
        "python": "/opt/sykube/bin/python3",
        "variables": {"PYTHONPATH": "/opt/sykube/modules"},
        "only_on": "",
    }
}
SLURM = SlurmSpec("slurm", "sykube.local/slurm:1", users="many", names=("ada", "bob"))
MANIFESTS: dict[str, Json] = {
    "dns.yaml.j2": {
        "image": "sykube.local/system:1",
        "cluster_dns_ip": "10.96.0.10",
        "cluster_domain": "cluster.local",
        "reverse_cidrs": ("10.96.0.0/12", "10.244.0.0/16"),
        "api_server": "https://10.11.11.254:6443",
        "replicas": 1,
    },
    "loadbalancer.yaml.j2": {
        "image": "sykube.local/system:1",
        "pool": "10.11.11.143-10.11.11.242",
    },
    "network-policy.yaml.j2": {
        "image": "sykube.local/system:1",
        "api_server": "https://10.11.11.254:6443",
        "bridge": "cni0",
    },
    "registry.yaml.j2": {"image": "sykube.local/system:1"},
    "runtimes.yaml.j2": {"runtimes": ("runc", "crun", "apptainer")},
    "metrics.yaml.j2": {
        "image": "sykube.local/system:1",
        "domain": "cluster.local",
        "certificates": {"lab-master": "-----BEGIN CERTIFICATE-----\nQQ==\n"},
    },
    "storage.yaml.j2": {"image": "sykube.local/system:1", "volumes": "/var/lib/sykube/volumes"},
    "slurm.yaml.j2": {"spec": SLURM, "owned": True, "key": "QQ==", "record": "{}"},
    "slurm-accounting.yaml.j2": {"spec": SLURM},
    "slurm-node.yaml.j2": {"spec": SLURM, "name": "c1"},
    # Parts of the others.
    "slurm-parts.yaml.j2": {},
    "slurm-probe.yaml.j2": {"spec": SLURM, "name": "probe", "words": ["outside", "192.0.2.1"]},
    "slurm-rest.yaml.j2": {"spec": SLURM, "key": "QQ=="},
    "tolerations.yaml.j2": {},
}

SETTINGS = ControlPlaneSettings(
    cluster="lab",
    minor=versions.minor("1.20"),
    kubernetes_version="1.20.2",
    image_repository="k8s.gcr.io",
    etcd_tag="3.4.23-4",
    node_name="lab-master",
    node_address="10.11.11.2",
    endpoint="10.11.11.254:6443",
    names=("10.11.11.254", "localhost", "127.0.0.1"),
    pod_subnet="10.244.0.0/16",
    service_subnet="10.96.0.0/12",
    dns="10.96.0.10",
    domain="cluster.local",
    token="abcdef.0123456789abcdef",
    taint=False,
    is_single=True,
)
KUBEADM: dict[str, Json] = {
    "kubeadm/init.yaml.j2": {
        "settings": SETTINGS,
        "api": "kubeadm.k8s.io/v1beta4",
        "api_port": 6443,
        "registration": {"name": "lab-master"},
        "further": {"patches": {"directory": "/patches"}},
        "api_server": {"certSANs": []},
        "keys": {"encryptionAlgorithm": "ECDSA-P256"},
        "kubelet": {"nodeStatusUpdateFrequency": "2s"},
        "kubelet_gates": {"KubeletInUserNamespace": True},
        "etcd_args": [],
        "controller_manager_args": [],
        "scheduler_args": [],
        "serving": {},
    }
}


def all_templates(host: Host) -> list[tuple[str, str, Json]]:
    """Folder, name and variables of each template; a new one without variables here is missed."""
    definitions = {
        layer.template: layer.variables
        for source in (versions.DEBIAN, UPSTREAM)
        for layer in (
            *build.layers(host, source, MIRROR),
            slurm.layer(host, MIRROR, ""),
            hpcc.layer(host, MIRROR, ""),
            stream.layer(host, MIRROR, ""),
        )
    }
    return [
        (folder, name, dict(variables))
        for folder, templates in (
            ("definitions", definitions),
            ("definitions", UNITS),
            ("definitions", KUBEADM),
            ("cni", CNI),
            ("manifests", MANIFESTS),
        )
        for name, variables in templates.items()
    ]


TEMPLATES = all_templates(FakeHost(Path("/nonexistent")))
IDS = [f"{folder}/{name}" for folder, name, _ in TEMPLATES]


def test_every_template_of_the_checkout_is_among_those_tested() -> None:
    folders = ("definitions", "cni", "manifests", "supervisor")
    found = {
        str(file.relative_to(REPOSITORY))
        for folder in folders
        for file in (REPOSITORY / folder).glob("**/*.j2")
    }
    assert found == set(IDS)


@pytest.mark.parametrize(("folder", "name", "variables"), TEMPLATES, ids=IDS)
def test_a_template_renders_whole(folder: str, name: str, variables: Json) -> None:
    text = resources.render(folder, name, **variables)
    assert "{{" not in text
    assert "{%" not in text
    assert "{#" not in text
    # A value that was no text, such as a list.
    assert not re.search(r"\bUndefined\b|<.* object at 0x|PosixPath", text)


@pytest.mark.parametrize(("folder", "name", "variables"), TEMPLATES, ids=IDS)
def test_a_missing_variable_is_an_error(folder: str, name: str, variables: Json) -> None:
    source = (REPOSITORY / folder / name).read_text()
    used = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(source))
    assert used <= set(variables)
    for missing in used:
        left = {key: value for key, value in variables.items() if key != missing}
        # Its filter tojson says TypeError.
        with pytest.raises((jinja2.UndefinedError, TypeError), match=f"{missing}|StrictUndefined"):
            resources.render(folder, name, **left)


# --- CNI ---


def conflist(name: str) -> Json:
    parsed = json.loads(resources.render("cni", name, **CNI[name]))
    assert parsed["cniVersion"] == "0.4.0"
    assert isinstance(parsed, dict)
    return parsed


def test_the_nodes_network_leaves_addresses_and_masquerading_to_sykube() -> None:
    parsed = conflist("host-bridge.conflist.j2")
    assert parsed["name"] == "sk-lab"
    (plugin,) = parsed["plugins"]
    assert (plugin["type"], plugin["bridge"]) == ("bridge", "sk-lab")
    assert not plugin["isGateway"]
    assert not plugin["ipMasq"]
    assert plugin["ipam"]["type"] == "static"
    assert plugin["ipam"]["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.11.11.1"}]


def test_the_pods_network_hands_out_the_nodes_own_range() -> None:
    bridge, portmap = conflist("pod-network.conflist.j2")["plugins"]
    assert bridge["type"] == "bridge"
    assert bridge["isGateway"]
    assert bridge["hairpinMode"]
    assert not bridge["ipMasq"]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.7.0/24"}]]
    # Leases of pods that are gone must not outlive the node's /run.
    assert bridge["ipam"]["dataDir"].startswith("/run/")
    assert portmap == {"type": "portmap", "capabilities": {"portMappings": True}}


# --- supervisor ---


@pytest.fixture
def supervisord(tmp_path: Path) -> Any:
    """The options of supervisor itself after it has read our programs, as in the node image."""
    options = pytest.importorskip("supervisor.options")
    shutil.copytree(REPOSITORY / "supervisor", tmp_path / "etc")
    main = tmp_path / "etc/supervisord.conf"
    text = main.read_text()
    for inside, here in (
        ("/etc/supervisor/conf.d/", f"{tmp_path}/etc/programs/"),
        ("/var/log/sykube", str(tmp_path)),
        ("/run/", f"{tmp_path}/"),
    ):
        text = text.replace(inside, here)
    main.write_text(text)
    for program in (tmp_path / "etc/programs").iterdir():
        program.write_text(program.read_text().replace("/var/log/sykube", str(tmp_path)))
    # It looks for the programs on this machine otherwise.
    found = options.ServerOptions()
    found.realize(["-c", str(main)])
    return found


def test_supervisor_reads_its_own_settings(supervisord: Any, tmp_path: Path) -> None:
    assert supervisord.nodaemon is True
    assert supervisord.uid == 0
    assert supervisord.logfile == f"{tmp_path}/supervisord.log"
    (server,) = supervisord.server_configs
    # boot is over when this socket is there (steps/nodes.py)
    assert server["file"] == f"{tmp_path}/supervisor.sock"
    assert server["chmod"] == 0o700


def test_supervisor_reads_every_program(supervisord: Any) -> None:
    programs = {group.name: group.process_configs[0] for group in supervisord.process_group_configs}
    files = {file.stem for file in (REPOSITORY / "supervisor/programs").glob("*.conf")}
    assert set(programs) == files
    assert {"containerd", "kubelet"} <= files
    for name, program in programs.items():
        assert program.autostart, name
        assert (
            program.autorestart is True or program.autorestart.__name__ == "RestartUnconditionally"
        )
        assert program.redirect_stderr, name
        assert program.stdout_logfile.endswith(f"/{name}.log")
        # A log without a bound fills the disk of a cluster that is left running.
        assert 0 < program.stdout_logfile_maxbytes <= 100_000_000
        assert program.startretries >= 1000, f"{name} would be given up"
    assert programs["containerd"].priority < programs["kubelet"].priority
    # Pods live on while containerd is restarted.
    assert not programs["containerd"].killasgroup
    assert not programs["containerd"].stopasgroup


def test_programs_start_what_the_node_image_installs() -> None:
    node = next(text for name, text in rendered_definitions().items() if name.startswith("node"))
    supervisor = REPOSITORY / "supervisor"
    for file in (*(supervisor / "programs").glob("*.conf"), supervisor / "gpu-plugin.conf"):
        match = re.search(r"^command=(\S+)", file.read_text(), re.MULTILINE)
        assert match
        program = match[1]
        ours = Path(program).parent == Path("/usr/lib/sykube")
        assert Path(program).name in node if ours else program == "/usr/bin/containerd", program


# --- definitions ---


def rendered_definitions() -> dict[str, str]:
    return {
        name: resources.render(folder, name, **variables)
        for folder, name, variables in TEMPLATES
        if folder == "definitions" and name.endswith(".def.j2")
    }


def test_only_debians_roots_are_of_a_mirror() -> None:
    found = {
        name for name, text in rendered_definitions().items() if "debootstrap --foreign" in text
    }
    assert found == {"debian.def.j2", "kubernetes-debian.def.j2"}


@pytest.mark.parametrize("name", rendered_definitions())
def test_a_definition_asks_nobody_but_the_mirror(name: str) -> None:
    text = re.sub(r"^#.*", "", rendered_definitions()[name], flags=re.MULTILINE)
    mentioned = set(re.findall(r"https?://[^\s'\"]+", text))
    assert mentioned <= {MIRROR.main, MIRROR.security}


@pytest.mark.parametrize("name", ["debian.def.j2", "kubernetes-debian.def.j2"])
def test_a_definition_uses_the_mirror_that_was_asked_for(name: str) -> None:
    text = rendered_definitions()[name]
    assert re.search(
        rf'debootstrap --foreign [^#]* (trixie|bookworm) "\$root" {MIRROR.main}\n', text
    )
    # The engine makes these folders for itself, and other users' programs need the last ones.
    assert text.index("--second-stage") < text.index('chmod 1777 "$root/tmp" "$root/var/tmp"\n')
    assert 'chmod 700 "$root/root"\n' in text
    # The sources end where the here-document does, each a line of its own.
    sources = text.split("<<'EOF'\n")[1].split("\nEOF\n")[0].splitlines()
    assert [line.strip() for line in sources if line.strip()] == [line.strip() for line in sources]
    assert all(line.split()[0] in ("deb", "deb-src") for line in sources)


@pytest.mark.parametrize("name", rendered_definitions())
def test_shellcheck_finds_nothing_in_a_build(name: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("there is no shellcheck for this processor on PyPI")
    post = re.search(r"^%post\n(.*?)(?=^%|\Z)", rendered_definitions()[name], re.M | re.S)
    assert post
    found = subprocess.run(
        [shellcheck, "--shell=sh", "-"], input=post[1], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""


def test_definitions_are_made_one_from_the_other(host: Host) -> None:
    chain = build.layers(host, versions.DEBIAN, MIRROR, "of-today")
    texts = {
        each.name: resources.render("definitions", each.template, **each.variables)
        for each in chain
    }
    for number, each in enumerate(chain):
        for base in each.bases:
            # It is there by then.
            assert base in chain[:number]
            of_today = "-of-today" if base.name in ("debian", "system", "packages") else ""
            assert f"/{base.name}-{base.fingerprint}{of_today}" in texts[each.name]
    assert chain[-2].name == "container-images"
    for package in versions.NODE_PACKAGES:
        assert re.search(rf"[ \n]{re.escape(package)}[ \n]", texts["packages"]), package


def test_what_the_mirror_has_names_the_roots_and_nothing_else(host: Host) -> None:
    for source in (versions.DEBIAN, UPSTREAM):
        before, after = (build.layers(host, source, MIRROR, each) for each in ("old", "new"))
        moved = [a.name for a, b in zip(before, after, strict=True)
                 if build._stage(host, a) != build._stage(host, b)]  # fmt: skip
        assert moved == ["debian", "system", "packages"]
        assert [each.fingerprint for each in before] == [each.fingerprint for each in after]


def test_every_kubernetes_is_made_from_the_same_roots(host: Host) -> None:
    others = ("1.31.0", "1.36.4", "1.37.1")
    chains = [
        build.layers(host, dataclasses.replace(UPSTREAM, kubernetes_version=each), MIRROR)
        for each in others
    ]
    roots = [{each.name: each.fingerprint for each in chain[:3]} for chain in chains]
    assert roots[0] == roots[1] == roots[2]
    debians = fingerprints(host)
    assert debians["debian"] == roots[0]["debian"]


# --- upstream's ---


def test_upstreams_images_are_made_from_verified_files_without_building_kubernetes(
    host: Host,
) -> None:
    *_, nodes, images, node = build.layers(host, UPSTREAM, MIRROR)
    texts = rendered_definitions()
    assert f"container-images-{images.fingerprint} /opt/container-images\n" in texts[node.template]
    assert "/opt/kubernetes" not in texts[images.template] + texts[node.template]
    for name, file in UPSTREAM.files.items():
        tool = "sha512sum" if name == "runc" else "sha256sum"
        line = f"echo '{file.checksum}  {name}' | {tool} --check --quiet -\n"
        text = texts[node.template]
        assert text.count(f"    /cache/{name} /opt/upstream/{name}\n") == 1
        # Before anything of it is used.
        assert text.index(line) < text.index(
            "install -m 755 -t /usr/bin kubeadm kubelet kubectl runc"
        )
    text = texts[images.template]
    assert text.index("sha256sum --check") < text.index("./kubeadm config images list")
    # Debian's would be beside those of upstream.
    packages = resources.render("definitions", nodes.template, **nodes.variables)
    words = packages.split("apt-get -q install")[1].split("\n")[0].split()
    assert not {"containerd", "runc", "etcd-client"} & set(words)
    assert {"crun", "supervisor", "containernetworking-plugins"} <= set(words)


def test_debians_minor_of_upstream_has_the_containerd_and_the_dns_of_debians(host: Host) -> None:
    known = minor("1.20")
    source = dataclasses.replace(
        UPSTREAM, kubernetes_version="1.20.2", containerd_version=known.containerd
    )
    newer, older = (
        {each.name: resources.render("definitions", each.template, **each.variables) for each in of}
        for of in (build.layers(host, UPSTREAM, MIRROR), build.layers(host, source, MIRROR))
    )
    # definitions/node is at the one place, definitions/upstream at the other.
    assert " /opt/sykube/node/containerd.toml > /etc/containerd/config.toml" in older["node"]
    assert " /opt/upstream/containerd-v4.toml > /etc/containerd/config.toml" in newer["node"]
    for texts, there in ((older, False), (newer, True)):
        text = texts["container-images"]
        system = texts["system"]
        wanted = text.split("for name in kube-apiserver")[1].split(";")[0].split()
        assert ("coredns" in wanted) is there
        assert (r"sed -i '\|/coredns:|d' /build/names" in text) is not there
        for package in versions.DNS_PACKAGES:
            assert bool(re.search(rf"[ \n]{package}[ \n]", system)) is not there


def test_images_are_pulled_with_what_the_site_gives_and_nothing_of_it_is_kept(host: Host) -> None:
    *_, images, _ = build.layers(host, UPSTREAM, MIRROR)
    text = resources.render("definitions", images.template, **images.variables)
    assert "--image-repository registry.example/kubernetes > /build/names" in text
    assert "--kubernetes-version v1.36.4 " in text
    pull = text.split("skopeo --insecure-policy copy --quiet --retry-times 5")[1].split("\n")[0]
    assert pull == " --src-authfile auth.json --src-cert-dir authorities \\"
    assert "/root/site.pem /opt/upstream/authorities/1.crt\n" in text
    assert "/root/other.pem /opt/upstream/authorities/2.crt\n" in text
    assert "/root/auth.json /opt/upstream/auth.json\n" in text
    # Where the password is not.
    assert images.keeps == "opt/container-images"

    plain = dataclasses.replace(UPSTREAM, auth_file=None, authorities=())
    *_, images, _ = build.layers(host, plain, MIRROR)
    text = resources.render("definitions", images.template, **images.variables)
    assert "skopeo --insecure-policy copy --quiet --retry-times 5 \\\n" in text
    assert "auth" not in text.replace("--author", "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kubernetes_version": "1.36.5"}, {"container-images", "node"}),
        ({"image_repository": "registry.k8s.example"}, {"container-images", "node"}),
        ({"auth_file": None, "authorities": ()}, set()),
        ({"auth_file": Path("/elsewhere")}, set()),
    ],
)
def test_what_upstreams_fingerprints_cover(host: Host, changes: Json, expected: set[str]) -> None:
    before = {layer.name: layer.fingerprint for layer in build.layers(host, UPSTREAM, MIRROR)}
    source = dataclasses.replace(UPSTREAM, **changes)
    mirror = Mirror("file:/elsewhere")
    after = {layer.name: layer.fingerprint for layer in build.layers(host, source, mirror)}
    assert changed(before, after) == expected


@pytest.mark.parametrize("name", versions.PUBLISHED)
def test_a_checksum_is_covered_and_the_place_of_the_file_is_not(host: Host, name: str) -> None:
    def fingerprint_with(file: versions.Published) -> str:
        source = dataclasses.replace(UPSTREAM, files={**UPSTREAM.files, name: file})
        return build.layers(host, source, MIRROR)[-1].fingerprint

    known = UPSTREAM.files[name]
    moved = dataclasses.replace(known, path=Path("/moved"))
    other = dataclasses.replace(known, checksum="f" * len(known.checksum))
    assert fingerprint_with(moved) == fingerprint_with(known)
    assert fingerprint_with(other) != fingerprint_with(known)


def test_upstreams_and_debians_node_images_are_not_taken_for_one_another(host: Host) -> None:
    assert build.layers(host, UPSTREAM, MIRROR)[-1].fingerprint != fingerprints(host)["node"]


# Where containerd 2 has what 1.7 has in one plugin: docs/cri/config.md of containerd, "Full
# configuration", at 301026e58c619e63d09c0ec411012e54c0124b03.
IMAGES, RUNTIME = "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"
MOVED = {
    ("sandbox_image",): (IMAGES, "pinned_images", "sandbox"),
    ("registry",): (IMAGES, "registry"),
    ("containerd", "snapshotter"): (IMAGES, "snapshotter"),
    ("containerd", "default_runtime_name"): (RUNTIME, "containerd", "default_runtime_name"),
    ("containerd", "runtimes"): (RUNTIME, "containerd", "runtimes"),
    ("cni",): (RUNTIME, "cni"),
    ("restrict_oom_score_adj",): (RUNTIME, "restrict_oom_score_adj"),
    ("tolerate_missing_hugetlb_controller",): (RUNTIME, "tolerate_missing_hugetlb_controller"),
}


CONTAINERD_CONFIGS = ("node/containerd.toml", *(f"upstream/containerd-v{n}.toml" for n in (3, 4)))


def containerd_config(file: str) -> Json:
    text = (REPOSITORY / "definitions" / file).read_text()
    return tomllib.loads(text.replace("@RESTRICT@", "true"))


@pytest.mark.parametrize("version", [3, 4])
def test_all_containerds_are_told_the_same(version: int) -> None:
    old = containerd_config("node/containerd.toml")
    new = containerd_config(f"upstream/containerd-v{version}.toml")
    assert (old.pop("version"), new.pop("version")) == (2, version)
    plugin = old.pop("plugins")["io.containerd.grpc.v1.cri"]
    plugins = new.pop("plugins")
    if version == 4:
        # containerd 2.3.4, `containerd config migrate`: what it makes of the one of version 3.
        new["grpc"] = plugins.pop("io.containerd.server.v1.grpc")
        # "Deprecated config properties" of its RELEASES.md.
        cni = plugins[RUNTIME]["cni"]
        (cni["bin_dir"],) = cni.pop("bin_dirs")
        # What 2.3 has anew; by default it asks all shims each second.
        assert plugins[RUNTIME].pop("stats_collect_period") == "10s"
    assert old == new
    for before, after in MOVED.items():
        assert take(plugin, before) == take(plugins, after), before
    # Nothing is in one of them alone.
    assert not any(leaves(plugin))
    assert not any(leaves(plugins))


def take(tree: Json, path: tuple[str, ...]) -> object:
    for part in path[:-1]:
        tree = tree[part]
    return tree.pop(path[-1])


def leaves(tree: Json) -> Iterator[object]:
    for value in tree.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield value or True


@pytest.mark.parametrize(
    ("containerd", "file"),
    [
        ("1.7.34", "node/containerd.toml"),
        ("2.0.11", "upstream/containerd-v3.toml"),
        ("2.3.4", "upstream/containerd-v4.toml"),
    ],
)
def test_each_containerd_gets_the_newest_format_that_it_knows(
    host: Host, containerd: str, file: str
) -> None:
    source = dataclasses.replace(UPSTREAM, containerd_version=containerd)
    node = build.layers(host, source, MIRROR)[-1]
    text = resources.render("definitions", node.template, **node.variables)
    assert f"/{file} > /etc/containerd/config.toml\n" in text
    assert file in CONTAINERD_CONFIGS
    assert containerd in {each.containerd for each in versions.MINORS}


@pytest.mark.parametrize("file", CONTAINERD_CONFIGS)
def test_what_the_build_changes_of_containerds_configuration_is_in_it(file: str) -> None:
    lines = (REPOSITORY / "definitions" / file).read_text().splitlines()
    assert 'root = "/var/lib/containerd"' in lines
    assert 'state = "/run/containerd"' in lines
    assert '  address = "/run/containerd/containerd.sock"' in lines
    assert sum("@PAUSE@" in line for line in lines) == 1
    assert sum("@RESTRICT@" in line for line in lines) == 1


# --- programs of pods ---

# What each package has of the modules that programs in pods import, beside the standard library.
MODULES = {"python3-dnspython": {"dns"}}


def imported(file: Path) -> set[str]:
    """The packages that a module imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return found - {"__future__"}


@pytest.mark.parametrize(
    ("source", "with_dns"),
    [
        (versions.DEBIAN, True),
        (UPSTREAM, False),
        (dataclasses.replace(UPSTREAM, kubernetes_version="1.20.2"), True),
    ],
    ids=["debian", "upstream", "upstream-1.20"],
)
def test_the_image_of_sykubes_programs_has_what_they_import(
    host: Host, source: versions.DebianRelease | versions.Upstream, with_dns: bool
) -> None:
    images = next(layer for layer in build.layers(host, source, MIRROR) if layer.name == "system")
    text = resources.render("definitions", images.template, **images.variables)
    assert ("rm -r /build/root-system/usr/lib/python3/dist-packages/incluster/dns" in text) is (
        not with_dns
    )
    packages = {*images.variables["packages"]}
    # Of the standard library, python3-minimal has neither http nor ipaddress.
    assert "python3" in packages
    there = {*sys.stdlib_module_names}.union(*(MODULES.get(name, set()) for name in packages))
    incluster = REPOSITORY / "sykube/incluster"
    for file in incluster.rglob("*.py"):
        if with_dns or "dns" not in file.relative_to(incluster).parts:
            assert imported(file) <= there, file


@pytest.mark.parametrize("source", [versions.DEBIAN, UPSTREAM], ids=["debian", "upstream"])
def test_a_build_starts_every_program_of_pods_where_it_ships(
    host: Host,
    source: versions.DebianRelease | versions.Upstream,
) -> None:
    images = next(layer for layer in build.layers(host, source, MIRROR) if layer.name == "system")
    text = resources.render("definitions", images.template, **images.variables)
    started = text.split("shipped system /build/debian.tar /build/system.tar\n")[1]
    assert "walk_packages(incluster.__path__" in started
    commands = {
        container["command"][0]
        for name, variables in MANIFESTS.items()
        # Slurm has an image of its own.
        if name != "tolerations.yaml.j2" and not name.startswith("slurm")
        for document in yaml.safe_load_all(resources.render("manifests", name, **variables))
        if document["kind"] in ("Deployment", "DaemonSet")
        for container in document["spec"]["template"]["spec"]["containers"]
    }
    assert commands == {"python3", "docker-registry"}
    for program in (*commands, "openssl", *(["unbound"] if source is versions.DEBIAN else [])):
        assert f"    starts {program} " in started, program


# --- fingerprints ---


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what images are made from, which a test can change."""
    for folder in ("definitions", "supervisor", "cni", "manifests", "runtime", "sykube/incluster"):
        shutil.copytree(
            REPOSITORY / folder,
            tmp_path / "checkout" / folder,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    copy = tmp_path / "checkout"
    # What an image is known by is of sykube's own files, which nothing is handed.
    monkeypatch.setattr(resources, "PACKAGE", copy / "sykube")
    return copy


def fingerprints(host: Host, mirror: Mirror = MIRROR, **changes: str) -> dict[str, str]:
    source = dataclasses.replace(versions.DEBIAN, **changes)
    return {layer.name: layer.fingerprint for layer in build.layers(host, source, mirror)}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


FROM_IMAGES = {"container-images", "node"}
FROM_SYSTEM = {"system", *FROM_IMAGES}
FROM_KUBERNETES = {"kubernetes", *FROM_IMAGES}
FROM_PACKAGES = {"packages", "node"}
FROM_RUNTIME = {"runtime", "node"}
FROM_DEBIAN = {"debian", *FROM_SYSTEM, *FROM_PACKAGES, *FROM_RUNTIME}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("definitions/kubernetes-debian.def.j2", FROM_KUBERNETES),
        ("definitions/debian.def.j2", FROM_DEBIAN),
        ("definitions/debootstrap", FROM_DEBIAN | FROM_KUBERNETES),
        ("definitions/system.def.j2", FROM_SYSTEM),
        ("definitions/image-functions.sh", FROM_SYSTEM),
        ("definitions/packages.def.j2", FROM_PACKAGES),
        ("definitions/runtime.def.j2", FROM_RUNTIME),
        ("runtime/stage.go", FROM_RUNTIME),
        ("runtime/init.c", FROM_RUNTIME),
        ("definitions/container-images-debian.def.j2", FROM_IMAGES),
        ("definitions/node.def.j2", {"node"}),
        ("definitions/node/node-init", {"node"}),
        ("definitions/node/containerd.toml", {"node"}),
        ("sykube/incluster/dns/server.py", FROM_SYSTEM),
        ("supervisor/supervisord.conf", {"node"}),
        ("supervisor/programs/kubelet.conf", {"node"}),
        ("cni/pod-network.conflist.j2", set()),
        ("manifests/dns.yaml.j2", set()),
    ],
)
def test_a_changed_file_changes_what_is_made_from_it(
    host: Host, checkout: Path, file: str, expected: set[str]
) -> None:
    before = fingerprints(host)
    with (checkout / file).open("a") as stream:
        stream.write("\n# changed\n")
    assert changed(before, fingerprints(host)) == expected


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("supervisor/programs/added.conf", {"node"}),
        ("sykube/incluster/added.py", FROM_SYSTEM),
        ("sykube/incluster/__pycache__/watch.cpython-311.pyc", set()),
    ],
)
def test_an_added_file_changes_what_is_made_from_it(
    host: Host, checkout: Path, file: str, expected: set[str]
) -> None:
    before = fingerprints(host)
    (checkout / file).parent.mkdir(exist_ok=True)
    (checkout / file).write_text("# added\n")
    assert changed(before, fingerprints(host)) == expected
    (checkout / file).unlink()
    assert changed(before, fingerprints(host)) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kubernetes_version": "1.20.3"}, FROM_KUBERNETES),
        ({"package": "1.20.6+really1.20.2"}, FROM_KUBERNETES),
        ({"build_suite": "bullseye"}, FROM_KUBERNETES),
        ({"pause_version": "3.3"}, FROM_KUBERNETES),
    ],
)
def test_a_changed_source_changes_all_but_the_roots(
    host: Host, change: dict[str, str], expected: set[str]
) -> None:
    assert changed(fingerprints(host), fingerprints(host, MIRROR, **change)) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("KUBERNETES_PROGRAMS", ("kubelet",), FROM_KUBERNETES),
        ("CONTAINER_IMAGE_PACKAGES", ("unbound",), FROM_SYSTEM),
        ("SYSTEM_IMAGE", "sykube.local/system:2", FROM_SYSTEM),
        ("NODE_SUITE", "forky", FROM_DEBIAN),
        ("NODE_PACKAGES", ("runc",), FROM_PACKAGES),
        ("SID_PACKAGES", (), FROM_PACKAGES),
        ("RUNTIME_BUILD_PACKAGES", ("gcc",), FROM_RUNTIME),
    ],
)
def test_a_changed_version_changes_what_it_is_in(
    host: Host, monkeypatch: pytest.MonkeyPatch, name: str, value: object, expected: set[str]
) -> None:
    before = fingerprints(host)
    # A later release of sykube: its constants are what images are known by.
    monkeypatch.setattr(versions, name, value)
    assert changed(before, fingerprints(host)) == expected


@pytest.mark.parametrize(
    "mirror",
    [Mirror("http://127.0.0.1:3142/debian"), Mirror(MIRROR.main), Mirror("file:/srv", "file:/sec")],
)
def test_the_mirror_changes_nothing(host: Host, mirror: Mirror) -> None:
    assert fingerprints(host, mirror) == fingerprints(host)


def test_the_place_of_the_checkout_and_of_the_cache_change_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    before = fingerprints(host)
    monkeypatch.setenv("SYKUBE_CACHE_DIR", str(tmp_path / "elsewhere"))
    request.getfixturevalue("checkout")
    assert fingerprints(host) == before


# --- kubeadm ---


def init_documents(**changes: object) -> dict[str, Json]:
    settings = dataclasses.replace(SETTINGS, **changes)  # type: ignore[arg-type]
    documents = list(kubeadm.init_documents(settings))
    return {document["kind"]: document for document in documents}


def elections(program: str, *, is_single: bool) -> dict[str, str]:
    """Options of a program for who works among several."""
    cluster = init_documents(is_single=is_single)["ClusterConfiguration"]
    found = cluster[program]["extraArgs"].items()
    return {name: value for name, value in found if name.startswith("leader-elect")}


def test_the_only_controller_manager_does_not_end_when_its_disk_is_slow() -> None:
    only = elections("controllerManager", is_single=True)
    lease, deadline, retry = (
        int(only[f"leader-elect-{name}"].removesuffix("s"))
        for name in ("lease-duration", "renew-deadline", "retry-period")
    )
    # What the programs insist on: LeaderElectionConfig of client-go, NewLeaderElector.
    assert lease > deadline > 1.2 * retry
    assert deadline > 60, "one request may take the API server as long"


def test_the_only_scheduler_renews_no_lease() -> None:
    """Each would be two requests and a write to the disk, every second of an idle cluster."""
    assert elections("scheduler", is_single=True) == {"leader-elect": "false"}


@pytest.mark.parametrize("program", ["controllerManager", "scheduler"])
def test_of_several_control_planes_one_is_elected(program: str) -> None:
    # Others wait for the lease of one that is gone: the default.
    assert elections(program, is_single=False) == {"leader-elect-retry-period": "1s"}


def test_kubeadm_gets_four_documents_of_the_versions_that_1_20_reads() -> None:
    assert {kind: each["apiVersion"] for kind, each in init_documents().items()} == {
        "InitConfiguration": "kubeadm.k8s.io/v1beta2",
        "ClusterConfiguration": "kubeadm.k8s.io/v1beta2",
        "KubeletConfiguration": "kubelet.config.k8s.io/v1beta1",
        "KubeProxyConfiguration": "kubeproxy.config.k8s.io/v1alpha1",
    }


def test_the_control_plane_has_an_address_of_its_own_in_its_certificate() -> None:
    cluster = init_documents()["ClusterConfiguration"]
    assert cluster["controlPlaneEndpoint"] == "10.11.11.254:6443"
    assert cluster["apiServer"]["certSANs"] == ["10.11.11.254", "localhost", "127.0.0.1"]
    assert cluster["kubernetesVersion"] == "v1.20.2"
    assert cluster["imageRepository"] == "k8s.gcr.io"
    assert cluster["etcd"]["local"] == {
        "dataDir": "/var/lib/etcd",
        "imageTag": "3.4.23-4",
        "extraArgs": {"election-timeout": "500"},
    }
    assert cluster["networking"] == {
        "podSubnet": "10.244.0.0/16",
        "serviceSubnet": "10.96.0.0/12",
        "dnsDomain": "cluster.local",
    }
    init = init_documents()["InitConfiguration"]
    assert init["localAPIEndpoint"] == {"advertiseAddress": "10.11.11.2", "bindPort": 6443}


def test_ordinary_pods_may_run_on_the_master_unless_it_is_tainted() -> None:
    # Only an empty list means none; without the key kubeadm sets its own taint.
    assert init_documents()["InitConfiguration"]["nodeRegistration"]["taints"] == []
    assert "taints" not in init_documents(taint=True)["InitConfiguration"]["nodeRegistration"]


def test_the_bootstrap_token_lets_nodes_in_and_soon_ends() -> None:
    (token,) = init_documents()["InitConfiguration"]["bootstrapTokens"]
    assert token["token"] == SETTINGS.token
    assert "authentication" in token["usages"]
    assert set(token["usages"]) <= {"authentication", "signing"}
    assert token["groups"] == ["system:bootstrappers:kubeadm:default-node-token"]
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", token["ttl"])
    assert match
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    # 0 would be a token for ever.
    assert 0 < hours * 60 + minutes + seconds / 60 <= 30


def test_the_kubelet_and_the_proxy_take_what_a_node_has() -> None:
    documents = init_documents()
    kubelet, proxy = documents["KubeletConfiguration"], documents["KubeProxyConfiguration"]
    assert kubelet["cgroupDriver"] == "cgroupfs"
    assert kubelet["clusterDNS"] == ["10.96.0.10"]
    assert kubelet["clusterDomain"] == "cluster.local"
    assert kubelet["failSwapOn"] is False
    assert proxy["mode"] == "iptables"
    assert proxy["clusterCIDR"] == "10.244.0.0/16"
    # kube-proxy stops when it may not write the host's limits (kubeadm's default does).
    assert proxy["conntrack"]["maxPerCore"] == 0


@pytest.mark.parametrize("document", ["init", "join"])
def test_a_node_is_registered_with_its_fixed_name_and_address(document: str) -> None:
    if document == "init":
        node = init_documents()["InitConfiguration"]["nodeRegistration"]
    else:
        node = join_document()["nodeRegistration"]
    assert node["name"] == ("lab-master" if document == "init" else "lab-node1")
    assert node["criSocket"] == "unix:///run/containerd/containerd.sock"
    arguments = node["kubeletExtraArgs"]
    assert arguments["node-ip"] == ("10.11.11.2" if document == "init" else "10.11.11.3")
    assert arguments["container-runtime-endpoint"] == node["criSocket"]


def join_document() -> Json:
    return kubeadm.join_document(SETTINGS.minor, "lab-node1", "10.11.11.3")


def test_a_worker_gets_no_control_plane() -> None:
    assert "controlPlane" not in join_document()
    assert "taints" not in join_document()["nodeRegistration"]


@pytest.mark.parametrize("taint", [True, False])
def test_a_further_control_plane_listens_at_its_own_address(taint: bool) -> None:
    join = kubeadm.join_document(
        SETTINGS.minor,
        *("lab-master2", "10.11.11.244"),
        control_plane=True,
        taint=taint,
    )
    assert join["controlPlane"]["localAPIEndpoint"] == {
        "advertiseAddress": "10.11.11.244",
        "bindPort": 6443,
    }
    registration = join["nodeRegistration"]
    assert registration["kubeletExtraArgs"]["node-ip"] == "10.11.11.244"
    # None at all and an empty list are not the same to kubeadm: the first means its own taint.
    assert registration.get("taints") == (None if taint else [])


# --- the endpoint ---


def blocks(text: str) -> Json:
    """keepalived.conf as nested blocks."""
    root: Json = {}
    stack = [root]
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("#") or not line:
            continue
        if line.endswith("{"):
            inner: Json = {}
            stack[-1][line[:-1].strip()] = inner
            stack.append(inner)
        elif line == "}":
            stack.pop()
        else:
            key, _, value = line.partition(" ")
            stack[-1][key] = value
    assert len(stack) == 1
    return root


def test_the_endpoint_is_where_an_api_server_answers() -> None:
    found = blocks(resources.render("cni", "keepalived.conf.j2", **CNI["keepalived.conf.j2"]))
    endpoint, script = found["vrrp_instance endpoint"], found["vrrp_script api"]
    assert endpoint["virtual_ipaddress"] == {"10.11.11.254/32": ""}
    assert endpoint["unicast_src_ip"] == "10.11.11.2"
    assert set(endpoint["unicast_peer"]) == {"10.11.11.244", "10.11.11.245"}
    assert endpoint["priority"] == "200"
    assert endpoint["track_script"] == {"api": ""}
    program = Path(script["script"])
    assert program.parent == Path("/usr/lib/sykube")
    assert (REPOSITORY / "definitions/node" / program.name).is_file()
    # It does not jump back as soon as the first one answers again.
    assert endpoint["state"] == "BACKUP"
    assert "nopreempt" in endpoint


# --- the cluster DNS ---


@pytest.fixture
def objects() -> dict[str, Json]:
    """What the add-on applies, by kind."""
    server = Kubernetes()
    dns.install(
        FakeApi(server, Calls()),
        cluster_ip="10.96.0.10",
        domain="cluster.local",
        reverse_cidrs=("10.96.0.0/12", "10.244.0.0/16"),
        endpoint="10.11.11.254:6443",
        replicas=2,
    )
    assert dns.is_installed(FakeApi(server, Calls()), dns.DEPLOYMENT)
    assert not dns.is_installed(FakeApi(Kubernetes(), Calls()), dns.DEPLOYMENT)
    return {each["kind"]: each for each in server.objects.values()}


def test_the_cluster_dns_may_read_services_and_endpoints_and_nothing_else(
    objects: dict[str, Json],
) -> None:
    assert set(objects) == {
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Service",
        "Deployment",
    }
    (rule,) = objects["ClusterRole"]["rules"]
    assert rule["apiGroups"] == [""]
    assert set(rule["resources"]) == {"services", "endpoints"}
    assert set(rule["verbs"]) == {"list", "watch"}
    binding = objects["ClusterRoleBinding"]
    assert binding["roleRef"]["name"] == objects["ClusterRole"]["metadata"]["name"]
    (subject,) = binding["subjects"]
    account = objects["ServiceAccount"]["metadata"]
    assert (subject["kind"], subject["name"]) == ("ServiceAccount", account["name"])
    assert subject["namespace"] == account["namespace"] == "kube-system"


def test_the_pods_of_the_cluster_dns_have_no_rights_on_the_node(objects: dict[str, Json]) -> None:
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all("hostPath" not in volume for volume in pod["volumes"])
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        # Only of this user's, and for a port below 1024.
        binds = context.get("runAsUser") == 0
        more = {"add": ["NET_BIND_SERVICE"]} if binds else {}
        assert context["capabilities"] == {"drop": ["ALL"], **more}
        assert not context.get("privileged")
        assert container["resources"]["limits"]["memory"]
        # From the node image: there is no registry that has it.
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert container["image"] == versions.SYSTEM_IMAGE
        assert all((port["containerPort"] < 1024) is binds for port in container["ports"])


def test_the_service_of_the_cluster_dns_leads_to_its_pods(objects: dict[str, Json]) -> None:
    service, pod = objects["Service"]["spec"], objects["Deployment"]["spec"]["template"]
    assert service["clusterIP"] == "10.96.0.10"
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert {(port["port"], port["protocol"]) for port in service["ports"]} == {
        (53, "UDP"),
        (53, "TCP"),
    }
    names = {port["name"] for each in pod["spec"]["containers"] for port in each["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= names
    selector = objects["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod["metadata"]["labels"].items()


def test_the_cluster_dns_is_told_its_zone_and_ranges(objects: dict[str, Json]) -> None:
    containers = {
        each["name"]: each
        for each in objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    }
    for name in ("unbound", "records"):
        container = containers[name]
        assert "--zone=cluster.local" in container["args"]
        assert "--reverse-cidr=10.96.0.0/12" in container["args"]
        assert "--reverse-cidr=10.244.0.0/16" in container["args"]
    assert "--api-server=https://10.11.11.254:6443" in containers["records"]["args"]
    modules = {each["command"][2] for each in containers.values()}
    for module in modules:
        place = f"sykube/{module.replace('.', '/')}"
        assert (REPOSITORY / f"{place}.py").exists() or (REPOSITORY / place).is_dir()


# --- the folders themselves ---


def test_a_missing_folder_is_an_error_with_a_cure(
    tmp_path: Path,
) -> None:
    with pytest.raises(SykubeError, match="'definitions' of sykube is missing") as raised:
        resources.folder("definitions", tmp_path / "sykube")
    assert "pip install" in raised.value.resolution


@pytest.mark.parametrize("installed", [True, False])
def test_the_installed_folder_comes_before_the_checkouts(tmp_path: Path, installed: bool) -> None:
    (tmp_path / "cni").mkdir()
    if installed:
        (tmp_path / "sykube/data/cni").mkdir(parents=True)
    assert resources.folder("cni", tmp_path / "sykube") == tmp_path / (
        "sykube/data/cni" if installed else "cni"
    )
