// The page: its head, its views, and what is wrong.

import { attribute, code, h, keyed, setPill, text } from "./dom.js";
import { clock } from "./format.js";
import { logsView } from "./logs.js";
import { nodesView } from "./nodes.js";
import { slurmView } from "./slurm.js";
import { connect, objectsNow, onChange, slurmNow, store } from "./store.js";
import { deploymentsView, eventsView, podKind, podsView } from "./tables.js";

const VIEWS = {
  nodes: ["Nodes", nodesView()],
  pods: ["Pods", podsView()],
  deployments: ["Deployments", deploymentsView()],
  slurm: ["Slurm", slurmView()],
  events: ["Events", eventsView()],
  logs: ["Logs", logsView()],
};
const KINDS = { healthy: "ok", degraded: "bad", paused: "warn", unfinished: "warn", gone: "bad" };
const $ = (id) => document.getElementById(id);

const tabs = Object.fromEntries(Object.entries(VIEWS).map(([name, [title]]) =>
  [name, h("a", { href: `#${name}` }, h("span", {}, title), h("b", { class: "badge", hidden: true }))]));
$("tabs").append(...Object.values(tabs));

let current = "";

function route() {
  const wanted = location.hash.slice(1).split("/")[0];
  if (wanted === "content" && current) return;
  const name = wanted in VIEWS ? wanted : "nodes";
  if (name !== current) {
    if (current) VIEWS[current][1].leave?.();
    current = name;
    $("content").replaceChildren(VIEWS[name][1].element);
    for (const [each, tab] of Object.entries(tabs)) attribute(tab, "aria-current", each === name ? "page" : null);
    window.scrollTo(0, 0);
  }
  VIEWS[name][1].enter?.();
  render();
}

function badge(name, count, kind = "") {
  const element = tabs[name].querySelector("b");
  element.hidden = count === undefined;
  text(element, count ?? "");
  attribute(element, "data-kind", kind || null);
}

function facts(cluster) {
  const shown = cluster?.kubernetes
    ? [["Kubernetes", cluster.kubernetes], ["API", cluster.endpoint]]
    : [];
  keyed($("facts"), shown, ([name]) => name,
    ([name]) => h("div", {}, h("dt", {}, name), h("dd", { class: "mono" })),
    (element, [, value]) => text(element.querySelector("dd"), value));
}

// What is wrong: kind, words, and a command that helps or nothing.
function troubles() {
  const { cluster, objects, connection, since } = store;
  const found = [];
  const name = cluster?.option ?? "";
  if (connection === "lost")
    found.push(["bad", `No answer from sykube dashboard since ${clock(since / 1000)}; what you see is from then.`, "", "If it has ended, start it again and open its new link."]);
  if (connection === "ended")
    found.push(["bad", "This page is no longer connected.", `sykube dashboard${name}`, "opens a new one."]);
  if (!cluster) return found;
  if (cluster.status === "stopped")
    found.push(["idle", "The cluster is stopped; everything in it stays.", `sykube start${name}`, "brings it back."]);
  else if (cluster.status === "paused")
    found.push(["warn", "The cluster is paused.", `sykube unpause${name}`, "lets it go on."]);
  else if (cluster.status === "unfinished")
    found.push(["warn", "The cluster was never finished.", `sykube init${name}`, "resumes it."]);
  else if (cluster.status === "gone")
    found.push(["bad", "The cluster is gone from this host.", "", ""]);
  else if (cluster.status === "unknown")
    found.push(["bad", `The cluster cannot be looked at: ${cluster.problem}`, "", ""]);
  else {
    for (const node of cluster.nodes)
      if (node.problem) found.push(["bad", `${node.name}: ${node.problem}`, "", ""]);
    for (const [part, problem] of Object.entries(cluster.parts))
      if (problem) found.push(["bad", `${part}: ${problem}`, "", ""]);
    if (objects?.problem && !cluster.parts["API server"])
      found.push(["bad", `API server: ${objects.problem}`, "", ""]);
    if (objects?.problem && objects.time)
      found.push(["warn", `Pods, Deployments and events are as they were at ${clock(objects.time)}.`, "", ""]);
    if (found.length && connection === "live")
      found.push(["idle", "What to do about it:", `sykube doctor${name}`, ""]);
  }
  if (cluster.certificates) found.push(["warn", cluster.certificates, "", ""]);
  return found;
}

function render() {
  const { cluster, connection } = store;
  const objects = objectsNow();
  const live = { live: ["ok", "live"], lost: ["bad", "lost"], ended: ["bad", "ended"] }[connection];
  setPill($("connection"), ...(live ?? ["idle", "connecting"]));
  const name = cluster?.name ?? "sykube";
  text($("name"), name);
  setPill($("status"), KINDS[cluster?.status] ?? "idle", cluster?.status ?? "looking …");
  document.title = cluster ? `${name}: ${cluster.status} – sykube` : "sykube";
  facts(cluster);
  badge("nodes", cluster?.nodes?.length);
  const pods = objects?.pods;
  badge("pods", pods?.length, pods?.some((pod) => podKind(pod) === "bad") ? "bad" : "");
  badge("deployments", objects?.deployments?.length);
  const slurm = slurmNow() ?? [];
  badge("slurm", slurm.reduce((sum, each) => sum + each.jobs.length + each.more_jobs, 0),
    slurm.some((each) => each.problem) ? "bad" : "");
  // Who has none is not asked to think of it.
  tabs.slurm.hidden = !slurm.length && current !== "slurm";
  const warnings = objects?.events?.filter((event) => event.type === "Warning").length;
  badge("events", warnings || undefined, "warn");
  keyed($("banners"), troubles(), (trouble) => trouble.join("|"),
    ([kind, words, command, rest]) => h("p", { class: "banner", "data-kind": kind }, words, " ",
      command ? code(command) : "", " ", rest),
    () => {});
  VIEWS[current][1].update();
}

window.addEventListener("hashchange", route);
onChange(render);
// Ages go on also when nothing happens.
setInterval(render, 5000);
route();
connect();
