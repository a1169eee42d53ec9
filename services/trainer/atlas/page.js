"use strict";
// All text comes in by textContent: what others wrote is shown, and never parsed.
const BLOCK = 64;
const $ = (id) => document.getElementById(id);
const made = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const put = (node, ...children) => (node.append(...children), node);
const read = new Map();
const data = (id) => {
  if (!read.has(id)) { const node = $(id); read.set(id, node && JSON.parse(node.textContent)); }
  return read.get(id);
};
const picture = (number) => data("p" + Math.floor(number / BLOCK))[number % BLOCK];
const percent = (x) => { const p = Math.max(0, x) * 100; return (p > 0 && p < 9.95 ? p.toFixed(1) : p.toFixed(0)) + " %"; };
const count = (n) => n.toLocaleString("en");

function shown(number) {
  const [content, link, emoji] = picture(number);
  const image = made("img");
  image.src = "data:image/webp;base64," + content;
  image.alt = emoji ? "A picture posted with " + emoji : "A picture";
  image.loading = "lazy"; image.decoding = "async";
  if (!/^https?:\/\//.test(link)) return image;
  const anchor = made("a");
  anchor.href = link; anchor.target = "_blank"; anchor.rel = "noopener noreferrer nofollow"; anchor.title = "To the post";
  return put(anchor, image);
}

function strip(title, note, numbers, withEmoji) {
  if (!numbers.length) return [];
  const list = made("ul", "strip");
  for (const number of numbers) {
    const item = put(made("li"), shown(number));
    if (withEmoji) item.append(made("small", "", picture(number)[2]));
    list.append(item);
  }
  return [made("h3", "", title), made("p", "soft small", note), list];
}

function saliency([number, width, cells, agreement]) {
  const list = put(made("ul", "strip"), put(made("li"), shown(number)));
  const item = put(made("li"), shown(number));
  const canvas = made("canvas", "over");
  canvas.width = width; canvas.height = cells.length / width;
  const context = canvas.getContext("2d");
  [...cells].forEach((cell, place) => {
    context.fillStyle = `rgb(0 0 0 / ${1 - cell / 9})`;
    context.fillRect(place % width, Math.floor(place / width), 1, 1);
  });
  canvas.setAttribute("aria-hidden", "true");
  list.append(put(item, canvas));
  const check = agreement === null ? "" : ` Random weights give a map that agrees with this one by ${agreement.toFixed(2)} (0 is nothing, 1 the same).`;
  return [made("h3", "", "Where the model sees it"), made("p", "soft small", "What is dark did not speak for the emoji." + check), list];
}

function jump(index, title) {
  const target = data("d" + index);
  const link = made("a", "jump", target ? target.emoji : "");
  link.href = "#e" + index; link.title = title || (target ? target.name : "");
  return link;
}

function words(one) {
  const box = made("div");
  if (!one.signs.length) return box;
  const table = made("table");
  table.append(put(made("tr"), made("th", "", "sign"), made("th", "", ""), made("th", "n", "authors"), made("th", "n", "log-odds, 95 %")));
  for (const [name, kind, , authors, value, low, high] of one.signs) {
    table.append(put(made("tr"), made("td", "", name), made("td", "soft", kind), made("td", "n", count(authors)),
      made("td", "n", `${value.toFixed(1)} (${low.toFixed(1)} to ${high.toFixed(1)})`)));
  }
  return put(box, made("h3", "", "What its posts have more of"), put(made("div", "scroll"), table));
}

function verdict(one) {
  const box = made("div");
  if (!one.judged) return put(box, made("p", "soft", `Used by ${count(one.authors)} authors: too few to judge what it means.`));
  const [value, low, high] = one.social;
  const bar = made("div", "bar"), lit = made("i", "lit"), soc = made("i", "soc");
  lit.style.width = Math.min(1, one.literal) * 100 + "%"; soc.style.width = Math.max(0, Math.min(1, value)) * 100 + "%";
  put(box, put(bar, lit, soc), put(made("div", "keys"), made("span", "l", percent(one.literal) + " literal"),
    made("span", "s", `${percent(value)} other (${percent(low)} to ${percent(high)})`)));
  const said = one.flagged ? `Carries another meaning, by ${one.by}: ${count(one.agreeing)} authors agree (q = ${one.q.toPrecision(2)}).`
    : "No other meaning is sure.";
  return put(box, made("p", "", said));
}

function facts(one) {
  const box = made("div");
  if (one.among) box.append(made("h3", "", "Precision"), made("p", "", `${percent(one.precision[0])} (${percent(one.precision[1])} to ${percent(one.precision[2])}) of the ${one.among} pictures that the model is surest of were posted with it.`));
  if (one.near.length) box.append(made("h3", "", "Nearest by pictures"), put(made("p"), ...one.near.map((n) => jump(n))));
  if (one.together.length) box.append(made("h3", "", "Posted together with"), put(made("p"), ...one.together.map(([n, authors, lift]) => jump(n, `${count(authors)} authors, ${lift} times as often as by chance`))));
  const drift = one.drift;
  if (drift.date) {
    box.append(made("h3", "", `Changed in ${drift.date.slice(0, 7)}`), put(made("ul", "small"),
      ...drift.changes.map(([name, before, after]) => made("li", "", `${name}: ${percent(before)} → ${percent(after)}`))),
      made("p", "soft small", `p = ${drift.p}, of ${count(drift.posts)} posts with a time.`));
  }
  return box;
}

function sheet(index) {
  const one = data("d" + index), inside = $("inside");
  if (!one) return;
  const close = made("button", "", "Close");
  close.addEventListener("click", () => $("sheet").close());
  const title = made("h2", "", one.name);
  title.id = "title";
  const top = put(made("div", "top"), made("span", "glyph", one.emoji), put(made("div"), title,
    made("p", "soft small", `${one.group} · ${count(one.pictures)} pictures` + (one.posts ? ` · ${count(one.posts)} posts · ${count(one.authors)} authors` : ""))),
    put(made("div", "tools"), close));
  const nodes = [top, put(made("div", "two"), put(made("div"), verdict(one), words(one)), facts(one)),
    ...strip("Gallery", "Posted with it; the model is surest of these. One of each author.", one.strips.gallery),
    ...strip("By chance", "Some that were posted with it, whatever the model thinks.", one.strips.chance),
    ...strip("Sure and wrong", "The model is sure of these, and they were posted with other emoji.", one.strips.wrong, true),
    ...strip("More than usual", "It rises above its own frequency here as no other emoji does.", one.strips.lifted, true)];
  if (one.saliency) nodes.push(...saliency(one.saliency));
  if (one.subs.length > 1) {
    nodes.push(made("h3", "", "Sub-meanings"), made("p", "soft small", "Groups of like pictures, and the words that mark their posts."));
    for (const [share, looks, terms, numbers] of one.subs) {
      nodes.push(put(made("div", "sub"), put(made("div"), made("b", "", percent(share) + " "), made("span", "small", looks),
        put(made("ul", "chips"), ...terms.map((term) => made("li", "", term)))), put(made("ul", "strip"), ...numbers.map((n) => put(made("li"), shown(n))))));
    }
  }
  inside.replaceChildren(...nodes);
  if (!$("sheet").open) $("sheet").showModal();
  $("sheet").scrollTop = 0;
}

const follow = () => { const found = /^#e(\d+)$/.exec(location.hash); if (found) sheet(found[1]); else if ($("sheet").open) $("sheet").close(); };
addEventListener("hashchange", follow);
$("sheet").addEventListener("close", () => { if (/^#e\d+$/.test(location.hash)) history.replaceState(null, "", location.pathname + location.search); });
$("sheet").addEventListener("click", (event) => { if (event.target === $("sheet")) $("sheet").close(); });

const items = [...$("grid").children], say = (n) => { $("count").textContent = count(n) + " emoji"; };
$("find").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  let n = 0;
  for (const item of items) { const text = item.firstElementChild.dataset.find; item.hidden = !wanted.every((word) => text.includes(word)); n += !item.hidden; }
  say(n);
});
$("order").addEventListener("change", (event) => {
  const by = event.target.value, of = (item) => item.firstElementChild;
  const keys = { frequency: (a, b) => of(b).dataset.pictures - of(a).dataset.pictures, score: (a, b) => of(b).dataset.score - of(a).dataset.score, name: (a, b) => of(a).dataset.find.localeCompare(of(b).dataset.find) };
  $("grid").replaceChildren(...items.sort(keys[by]));
});
say(items.length);
follow();
