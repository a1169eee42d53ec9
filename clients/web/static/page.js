// The Emojini page: every way to give a picture leads to a card.

import { Camera, isPhone } from "./camera.js";
import { Card } from "./card.js";
import { address, given } from "./given.js";
import { Line } from "./line.js";
import { FilePicture, UrlPicture } from "./picture.js";
import { say, show } from "./say.js";

const AT_A_TIME = 3; // requests; the server has others to look after
const MOST_CARDS = 100;

const line = new Line(AT_A_TIME);
const cards = [];
const part = (id) => document.getElementById(id);

function add(pictures) {
  const room = MOST_CARDS - cards.length;
  if (pictures.length > room) {
    show(`This page has room for ${MOST_CARDS} pictures; remove some to add more.`);
  }
  const added = pictures.slice(0, room).map((picture) => new Card(picture, line, { onAnswer, onRemove }));
  if (added.length === 0) return;
  cards.push(...added);
  furnish();
  part("cards").append(...added.map((card) => card.element));
  if (added.length > 1) say(`${added.length} pictures added.`);
  added[0].element.scrollIntoView({ block: "nearest", behavior: motion() });
}

// What belongs to a page with cards, and what to one without.
function furnish() {
  part("empty").hidden = cards.length > 0;
  part("hint").hidden = part("more").hidden = cards.length === 0;
}

function motion() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
}

function onAnswer([first]) {
  document.title = `${first.emoji} Emojini`;
}

function onRemove(card) {
  const place = cards.indexOf(card);
  cards.splice(place, 1);
  card.leave();
  const next = cards[place] ?? cards[place - 1];
  if (next) next.focus();
  else {
    document.title = "Emojini";
    furnish();
    part("choose").focus();
  }
}

function addFiles(files) {
  add([...files].map((file) => new FilePicture(file)));
}

function addGiven(transfer, otherwise) {
  const { files, urls, folders } = given(transfer);
  if (folders > 0) show("Folders cannot be opened here. Drop the pictures that are in it.");
  else if (files.length === 0 && urls.length === 0) show(otherwise);
  addFiles(files);
  add(urls.map((url) => new UrlPicture(url)));
}

function wireFiles() {
  for (const [button, input] of [["choose", "files"], ["more", "files"]]) {
    part(button).addEventListener("click", () => part(input).click());
  }
  for (const input of [part("files"), part("capture")]) {
    input.addEventListener("change", () => {
      addFiles(input.files);
      input.value = ""; // the same file may be chosen again
    });
  }
  const camera = new Camera((photo) => addFiles([photo]));
  part("photograph").addEventListener("click", () => {
    if (isPhone()) part("capture").click();
    else camera.open();
  });
}

function wireDrops() {
  const veil = part("veil");
  const lift = () => {
    veil.hidden = true;
  };
  addEventListener("dragover", (event) => {
    event.preventDefault(); // else the browser opens what is dropped
    event.dataTransfer.dropEffect = "copy";
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) lift(); // has left the window
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    lift();
    addGiven(event.dataTransfer, "That is neither a picture nor the address of one.");
  });
}

function wirePaste() {
  addEventListener("paste", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (typing && event.clipboardData.files.length === 0) return; // they edit the address
    event.preventDefault();
    addGiven(event.clipboardData, "What you pasted is neither a picture nor the address of one.");
  });
}

function wireAddress() {
  const [input, wrong] = [part("url"), part("url-wrong")];
  const tell = (words) => {
    wrong.textContent = words;
    input.setAttribute("aria-invalid", String(words !== ""));
  };
  input.addEventListener("input", () => tell(""));
  part("address").addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = input.value.trim();
    const found = address(typed) ?? (typed.includes(".") && !typed.includes(":") ? address(`https://${typed}`) : null);
    if (!found) {
      tell("An address begins with https:// or http://");
      input.focus();
      return;
    }
    input.value = "";
    add([new UrlPicture(found)]);
  });
}

function wireExamples() {
  for (const button of document.querySelectorAll("[data-example]")) {
    const name = button.dataset.example;
    button.addEventListener("click", async () => {
      try {
        const response = await fetch(`/static/examples/${name}`);
        if (!response.ok) throw new Error(response.statusText);
        addFiles([new File([await response.blob()], name, { type: "image/jpeg" })]);
      } catch {
        show("The example does not load: this page's server does not answer.");
      }
    });
  }
}

wireFiles();
wireDrops();
wirePaste();
wireAddress();
wireExamples();
