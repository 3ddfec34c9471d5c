// Elements made and kept up to date, without replacing what has the focus or is selected.

const SVG = "http://www.w3.org/2000/svg";

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const h = (tag, properties, ...children) =>
  build(document.createElement(tag), properties, children);

export const s = (tag, properties, ...children) =>
  build(document.createElementNS(SVG, tag), properties, children);

export function text(element, value) {
  const shown = String(value);
  if (element.textContent !== shown) element.textContent = shown;
}

export function attribute(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

// One child for each item, in their order: kept by its key, made and removed where need be.
export function keyed(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = known.get(name);
    if (child) known.delete(name);
    else {
      child = make(item);
      child.dataset.key = name;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of known.values()) child.remove();
}

export function pill(kind, words) {
  return h("span", { class: "pill", "data-kind": kind }, words);
}

export function setPill(element, kind, words) {
  attribute(element, "data-kind", kind);
  text(element, words);
}

export function empty(title, ...lines) {
  return h("div", { class: "empty" }, h("h2", {}, title), ...lines.map((line) => h("p", {}, line)));
}

export const code = (words) => h("code", {}, words);

// columns: [name, class]
export function table(caption, columns) {
  const body = h("tbody", {});
  const element = h("div", { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, columns.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
      body));
  return { element, body };
}

export const cell = (kind, ...children) => h("td", { class: kind }, ...children);

export function tile(title) {
  return h("div", { class: "tile" }, h("dt", {}, title), h("dd", {}), h("dd", { class: "more" }));
}

export function setTile(element, value, more) {
  const [main, rest] = element.querySelectorAll("dd");
  text(main, value);
  text(rest, more);
}
