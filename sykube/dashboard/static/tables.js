// Pods, Deployments and events.

import { attribute, cell, empty, h, keyed, pill, setPill, table, text } from "./dom.js";
import { age, bytes, millicores, plural } from "./format.js";
import { ask, changed, objectsNow, store } from "./store.js";
import { toast } from "./toast.js";

const FINE = new Set(["Running", "Succeeded", "Completed"]);
const PASSING = new Set(["Pending", "ContainerCreating", "Terminating"]);

export function podKind(pod) {
  if (pod.status === "Running") return pod.ready === pod.containers.length ? "ok" : "warn";
  if (FINE.has(pod.status)) return "idle";
  return PASSING.has(pod.status) || /^Init:\d/.test(pod.status) ? "warn" : "bad";
}

function filter(label, placeholder) {
  const input = h("input", { type: "search", placeholder, "aria-label": label, oninput: changed });
  return { input, takes: (...words) => words.join(" ").toLowerCase().includes(input.value.trim().toLowerCase()) };
}

// A choice among what there is now; what was chosen stays also while it is away.
function choice(label, all) {
  const select = h("select", { "aria-label": label, onchange: changed }, h("option", { value: "" }, all));
  return {
    select,
    offer(names) {
      const wanted = [...new Set([...names, ...(select.value ? [select.value] : [])])].sort();
      const shown = [...select.options].slice(1).map((option) => option.value);
      if (wanted.join("\n") === shown.join("\n")) return;
      const { value } = select;
      select.replaceChildren(select.options[0], ...wanted.map((name) => h("option", { value: name }, name)));
      select.value = value;
    },
    takes: (name) => !select.value || select.value === name,
  };
}

// What stands there instead of a table: nothing is known yet, nothing is there, nothing fits.
function instead(element, what, all, shown) {
  const { cluster } = store;
  const objects = objectsNow();
  if (shown.length) {
    element.hidden = true;
    return;
  }
  element.hidden = false;
  const stopped = cluster && ["stopped", "paused", "gone"].includes(cluster.status);
  const words = all === undefined
    ? stopped ? [`No ${what} to show`, `The cluster is ${cluster.status}.`]
      : objects?.problem ? [`No ${what} to show`, "The API server does not answer."]
        : [`Looking for ${what} …`, ""]
    : all.length ? [`No ${what} fit`, "Change what you filter by."]
      : [`There are no ${what}`, "They appear here as soon as there are any."];
  text(element.querySelector("h2"), words[0]);
  text(element.querySelector("p"), words[1]);
}

export function podsView() {
  const namespace = choice("Namespace", "All namespaces");
  const node = choice("Node", "All nodes");
  const words = filter("Filter pods", "Filter by name or status");
  const count = h("span", { class: "count" });
  const nothing = empty("", "");
  const { element, body } = table("Pods", [
    ["Namespace"], ["Name"], ["Ready", "number"], ["Status"], ["Restarts", "number"], ["Node"],
    ["CPU", "number"], ["Memory", "number"], ["Age", "number"], [""],
  ]);
  const hint = h("p", { class: "note" }, "CPU and memory of pods need the add-on metrics: ",
    h("code", {}, "sykube addons enable metrics"));
  const make = (pod) => h("tr", {},
    cell("quiet"), h("th", { scope: "row", class: "name" }), cell("number"), cell("", pill("idle", "")),
    cell("number"), cell("quiet"), cell("number"), cell("number"), cell("number quiet"),
    cell("actions", h("a", {
      class: "button small", "aria-label": `Logs of ${pod.name}`,
      href: `#logs/pod/${pod.namespace}/${pod.name}/${pod.containers[0]}`,
    }, "Logs")));
  const update = (row, pod) => {
    const cells = row.children;
    text(cells[0], pod.namespace);
    text(cells[1], pod.name);
    text(cells[2], `${pod.ready}/${pod.containers.length}`);
    setPill(cells[3].firstChild, podKind(pod), pod.status);
    text(cells[4], pod.restarts);
    text(cells[5], pod.node || "–");
    text(cells[6], millicores(pod.cpu));
    text(cells[7], bytes(pod.memory));
    text(cells[8], age(pod.created));
  };
  return {
    element: h("section", { "aria-label": "Pods" },
      h("div", { class: "filters" }, namespace.select, node.select, words.input, count), nothing, element, hint),
    update() {
      const pods = objectsNow()?.pods;
      namespace.offer((pods ?? []).map((pod) => pod.namespace));
      node.offer((pods ?? []).map((pod) => pod.node).filter(Boolean));
      const shown = (pods ?? []).filter((pod) =>
        namespace.takes(pod.namespace) && node.takes(pod.node) && words.takes(pod.name, pod.status));
      text(count, pods ? plural(shown.length, "pod") : "");
      element.hidden = !shown.length;
      hint.hidden = !shown.length || objectsNow().measured;
      instead(nothing, "pods", pods, shown);
      keyed(body, shown, (pod) => `${pod.namespace}/${pod.name}`, make, update);
    },
  };
}

// What was asked for and is not there yet, by Deployment.
const asked = new Map();
// One request at a time for each: of two at once, the first could be done last.
const sending = new Set();

async function scale(deployment, replicas) {
  const { namespace, name } = deployment;
  const key = `${namespace}/${name}`;
  asked.set(key, replicas);
  changed();
  if (sending.has(key)) return;
  sending.add(key);
  try {
    let sent = null;
    while (sent !== asked.get(key)) {
      sent = asked.get(key);
      await ask("scale", { namespace, name, replicas: sent });
    }
  } catch (error) {
    asked.delete(key);
    toast(`${name} was not scaled: ${error.message}`);
  }
  sending.delete(key);
  changed();
}

