// A small plot of values over time, in SVG. The pointer or the arrow keys read out single points.

import { h, s, text } from "./dom.js";
import { clock } from "./format.js";

const WIDTH = 360;
const HEIGHT = 128;
const LEFT = 52;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 20;
// Shorter spans would make noise look like news.
const SHORTEST_S = 60;

export function niceMax(value, least) {
  const wanted = Math.max(value * 1.08, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= wanted);
}

function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${(seconds / 3600).toFixed(1)} h ago`;
}

// title, name: what is shown, and of which node; series: [{key, label}], where stacked from the first
// one on; format: of a value; least: smallest top of the scale
export function plot({ title, name, series, format, least, stacked = false }) {
  const value = h("span", { class: "plot-value" }, "–");
  const when = h("span", { class: "plot-when" });
  const grid = s("g", { class: "grid" });
  const shapes = s("g", {});
  const cross = s("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const marks = s("g", {});
  const start = s("text", { x: LEFT, y: HEIGHT - 5, class: "axis" });
  const end = s("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, class: "axis", "text-anchor": "end" }, "now");
  const picture = s(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: "0", class: "plot-picture" },
    grid, shapes, cross, marks, start, end,
  );
  const legend = series.length > 1
    ? h("ul", { class: "legend" }, series.map(({ key, label }) =>
        h("li", { class: `series-${key}` }, h("i", {}), label)))
    : null;
  const element = h(
    "figure",
    { class: "plot" },
    h("figcaption", {}, h("span", { class: "plot-title" }, title), when, value),
    picture,
    legend,
  );

  let points = [];
  let limit;
  let chosen = null;
  let scale = { first: 0, last: 1, top: 1 };

  const x = (time) =>
    LEFT + ((time - scale.first) / (scale.last - scale.first)) * (WIDTH - LEFT - RIGHT);
  const y = (amount) => HEIGHT - BOTTOM - (amount / scale.top) * (HEIGHT - TOP - BOTTOM);
  const total = (point) => {
    const known = series.map(({ key }) => point[key]).filter((each) => each !== null && each !== undefined);
    if (!known.length) return null;
    return stacked ? known.reduce((sum, each) => sum + each, 0) : known[0];
  };

  function describe(point) {
    if (!point || total(point) === null) return "–";
    return format(total(point));
  }

  function readOut() {
    const point = chosen === null ? points.at(-1) : points[chosen];
    const known = point && total(point) !== null;
    text(value, describe(point) + (limit && known && chosen === null ? ` of ${limit}` : ""));
    text(when, chosen === null || !point ? "" : clock(point.time));
    const detail = point && series.length > 1
      ? `: ${series.map(({ key, label }) => `${label} ${format(point[key])}`).join(", ")}`
      : "";
    const at = chosen === null || !point ? "now" : `at ${clock(point.time)}`;
    picture.setAttribute("aria-label", `${title} of ${name} ${at}: ${describe(point)}${detail}`);
    marks.replaceChildren();
    if (chosen === null || !point || total(point) === null) {
      cross.setAttribute("visibility", "hidden");
      return;
    }
    const at_x = x(point.time);
    cross.setAttribute("x1", at_x);
    cross.setAttribute("x2", at_x);
    cross.setAttribute("visibility", "visible");
    marks.append(s("circle", { cx: at_x, cy: y(total(point)), r: 3.2, class: `mark series-${series.at(-1).key}` }));
  }

  function choose(index) {
    chosen = index === null ? null : Math.max(0, Math.min(points.length - 1, index));
    if (chosen !== null && chosen === points.length - 1) chosen = null;
    readOut();
  }

  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const time = scale.first +
      (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) *
      (scale.last - scale.first);
    let best = null;
    points.forEach((point, index) => {
      if (best === null || Math.abs(point.time - time) < Math.abs(points[best].time - time)) best = index;
    });
    choose(best);
  });
  picture.addEventListener("pointerleave", () => choose(null));
  picture.addEventListener("blur", () => choose(null));
  picture.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 };
    if (event.key in steps) {
      choose((chosen ?? points.length - 1) + steps[event.key]);
      event.preventDefault();
    } else if (event.key === "Escape") choose(null);
  });

  // Runs of points whose value is known: a node that was stopped leaves a gap.
  function runs() {
    const found = [[]];
    for (const point of points) {
      if (total(point) === null) found.push([]);
      else found.at(-1).push(point);
    }
    return found.filter((run) => run.length);
  }

  // A line over some points, from left to right.
  const path = (run, of) =>
    run.map((point) => `${x(point.time).toFixed(1)} ${y(of(point)).toFixed(1)}`).join("L");

  function draw() {
    const last = points.at(-1)?.time ?? Date.now() / 1000;
    const first = Math.min(points[0]?.time ?? last, last - SHORTEST_S);
    const high = Math.max(0, ...points.map((point) => total(point) ?? 0));
    scale = { first, last, top: niceMax(high, least) };
    grid.replaceChildren(
      ...[0, 0.5, 1].flatMap((part) => {
        const at = y(scale.top * part);
        return [
          s("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }),
          s("text", { x: LEFT - 6, y: at + 3.5, class: "axis", "text-anchor": "end" }, format(scale.top * part)),
        ];
      }),
    );
    text(start, span(last - first));
    shapes.replaceChildren();
    series.forEach(({ key }, index) => {
      const upTo = (count) => (point) =>
        series.slice(stacked ? 0 : index, count).reduce((sum, each) => sum + (point[each.key] ?? 0), 0);
      const [lower, upper] = [stacked ? upTo(index) : () => 0, upTo(index + 1)];
      for (const run of runs()) {
        const line = path(run, upper);
        const under = path([...run].reverse(), lower);
        shapes.append(s("path", { class: `area series-${key}`, d: `M${line}L${under}Z` }));
        // Where nothing is added, its line would hide the one below.
        if (!stacked || run.some((point) => point[key])) shapes.append(s("path", { class: `line series-${key}`, d: `M${line}` }));
      }
    });
    readOut();
  }

  return {
    element,
    update(fresh, most) {
      if (chosen !== null) {
        // The same moment stays chosen while others come in.
        const time = points[chosen]?.time;
        points = fresh;
        const index = points.findIndex((point) => point.time === time);
        chosen = index < 0 ? null : index;
      } else points = fresh;
      limit = most;
      draw();
    },
  };
}
