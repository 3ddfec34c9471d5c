// Slurm clusters: what waits and runs, the nodes, what jobs made of their CPUs.

import { cell, code, empty, h, keyed, pill, setPill, setTile, table, text, tile } from "./dom.js";
import { clock, duration, percent, plural } from "./format.js";
import { scatter } from "./scatter.js";
import { slurmNow, store } from "./store.js";

// What follows a state is how the node is powered: sinfo(1), NODE STATE CODES.
const MARKS = /[*~#!%$@^+-]+$/;
const WORKS = new Set(["idle", "allocated", "mixed", "completing", "planned", "reserved"]);

function nodeKind({ state }) {
  if (state.endsWith("*")) return "bad";
  if (!WORKS.has(state.replace(MARKS, ""))) return state.startsWith("drain") ? "warn" : "bad";
  // Without a pod, or with one that comes or goes.
  return /[~#%!]$/.test(state) ? "idle" : "ok";
}

const jobKind = ({ state }) => ({ running: "ok", pending: "idle" }[state] ?? "warn");

function makeJob() {
  return h("tr", {}, h("th", { scope: "row", class: "number" }), cell("message"), cell("quiet"), cell("", pill("idle", "")),
    cell(""), cell("quiet mono"), cell("number"), cell("number"));
}

function updateJob(row, job) {
  const cells = row.children;
  text(cells[0], job.id);
  text(cells[1], job.name);
  text(cells[2], job.user);
  setPill(cells[3].firstChild, jobKind(job), job.state);
  text(cells[4], job.reason);
  text(cells[5], job.nodes);
  text(cells[6], job.cpus);
  text(cells[7], job.time);
}

function makeNode() {
  return h("tr", {}, h("th", { scope: "row", class: "name" }), cell("", pill("idle", "")), cell("number"), cell("number"),
    cell("number"), cell("quiet"), cell("message"));
}

function updateNode(row, node) {
  const cells = row.children;
  text(cells[0], node.name);
  setPill(cells[1].firstChild, nodeKind(node), node.state);
  text(cells[2], node.cpus);
  text(cells[3], node.allocated);
  text(cells[4], `${node.memory_mib} MiB`);
  text(cells[5], node.on || "–");
  text(cells[6], node.reason);
}

function makeWorst() {
  return h("tr", {}, h("th", { scope: "row", class: "number" }), cell("number"), cell("number"), cell("number"));
}

function updateWorst(row, job) {
  const cells = row.children;
  text(cells[0], job.job);
  text(cells[1], percent(job.efficiency));
  text(cells[2], duration(job.wasted_s));
  text(cells[3], percent(job.impact));
}

const parts = new WeakMap();

function make(cluster) {
  const name = cluster.namespace;
  const jobs = table(`Jobs of ${name}`, [
    ["Job", "number"], ["Name"], ["User"], ["State"], ["Reason"], ["On"], ["CPUs", "number"], ["Time", "number"],
  ]);
  const nodes = table(`Slurm nodes of ${name}`, [
    ["Node"], ["State"], ["CPUs", "number"], ["Allocated", "number"], ["Memory", "number"], ["On"], ["Reason"],
  ]);
  const worst = table(`Jobs of ${name} with the most impact`, [
    ["Job", "number"], ["Efficiency", "number"], ["Wasted CPU time", "number"], ["Impact", "number"],
  ]);
  const shown = {
    jobs, nodes, worst,
    problem: h("p", { class: "problem" }),
    waiting: h("ul", { class: "waiting", "aria-label": `Pods of ${name} that wait for room` }),
    quiet: h("p", { class: "note" }, "No job waits or runs."),
    more: h("p", { class: "note" }),
    tiles: { average: tile("Average of jobs"), median: tile("Median of jobs"), overall: tile("Overall") },
    plot: scatter(name),
    words: h("p", { class: "note" }),
    hint: h("p", { class: "note" }, "What jobs make of their CPUs needs accounting: ",
      code(`sykube slurm up${cluster.options} --accounting`), ", with the options that it has."),
  };
  shown.figures = h("div", {}, h("dl", { class: "tiles" }, Object.values(shown.tiles)),
    h("div", { class: "beside" }, shown.plot.element, worst.element));
  const card = h("article", { class: "card slurm" },
    h("header", {}, h("h2", {}, name), h("span", { class: "role" }), pill("idle", "")),
    shown.problem,
    h("h3", {}, "Queue"), jobs.element, shown.quiet, shown.more,
    h("h3", {}, "Nodes"), nodes.element, shown.waiting,
    h("h3", {}, "CPU efficiency"), shown.figures, shown.words, shown.hint);
  parts.set(card, shown);
  return card;
}

function updateEfficiency(shown, cluster) {
  const found = store.efficiency?.clusters?.[cluster.namespace];
  const there = cluster.accounting && found && !found.problem;
  shown.hint.hidden = cluster.accounting || Boolean(cluster.problem);
  shown.figures.hidden = !there;
  shown.words.hidden = !cluster.accounting;
  if (!there) {
    text(shown.words, found?.problem ? `Not known: ${found.problem}.` : "Looking …");
    return;
  }
  const { average, median, overall } = shown.tiles;
  setTile(average, percent(found.average), "each job counts the same");
  setTile(median, percent(found.median), "half of the jobs are below");
  setTile(overall, percent(found.overall), "of all CPU time that was allocated");
  shown.plot.update(found.points, found.jobs);
  shown.worst.element.hidden = !found.worst.length;
  keyed(shown.worst.body, found.worst.map((job, place) => ({ ...job, place })), (job) => String(job.place), makeWorst, updateWorst);
  const rest = found.unfinished ? `; ${plural(found.unfinished, "job")} that had not ended left out` : "";
  text(shown.words, `Of ${plural(found.jobs, "job")}${rest}. Looked at twice a minute.`);
}

function update(card, cluster) {
  const shown = parts.get(card);
  const { automatic } = cluster;
  text(card.querySelector(".role"), automatic
    ? `${automatic.least} to ${automatic.most} nodes, as jobs need them`
    : plural(cluster.nodes.length, "node"));
  setPill(card.querySelector(".pill"), cluster.problem ? "bad" : "ok", cluster.problem ? "degraded" : "healthy");
  shown.problem.hidden = !cluster.problem;
  text(shown.problem, cluster.problem);
  shown.jobs.element.hidden = !cluster.jobs.length;
  shown.quiet.hidden = Boolean(cluster.jobs.length || cluster.problem);
  shown.more.hidden = !cluster.more_jobs;
  text(shown.more, `And ${plural(cluster.more_jobs, "job")} more.`);
  // By their places: numbers may be there twice, as those of a queue that begins again are in sacct.
  keyed(shown.jobs.body, cluster.jobs.map((job, place) => ({ ...job, place })), (job) => String(job.place), makeJob, updateJob);
  shown.nodes.element.hidden = !cluster.nodes.length;
  keyed(shown.nodes.body, cluster.nodes, (node) => node.name, makeNode, updateNode);
  keyed(shown.waiting, cluster.unscheduled, (each) => each.pod, () => h("li", {}),
    (item, { pod, reason }) => text(item, `${pod} waits for room: ${reason}`));
  updateEfficiency(shown, cluster);
}

export function slurmView() {
  const cards = h("div", { class: "cards" });
  const nothing = empty("", "");
  const make_one = h("p", {}, code(""), " creates one.");
  nothing.append(make_one);
  const old = h("p", { class: "note" });
  return {
    element: h("section", { "aria-label": "Slurm" }, nothing, cards, old),
    update() {
      const found = slurmNow();
      const { cluster, slurm } = store;
      nothing.hidden = Boolean(found?.length);
      const stopped = ["stopped", "paused", "gone"].includes(cluster?.status);
      const words = found ? ["There is no Slurm cluster", ""]
        : stopped ? ["No Slurm cluster to show", `The cluster is ${cluster.status}.`]
          : slurm?.problem ? ["No Slurm cluster to show", "The API server does not answer."]
            : ["Looking for Slurm clusters …", ""];
      text(nothing.querySelector("h2"), words[0]);
      text(nothing.querySelector("p"), words[1]);
      make_one.hidden = !found || found.length > 0;
      text(make_one.querySelector("code"), `sykube slurm up${cluster?.option ?? ""}`);
      keyed(cards, found ?? [], (each) => each.namespace, make, update);
      old.hidden = !(found?.length && slurm.problem);
      text(old, old.hidden ? "" : `As it was at ${clock(slurm.time)}: ${slurm.problem}.`);
    },
  };
}
