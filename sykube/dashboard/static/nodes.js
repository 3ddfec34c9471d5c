// The nodes: how they are, their programs, what they use over time.

import { empty, h, keyed, pill, setPill, setTile, text, tile } from "./dom.js";
import { bytes, cores, plural } from "./format.js";
import { plot } from "./plot.js";
import { objectsNow, store } from "./store.js";

const DISK = [
  { key: "overlay", label: "overlay" },
  { key: "images", label: "images and containers" },
  { key: "etcd", label: "etcd" },
  { key: "other", label: "logs, pods and settings" },
];

function kindOf(node) {
  if (node.state === "stopped") return "idle";
  if (node.state === "paused") return "warn";
  return node.problem ? "bad" : "ok";
}

function serviceKind(state) {
  return { RUNNING: "ok", STARTING: "warn", BACKOFF: "bad", FATAL: "bad", EXITED: "bad" }[state] ?? "idle";
}

const plots = new WeakMap();

function make(node) {
  const shown = {
    cpu: plot({
      title: "Processors", name: node.name, least: 0.2, series: [{ key: "cpu", label: "processors" }],
      format: cores,
    }),
    memory: plot({
      title: "Memory", name: node.name, least: 1e8, series: [{ key: "memory", label: "memory" }],
      format: bytes,
    }),
    disk: plot({
      title: "Disk", name: node.name, least: 1e6, series: DISK, stacked: true, format: bytes,
    }),
  };
  const card = h(
    "article",
    { class: "card node" },
    h("header", {},
      h("h2", {}, node.name), h("span", { class: "role" }), pill("idle", ""),
      h("span", { class: "address mono" }),
      h("a", { class: "button small", href: `#logs/node/${node.name}/kubelet` }, "Logs")),
    h("p", { class: "problem" }),
    h("ul", { class: "services", "aria-label": `Programs of ${node.name}` }),
    h("div", { class: "plots" }, shown.cpu.element, shown.memory.element, shown.disk.element),
  );
  plots.set(card, shown);
  return card;
}

function update(card, node) {
  const { usage, disk } = store;
  text(card.querySelector(".role"), node.control_plane ? "control plane" : "worker");
  setPill(card.querySelector(".pill"), kindOf(node), node.state === "running" && !node.problem ? "Ready"
    : node.state === "running" ? "degraded" : node.state);
  text(card.querySelector(".address"), `${node.instance} · ${node.address}`);
  const problem = card.querySelector(".problem");
  problem.hidden = !node.problem || node.state !== "running";
  text(problem, node.problem);
  keyed(
    card.querySelector(".services"),
    Object.entries(node.services).sort(),
    ([name]) => name,
    ([name]) => h("li", {}, h("i", { class: "dot" }), h("span", {}, name), h("b", {})),
    (item, [, state]) => {
      item.dataset.kind = serviceKind(state);
      text(item.querySelector("b"), state.toLowerCase());
    },
  );
  const shown = plots.get(card);
  const points = usage.map(({ time, nodes }) => ({ time, ...(nodes[node.name] ?? {}) }));
  // Its cgroups may be there a moment longer than the node.
  if (node.state === "stopped" && points.length) points.push({ time: points.pop().time });
  shown.cpu.update(points, `${node.cores} cores`);
  shown.memory.update(points, bytes(node.memory));
  shown.disk.update(disk.map(({ time, nodes }) => ({ time, ...(nodes[node.name] ?? {}) })));
}

export function nodesView() {
  const tiles = {
    nodes: tile("Nodes"), cpu: tile("Processors in use"), memory: tile("Memory in use"),
    disk: tile("Disk of the nodes"), pods: tile("Pods"),
  };
  const cards = h("div", { class: "cards" });
  const note = h("p", { class: "note" });
  const element = h("div", {}, h("dl", { class: "tiles" }, Object.values(tiles)), cards, note);
  const waiting = empty("Looking at the cluster …", "Its nodes appear in a moment.");
  return {
    element: h("section", { "aria-label": "Nodes" }, waiting, element),
    update() {
      const { cluster, usage, disk } = store;
      const objects = objectsNow();
      const there = Boolean(cluster?.nodes);
      waiting.hidden = there;
      element.hidden = !there;
      if (!there) return;
      const running = cluster.nodes.filter((node) => node.state === "running");
      const well = cluster.nodes.filter((node) => kindOf(node) === "ok");
      setTile(tiles.nodes, `${well.length} of ${cluster.nodes.length}`, "run and are Ready");
      const now = Object.values(usage.at(-1)?.nodes ?? {});
      const sum = (key) => now.reduce((total, each) => total + (each[key] ?? 0), 0);
      const whole = cluster.limited ? "for each node" : "on this host";
      setTile(tiles.cpu, running.length && now.length ? cores(sum("cpu")) : "–", `of ${cluster.cores} ${whole}`);
      setTile(tiles.memory, running.length && now.length ? bytes(sum("memory")) : "–", `of ${bytes(cluster.memory)} ${whole}`);
      const sizes = Object.values(disk.at(-1)?.nodes ?? {}).flatMap((each) => Object.values(each));
      setTile(tiles.disk, sizes.length ? bytes(sizes.reduce((a, b) => a + b, 0)) : "–",
        `and one node image of ${bytes(cluster.image_bytes)}`);
      const pods = objects?.pods.filter((pod) => !pod.ended);
      const up = pods?.filter((pod) => pod.status === "Running" && pod.ready === pod.containers.length);
      setTile(tiles.pods, pods && running.length ? `${up.length} of ${pods.length}` : "–", "run and are Ready");
      keyed(cards, cluster.nodes, (node) => node.name, make, update);
      text(note, usage.length
        ? `Recorded while sykube dashboard runs: ${plural(usage.length, "sample")}, one every two seconds; the disk twice a minute.`
        : "");
    },
  };
}
