"""The commands by name: the module and function of each, and its help in one line.

For the list of them, or a shell that completes one, no module is imported. That the lines are the
commands' own is a unit test (tests/unit/test_cli.py).
"""

COMMANDS = {
    "init": ("sykube.cli.init:init", "Create a cluster and add its context to your kubeconfig."),
    "run": (
        "sykube.cli.run:run",
        "Create a cluster, run COMMAND with it, delete it, and end with the command's exit code.",
    ),
    "start": (
        "sykube.cli.power:start",
        "Start or repair a stopped, rebooted or damaged cluster; wait until it is healthy.",
    ),
    "stop": ("sykube.cli.power:stop", "Stop all nodes cleanly; `start` brings everything back."),
    "restart": ("sykube.cli.power:restart", "Stop the cluster and start it again."),
    "pause": (
        "sykube.cli.power:pause",
        "Freeze all processes of the cluster: they keep their memory but use no CPU.",
    ),
    "unpause": ("sykube.cli.power:unpause", "Resume a paused cluster."),
    "status": (
        "sykube.cli.status:status",
        "Show the state of the cluster; exit code 0 only when everything is healthy.",
    ),
    "list": ("sykube.cli.status:list_clusters", "List the clusters on this host."),
    "node": ("sykube.cli.node:node", "Add workers to a running cluster, or remove them."),
    "autostart": (
        "sykube.cli.autostart:autostart",
        "Start the cluster at boot and stop it cleanly at shutdown, by systemd.",
    ),
    "kubectl": (
        "sykube.cli.access:kubectl",
        "Run kubectl against the cluster in the current folder, with kubectl's exit code.",
    ),
    "exec": (
        "sykube.cli.access:exec_",
        "Run a command in a node (master, node1 …), with the command's exit code.",
    ),
    "shell": ("sykube.cli.access:shell", "Open a shell in a node: master, node1 …"),
    "config": ("sykube.cli.access:config", "Print the cluster's kubeconfig."),
    "port": ("sykube.cli.port:port", "Map ports of this host to ports of the nodes."),
    "service": (
        "sykube.cli.service:service",
        "Print the URLs at which this host reaches a Service; only those that answer.",
    ),
    "addons": ("sykube.cli.addons:addons", "Optional parts of a cluster: metrics, a registry …"),
    "runtimes": (
        "sykube.cli.runtimes:runtimes",
        "List what pods can run in, with versions, and why some cannot be had.",
    ),
    "image": ("sykube.cli.image:image", "Manage container images in the nodes."),
    "slurm": (
        "sykube.cli.slurm:slurm",
        "Slurm clusters in pods: of nodes smaller than a machine, which come and go.",
    ),
    "bench": (
        "sykube.cli.bench:bench",
        "Measure what containers and pods cost on this machine, with statistics that hold.",
    ),
    "dashboard": (
        "sykube.cli.dashboard:dashboard",
        "Show the cluster on a web page: nodes, pods, events, logs.",
    ),
    "logs": (
        "sykube.cli.logs:logs",
        "Show the logs of the programs in all nodes, or in one NODE: master, node1 …",
    ),
    "certs": ("sykube.cli.certs:certs", "Show when certificates expire, and renew them."),
    "update": (
        "sykube.cli.update:update",
        "Update the cluster to a newer Kubernetes, or to a newer build of its node image.",
    ),
    "delete": (
        "sykube.cli.delete:delete",
        "Delete a cluster and leave the host as it was; only logs are kept.",
    ),
    "uninstall": (
        "sykube.cli.delete:uninstall",
        "Remove caches, logs, snapshots and the private Apptainer.",
    ),
    "doctor": (
        "sykube.cli.doctor:doctor",
        "Check the host, and the cluster if there is one; show what is wrong and how to fix it.",
    ),
    "version": (
        "sykube.cli.version:version",
        "Print the versions of sykube, of its default Kubernetes, and of a cluster's programs.",
    ),
    "versions": (
        "sykube.cli.versions:versions_",
        "List available versions of Kubernetes, and what is cached.",
    ),
    "snapshot": ("sykube.cli.snapshot:snapshot", "Save stopped clusters, and restore them."),
    "bundle": (
        "sykube.cli.bundle:bundle",
        "Pack everything that init needs into one signed file, for air-gapped machines.",
    ),
    "node-image": (
        "sykube.cli.node_image:node_image",
        "Build, sign and verify the images that nodes are started from.",
    ),
    "env": (
        "sykube.cli.env:env",
        'Print what points kubectl in this shell at the cluster: eval "$(sykube env)"',
    ),
    "completion": (
        "sykube.cli.completion:completion",
        "Print a script for shell completion of commands, clusters, nodes and more.",
    ),
    "man": ("sykube.cli.man:man", "Write the manual pages: sykube(1), and one for each command."),
}
