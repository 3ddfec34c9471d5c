// A line that says what went wrong, and goes by itself.

import { h } from "./dom.js";

const STAYS_MS = 8000;

export function toast(words) {
  const element = h("div", { class: "toast" }, h("span", {}, words),
    h("button", { type: "button", "aria-label": "Close", onclick: () => element.remove() }, "×"));
  document.getElementById("toasts").append(element);
  setTimeout(() => element.remove(), STAYS_MS);
}
