// A chart of the last two minutes, drawn by uPlot in the page's colours.

import { SPAN_SECONDS } from "./history.js";

const { uPlot } = globalThis; // vendor/uPlot.iife.min.js
const HEIGHT_PX = 190;
const TICKS_SECONDS = [120, 90, 60, 30, 0];

export class Chart {
  #plot;
  #place;

  /**
   * @param {string} name of the figure in the page
   * @param {{lines: {name: string, limit?: boolean}[], least: number, format: (n: number) => string}}
   *   options least: what the vertical axis shows at the least
   */
  constructor(name, { lines, least, format }) {
    this.#place = document.querySelector(`[data-chart="${name}"] .plot`);
    this.#plot = new uPlot(
      {
        width: this.#place.clientWidth,
        height: HEIGHT_PX,
        legend: { show: false },
        cursor: { show: false },
        scales: {
          x: { time: false, range: (_, __, most) => [most - SPAN_SECONDS, most] },
          y: { range: (_, __, most) => [0, Math.max(least, (most ?? 0) * 1.15)] },
        },
        axes: [ago(), values(format)],
        series: [{}, ...lines.map(series)],
      },
      [[], ...lines.map(() => [])],
      this.#place,
    );
    new ResizeObserver(() => {
      this.#plot.setSize({ width: this.#place.clientWidth, height: HEIGHT_PX });
    }).observe(this.#place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#plot.redraw());
  }

  /** @param {(number | null)[][]} columns time first; @param {string} words the same for all */
  show(columns, words) {
    this.#plot.setData(columns);
    this.#place.setAttribute("aria-label", words);
  }
}

// Looked up whenever something is drawn: the system's scheme may change.
function colour(name) {
  return () => getComputedStyle(document.documentElement).getPropertyValue(name);
}

function axis() {
  return {
    stroke: colour("--muted"),
    font: "12px system-ui, sans-serif",
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
  };
}

function ago() {
  return {
    ...axis(),
    size: 28,
    splits: (plot) => TICKS_SECONDS.map((ago) => plot.scales.x.max - ago),
    values: () => TICKS_SECONDS.map((ago) => (ago ? `${ago} s` : "now")),
    grid: { show: false },
  };
}

function values(format) {
  return { ...axis(), size: 64, space: 36, values: (_, splits) => splits.map(format) };
}

function series({ limit }, place) {
  if (limit) return { stroke: colour("--limit"), width: 1.5, dash: [6, 5], points: { show: false } };
  return {
    stroke: colour(place === 0 ? "--one" : "--two"),
    width: 2.5,
    dash: place === 0 ? [] : [2, 4],
    cap: "round",
    points: { show: false },
  };
}
