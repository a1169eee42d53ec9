// The second view: asks how the service lives, every two seconds, and shows it.

import { service } from "./api.js";
import { Chart } from "./chart.js";
import { History } from "./history.js";
import { depth, rates } from "./rates.js";
import { Problem } from "./problem.js";

const EVERY_MS = 2000;
const TOO_LONG_SECONDS = 12; // between looks: what lies between is not known
const TARGET = 0.65; // the demand at which there should be more replicas

const FIGURES = {
  wait: { name: "Queue wait", format: milliseconds },
  device: { name: "Demand, device", format: share },
  decode: { name: "Demand, decode", format: share },
  images: { name: "Images a second", format: rate },
  refused: { name: "Refused a second", format: rate },
  depth: { name: "In line", format: (count) => count.toFixed(0) },
};
const LIMITS = ["objective", "target", "capacity"];

const part = (id) => document.getElementById(id);
const history = new History([...Object.keys(FIGURES), ...LIMITS]);
const charts = {
  wait: [["wait", "objective"], 120, milliseconds],
  demand: [["device", "decode", "target"], 1, share],
  images: [["images", "capacity"], 10, rate],
  line: [["refused", "depth"], 4, (count) => String(count)],
};
for (const [name, chart] of Object.entries(charts)) {
  const lines = chart[0].map((line) => ({ name: line, limit: LIMITS.includes(line) }));
  chart.push(new Chart(name, { lines, least: chart[1], format: chart[2] }));
}
let before = null;
let timer;
let looking = null;

async function look() {
  clearTimeout(timer);
  looking?.abort();
  looking = new AbortController();
  const { signal } = looking;
  try {
    take(await service(signal));
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    before = null;
    plates(null);
    history.add(Date.now() / 1000, null);
    tell("away", `${error.title}.`, error.detail);
    draw();
  }
  timer = setTimeout(look, EVERY_MS);
}

function take(now) {
  const gap = before !== null && now.seconds - before.seconds > TOO_LONG_SECONDS;
  const found = before && !gap ? rates(before, now) : null;
  const restarted = before !== null && !gap && found === null && now.seconds > before.seconds;
  if (before?.seconds === now.seconds) return; // somebody else's look, kept for a second
  before = now;
  const limits = {
    objective: now.objective_seconds * 1000,
    target: TARGET,
    capacity: now.capacity_images_per_second,
  };
  history.add(Date.now() / 1000, found && { ...found, ...limits });
  if (found) tell("living", "Living. Looked at every two seconds.");
  else if (restarted) tell("measuring", "It has started again. The first figures come in about two seconds.");
  else tell("measuring", "Measuring. The first figures come in about two seconds.");
  describe(now);
  plates(found, limits);
  draw();
}

function tell(state, words, trouble = "") {
  if (part("trouble").textContent !== trouble) part("trouble").textContent = trouble;
  if (part("state-words").textContent === words) return; // said once, not every two seconds
  part("state").dataset.state = state;
  part("state-words").textContent = words;
}

function describe(now) {
  const { name, version, backend, precision } = now.model;
  part("model").textContent = `${name}@${version}, ${backend}, ${precision} precision`;
  part("objective").textContent = milliseconds(now.objective_seconds * 1000);
  part("capacity").textContent = `of about ${rate(now.capacity_images_per_second)} it can do`;
  const waiting = Object.values(now.stages).map((stage) => stage.oldest_wait_seconds);
  part("depth").textContent = depth(now) ? `${depth(now)} in line, for ${milliseconds(1000 * Math.max(...waiting))}` : "nobody in line";
  const rows = Object.entries(now.calls).map(([code, count]) => row(code, [count.toLocaleString("en")]));
  part("calls").replaceChildren(...rows);
}

function plates(found, limits) {
  if (!found) {
    for (const name of ["wait", "demand", "images", "refused"]) plate(name, "–", false);
    if (!before) part("depth").textContent = "not known now";
    return;
  }
  const demand = Math.max(found.decode, found.device);
  plate("wait", milliseconds(found.wait), found.wait > limits.objective);
  plate("demand", share(demand), demand > TARGET);
  plate("images", rate(found.images), false);
  plate("refused", rate(found.refused), found.refused > 0);
}

function plate(name, words, isOver) {
  const place = document.querySelector(`[data-plate="${name}"]`);
  place.classList.toggle("over", isOver);
  place.querySelector(".value").textContent = words;
}

function draw() {
  for (const [names, , format, chart] of Object.values(charts)) {
    const words = names.filter((name) => !LIMITS.includes(name)).map((name) => sentence(name, format));
    chart.show(history.of(...names), words.join(" "));
  }
  part("numbers").replaceChildren(
    ...Object.entries(FIGURES).map(([key, { name, format }]) => {
      const known = history.summary(key);
      const cells = known ? [known.now, known.mean, known.most] : [null, null, null];
      return row(name, cells.map((value) => (value === null ? "–" : format(value))));
    }),
  );
}

function sentence(name, format) {
  const known = history.summary(name);
  if (!known) return `${FIGURES[name].name}: no figures yet.`;
  const now = known.now === null ? "not known" : format(known.now);
  return `${FIGURES[name].name}: now ${now}, at most ${format(known.most)}.`;
}

function row(head, cells) {
  const line = document.createElement("tr");
  const title = document.createElement("th");
  title.scope = "row";
  title.textContent = head;
  line.append(title, ...cells.map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  }));
  return line;
}

function milliseconds(ms) {
  return ms < 10 && ms > 0 ? `${ms.toFixed(1)} ms` : `${Math.round(ms).toLocaleString("en")} ms`;
}

function share(part) {
  return `${Math.round(part * 100)}%`;
}

function rate(count) {
  return count > 0 && count < 10 ? count.toFixed(1) : String(Math.round(count));
}

// Nobody looks at a hidden tab, so it does not look either.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    looking?.abort();
  } else look();
});

draw();
look();
