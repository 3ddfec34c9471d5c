// One log at a time, followed.

import { h, text } from "./dom.js";
import { plural } from "./format.js";
import { objectsNow, store } from "./store.js";

const KEPT = 5000;

function level(line) {
  if (/^[EF]\d{4} |level=(error|fatal)|"level":"(error|fatal)"|\b(ERROR|CRIT)\b/.test(line)) return "bad";
  if (/^W\d{4} |level=warn|"level":"warn|\bWARN/.test(line)) return "warn";
  return "";
}

export function logsView() {
  let source = null;
  let opened = "";
  let follows = true;
  const select = h("select", { "aria-label": "Log", onchange: () => { location.hash = select.value; } });
  const words = h("input", { type: "search", placeholder: "Show lines that contain …", "aria-label": "Filter lines", oninput: () => refilter() });
  const wrap = h("input", { type: "checkbox", onchange: () => output.classList.toggle("wrap", wrap.checked) });
  const follow = h("button", { type: "button", class: "button", "aria-pressed": "true", onclick: () => setFollow(!follows) }, "Follow");
  const output = h("div", { class: "log mono", role: "log", "aria-label": "Lines of the log", "aria-live": "off", tabindex: "0" });
  const state = h("p", { class: "note", role: "status" });

  function setFollow(value) {
    follows = value;
    follow.setAttribute("aria-pressed", String(follows));
    if (follows) output.scrollTop = output.scrollHeight;
  }

  output.addEventListener("scroll", () => {
    const atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 30;
    // Whoever scrolls up wants to read; whoever comes back to the end, to follow.
    if (atEnd !== follows) setFollow(atEnd);
  });

  const fits = (line) => line.toLowerCase().includes(words.value.trim().toLowerCase());

  function refilter() {
    for (const line of output.children) line.hidden = !fits(line.textContent);
    if (follows) output.scrollTop = output.scrollHeight;
  }

  function add(lines) {
    if (!lines.length) return;
    output.append(...lines.slice(-KEPT).map((line) => {
      const kind = level(line);
      return h("div", { "data-kind": kind || undefined, hidden: !fits(line) }, line || "\u00a0");
    }));
    while (output.childElementCount > KEPT) output.firstElementChild.remove();
    if (follows) output.scrollTop = output.scrollHeight;
    text(state, `${plural(output.childElementCount, "line")}; new ones appear at the end.`);
  }

  function address(parts) {
    const names = { pod: ["namespace", "name", "container"], node: ["node", "service"] }[parts[0]];
    if (!names || parts.length !== names.length + 1) return "";
    return `logs/${parts[0]}?${new URLSearchParams(names.map((name, index) => [name, parts[index + 1]]))}`;
  }

  function open(hash) {
    if (hash === opened) return;
    close();
    opened = hash;
    output.replaceChildren();
    const url = address(hash.split("/").slice(1).map(decodeURIComponent));
    if (!url) {
      text(state, "Choose a log: of a pod, or of a program of a node.");
      return;
    }
    text(state, "Opening …");
    setFollow(true);
    source = new EventSource(url);
    // It begins anew after the connection was lost.
    source.onopen = () => {
      output.replaceChildren();
      text(state, "Nothing was logged yet; new lines appear here.");
    };
    source.addEventListener("lines", (event) => add(JSON.parse(event.data)));
    source.addEventListener("end", (event) => {
      const problem = JSON.parse(event.data);
      text(state, problem ? `No log: ${problem}` : "The log has ended. Choose it again to look once more.");
      close();
    });
    source.onerror = () => text(state, "The connection was lost; trying again …");
  }

  function close() {
    source?.close();
    source = null;
    opened = "";
  }

  function offer() {
    const groups = [];
    for (const node of store.cluster?.nodes ?? []) {
      const services = [...new Set([...Object.keys(node.services), "kubelet", "containerd", "supervisord"])].sort();
      groups.push([`Node ${node.name}`, services.map((name) => [`logs/node/${node.name}/${name}`, `${name} on ${node.name}`])]);
    }
    const namespaces = new Map();
    for (const pod of objectsNow()?.pods ?? []) {
      const options = pod.containers.map((name) => [
        `logs/pod/${pod.namespace}/${pod.name}/${name}`,
        pod.containers.length > 1 ? `${pod.name} – ${name}` : pod.name,
      ]);
      namespaces.set(pod.namespace, [...(namespaces.get(pod.namespace) ?? []), ...options]);
    }
    for (const [namespace, options] of namespaces) groups.push([`Pods in ${namespace}`, options]);
    const here = location.hash.slice(1);
    const known = groups.some(([, options]) => options.some(([value]) => value === here));
    const shape = JSON.stringify([groups, known ? "" : here]);
    if (select.dataset.shape === shape) {
      if (known) select.value = here;
      return;
    }
    select.dataset.shape = shape;
    // What was asked for stays, also when it is gone by now.
    const other = known || here === "logs"
      ? [] : [h("option", { value: here }, here.split("/").slice(2).join(" / "))];
    select.replaceChildren(
      h("option", { value: "logs" }, "Choose a log …"),
      ...other,
      ...groups.map(([label, options]) => h("optgroup", { label }, options.map(([value, name]) => h("option", { value }, name)))),
    );
    select.value = here;
  }

  return {
    element: h("section", { class: "logs", "aria-label": "Logs" },
      h("div", { class: "filters" }, select, words, h("label", { class: "check" }, wrap, "Wrap lines"), follow),
      output, state),
    update() {
      offer();
    },
    enter() {
      offer();
      open(location.hash.slice(1));
    },
    leave: close,
  };
}
