// Jobs by what they wasted and what they made of their CPUs, in SVG.

import { h, s, text } from "./dom.js";
import { percent, plural } from "./format.js";
import { niceMax } from "./plot.js";

const WIDTH = 480;
const HEIGHT = 200;
const LEFT = 48;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 34;
const GAP = 4;

// name: of the Slurm cluster
export function scatter(name) {
  const grid = s("g", { class: "grid" });
  const marks = s("g", {});
  const picture = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "plot-picture" },
    grid, marks,
    s("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, class: "axis", "text-anchor": "middle" },
      "impact: CPU time that the job wasted, of all that was allocated"));
  let drawn = "";
  return {
    element: h("figure", { class: "plot" },
      h("figcaption", {}, h("span", { class: "plot-title" }, "Efficiency of jobs, by their impact")), picture),
    // points: [impact, efficiency] in percent; jobs: how many they are of
    update(points, jobs) {
      const shape = JSON.stringify(points);
      if (shape === drawn) return;
      drawn = shape;
      const widest = niceMax(Math.max(0, ...points.map(([impact]) => impact)), 0.1);
      const most = Math.max(0, ...points.map(([, efficiency]) => efficiency));
      const highest = most > 100 ? niceMax(most, 100) : 100;
      const x = (value) => LEFT + (value / widest) * (WIDTH - LEFT - RIGHT);
      const y = (value) => HEIGHT - BOTTOM - (value / highest) * (HEIGHT - TOP - BOTTOM);
      grid.replaceChildren(...[0, 0.5, 1].flatMap((part) => {
        const [across, up] = [x(widest * part), y(highest * part)];
        return [
          s("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: up, y2: up }),
          s("text", { x: LEFT - 6, y: up + GAP, class: "axis", "text-anchor": "end" }, `${highest * part} %`),
          s("text", { x: across, y: HEIGHT - BOTTOM + 14, class: "axis", "text-anchor": "middle" },
            `${Number((widest * part).toPrecision(3))} %`),
        ];
      }));
      marks.replaceChildren(...points.map(([impact, efficiency]) => {
        const circle = s("circle", { cx: x(impact).toFixed(1), cy: y(efficiency).toFixed(1), r: 3.5, class: "job" }, s("title", {}));
        text(circle.firstChild, `efficiency ${percent(efficiency)}, impact ${percent(impact)}`);
        return circle;
      }));
      picture.setAttribute("aria-label", `Efficiency of ${plural(jobs, "job")} of ${name}, by their impact`);
    },
  };
}