export function deploymentsView() {
  const namespace = choice("Namespace", "All namespaces");
  const words = filter("Filter Deployments", "Filter by name");
  const count = h("span", { class: "count" });
  const nothing = empty("", "");
  const cards = h("div", { class: "cards" });
  const wanted = (deployment) =>
    asked.get(`${deployment.namespace}/${deployment.name}`) ?? deployment.wanted;
  const current = new WeakMap();

  function make(first) {
    const card = h("article", { class: "card deployment" });
    const step = (by) => () => {
      const deployment = current.get(card);
      scale(deployment, Math.max(0, wanted(deployment) + by));
    };
    const input = h("input", {
      type: "number", min: 0, max: 100, "aria-label": `Pods of ${first.name}`,
      onchange: () => {
        const number = Number.parseInt(input.value, 10);
        if (Number.isInteger(number) && number >= 0 && number <= 100) scale(current.get(card), number);
        else input.value = wanted(current.get(card));
      },
    });
    card.append(
      h("header", {}, h("h2", {}, first.name), h("span", { class: "role" }, first.namespace), pill("idle", ""),
        h("div", { class: "stepper" },
          h("button", { type: "button", "aria-label": `One pod less of ${first.name}`, onclick: step(-1) }, "−"),
          input,
          h("button", { type: "button", "aria-label": `One pod more of ${first.name}`, onclick: step(1) }, "+"))),
      h("ul", { class: "pods", "aria-label": `Pods of ${first.name}` }));
    return card;
  }

  function update(card, deployment) {
    current.set(card, deployment);
    const key = `${deployment.namespace}/${deployment.name}`;
    if (!sending.has(key) && asked.get(key) === deployment.wanted) asked.delete(key);
    const number = wanted(deployment);
    const input = card.querySelector("input");
    if (document.activeElement !== input) input.value = number;
    card.querySelector("button").disabled = number === 0;
    const pods = objectsNow().pods.filter((pod) =>
      pod.namespace === deployment.namespace && !pod.ended &&
      deployment.sets.some((set) => pod.owner === `ReplicaSet/${set}`));
    const settled = deployment.ready === number && pods.length === number;
    setPill(card.querySelector(".pill"), settled ? (number ? "ok" : "idle") : "warn",
      number ? `${deployment.ready} of ${number} ready` : settled ? "scaled to 0" : "ending");
    keyed(card.querySelector(".pods"), pods, (pod) => pod.name,
      (pod) => h("li", {}, h("a", { href: `#logs/pod/${pod.namespace}/${pod.name}/${pod.containers[0]}` },
        h("i", { class: "dot" }), h("span", { class: "mono" }), h("small", {}))),
      (item, pod) => {
        attribute(item, "data-kind", podKind(pod));
        text(item.querySelector("span"), pod.name.slice(deployment.name.length + 1));
        const where = pod.node ? `on ${pod.node}` : "not placed yet";
        text(item.querySelector("small"), pod.status === "Running" ? where : `${pod.status}, ${where}`);
      });
  }

  return {
    element: h("section", { "aria-label": "Deployments" },
      h("div", { class: "filters" }, namespace.select, words.input, count), nothing, cards),
    update() {
      const found = objectsNow()?.deployments;
      namespace.offer((found ?? []).map((each) => each.namespace));
      const shown = (found ?? []).filter((each) =>
        namespace.takes(each.namespace) && words.takes(each.name));
      // A user's own come first.
      shown.sort((a, b) => (a.namespace === "kube-system") - (b.namespace === "kube-system"));
      text(count, found ? plural(shown.length, "Deployment") : "");
      instead(nothing, "Deployments", found, shown);
      keyed(cards, shown, (each) => `${each.namespace}/${each.name}`, make, update);
    },
  };
}

export function eventsView() {
  const namespace = choice("Namespace", "All namespaces");
  const words = filter("Filter events", "Filter by object, reason or message");
  const warnings = h("input", { type: "checkbox", onchange: changed });
  const count = h("span", { class: "count" });
  const nothing = empty("", "");
  const { element, body } = table("Events", [["Seen", "number"], ["Type"], ["Reason"], ["Object"], ["Message"], ["Times", "number"]]);
  const make = () => h("tr", {}, cell("number quiet"), cell("", pill("idle", "")), cell("strong"),
    h("th", { scope: "row", class: "name" }), cell("message"), cell("number"));
  const update = (row, event) => {
    const cells = row.children;
    text(cells[0], age(event.time));
    setPill(cells[1].firstChild, event.type === "Warning" ? "warn" : "idle", event.type);
    text(cells[2], event.reason);
    text(cells[3], `${event.kind} ${event.name}`);
    attribute(cells[3], "title", event.namespace);
    text(cells[4], event.message);
    text(cells[5], event.count);
  };
  return {
    element: h("section", { "aria-label": "Events" },
      h("div", { class: "filters" }, namespace.select, words.input,
        h("label", { class: "check" }, warnings, "Warnings alone"), count), nothing, element),
    update() {
      const events = objectsNow()?.events;
      namespace.offer((events ?? []).map((event) => event.namespace).filter(Boolean));
      const shown = (events ?? []).filter((event) =>
        namespace.takes(event.namespace) && (!warnings.checked || event.type === "Warning") &&
        words.takes(event.name, event.reason, event.message));
      text(count, events ? plural(shown.length, "event") : "");
      element.hidden = !shown.length;
      instead(nothing, "events", events, shown);
      keyed(body, shown, (event) => event.id, make, update);
    },
  };
}
