// A result as a picture to pass on, made here: nothing is sent anywhere to make it.

import { percent } from "./suggestions.js";

const [WIDTH, HEIGHT] = [1080, 1350]; // portrait, as phones show it
const PHOTO_PX = 800;
const MARGIN_PX = 64;
const TEXT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const EMOJI = '"Apple Color Emoji", "Segoe UI Emoji", "Noto Color Emoji", sans-serif';
const [PAPER, INK, MUTED, BAR, TRACK] = ["#fbf8f2", "#211c14", "#655c4d", "#f5b301", "#ece5d8"];

/**
 * Hands the result to another app, where the browser can; else downloads it.
 *
 * @param {HTMLImageElement | null} photo
 * @returns {Promise<string>} what was done, for people
 */
export async function share(photo, suggestions, name, model) {
  const blob = await drawn(photo, suggestions, model);
  const file = new File([blob], fileName(name), { type: "image/png" });
  if (navigator.canShare?.({ files: [file] })) {
    try {
      await navigator.share({ files: [file] });
      return "Shared";
    } catch (error) {
      if (error.name === "AbortError") return "Not shared"; // they thought better of it
    }
  }
  download(file);
  return "Saved as a picture";
}

function download(file) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // once the browser has surely read it
}

/** A harmless name: letters and digits of what it was called, whoever called it that. */
export function fileName(name) {
  const stem = name.split("/").at(-1).replace(/\.[^.]*$/, "");
  const plain = stem.normalize("NFKC").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return `emojini${plain ? "-" : ""}${[...plain].slice(0, 60).join("")}.png`;
}

async function drawn(photo, suggestions, model) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [WIDTH, HEIGHT];
  const context = canvas.getContext("2d");
  context.fillStyle = PAPER;
  context.fillRect(0, 0, WIDTH, HEIGHT);
  if (photo) cover(context, photo);
  const [first, ...rest] = suggestions;
  hero(context, first);
  rest.slice(0, 4).forEach((one, number) => small(context, one, number));
  context.fillStyle = MUTED;
  context.font = `26px ${TEXT}`;
  context.textAlign = "left";
  context.fillText("Suggested by EmojiNet", MARGIN_PX, HEIGHT - 48);
  context.textAlign = "right";
  context.fillText(model, WIDTH - MARGIN_PX, HEIGHT - 48, WIDTH / 2);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// As much of the photograph as fills its place, from its middle.
function cover(context, photo) {
  const scale = Math.max(WIDTH / photo.naturalWidth, PHOTO_PX / photo.naturalHeight);
  const [width, height] = [WIDTH / scale, PHOTO_PX / scale];
  const [left, top] = [(photo.naturalWidth - width) / 2, (photo.naturalHeight - height) / 2];
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, left, top, width, height, 0, 0, WIDTH, PHOTO_PX);
}

function hero(context, { emoji, name, probability }) {
  const [x, y] = [MARGIN_PX + 120, PHOTO_PX + 30];
  context.fillStyle = PAPER;
  context.beginPath();
  context.arc(x, y, 150, 0, 2 * Math.PI);
  context.fill();
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = INK; // emoji that a font has without colours
  context.font = `190px ${EMOJI}`;
  context.fillText(emoji, x, y + 12);
  context.textBaseline = "alphabetic";
  context.textAlign = "left";
  const left = x + 186;
  context.font = `600 52px ${TEXT}`;
  context.fillText(name, left, PHOTO_PX + 96, WIDTH - MARGIN_PX - left);
  bar(context, left, PHOTO_PX + 128, WIDTH - MARGIN_PX - left - 130, 18, probability);
  context.fillStyle = MUTED;
  context.font = `36px ${TEXT}`;
  context.textAlign = "right";
  context.fillText(percent(probability), WIDTH - MARGIN_PX, PHOTO_PX + 150);
}

function small(context, { emoji, name, probability }, number) {
  const width = (WIDTH - 2 * MARGIN_PX - 48) / 2;
  const left = MARGIN_PX + (number % 2) * (width + 48);
  const top = PHOTO_PX + 236 + Math.floor(number / 2) * 120;
  context.textAlign = "left";
  context.fillStyle = INK;
  context.font = `72px ${EMOJI}`;
  context.fillText(emoji, left, top + 62);
  context.font = `30px ${TEXT}`;
  context.fillText(name, left + 108, top + 26, width - 108);
  bar(context, left + 108, top + 46, width - 108 - 90, 12, probability);
  context.fillStyle = MUTED;
  context.font = `28px ${TEXT}`;
  context.textAlign = "right";
  context.fillText(percent(probability), left + width, top + 62);
}

function bar(context, left, top, width, height, share) {
  for (const [colour, part] of [[TRACK, 1], [BAR, Math.max(share, height / width)]]) {
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(left, top, width * part, height, height / 2);
    context.fill();
  }
}
