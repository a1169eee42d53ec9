// What is said aloud by screen readers, and shown for a moment.

const TOGETHER_MS = 150; // several results at once are one announcement
const SHOWN_MS = 2600;

let pending = [];
let hiding;

/** Says it to screen readers, after what is being said already. */
export function say(words) {
  pending.push(words);
  if (pending.length > 1) return;
  setTimeout(() => {
    document.getElementById("said").textContent = pending.join(" ");
    pending = [];
  }, TOGETHER_MS);
}

/** Shows it for a moment, and says it. */
export function show(words) {
  const toast = document.getElementById("toast");
  const shown = document.createElement("span"); // a new one: what is new does not move
  shown.textContent = words;
  toast.replaceChildren(shown);
  clearTimeout(hiding);
  hiding = setTimeout(() => toast.replaceChildren(), SHOWN_MS);
}

/** Puts text on the clipboard, and says so. */
export async function copy(text, name) {
  const done = (await byClipboard(text)) || bySelection(text);
  show(done ? `Copied ${name}` : "Your browser does not let pages copy. Select the emoji instead.");
}

async function byClipboard(text) {
  try {
    await navigator.clipboard.writeText(text); // not there without https
    return true;
  } catch {
    return false;
  }
}

function bySelection(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus({ preventScroll: true });
  return done;
}
