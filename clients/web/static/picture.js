// A picture that somebody gave: what is shown of it, and what is sent.

import { Problem } from "./problem.js";

const MOST_BYTES = 10 * 2 ** 20; // the contract's limit for one picture
const LONG_SIDE_PX = 2048; // far more than the model looks at
const JPEG_QUALITY = 0.9;
const ANIMATED = "Animated: only its first frame was looked at";

/** Of a file on this machine. */
export class FilePicture {
  #file;
  #smaller = null;

  /** @param {File} file */
  constructor(file) {
    this.name = file.name || "picture";
    this.note = "";
    this.still = null; // the first frame of an animation
    this.#file = file;
  }

  /** What to show. */
  get preview() {
    return this.#file;
  }

  /**
   * What to send: the file as it is, or a smaller copy of one that is too large.
   *
   * @throws {Problem}
   */
  async sent() {
    if (this.#file.size > MOST_BYTES && !this.#smaller) {
      this.#smaller = await scaledDown(this.#file);
      this.note = `Scaled down before sending: it has ${megabytes(this.#file.size)}`;
    }
    const blob = this.#smaller ?? (await read(this.#file));
    await noteAnimation(this, blob);
    return { blob, name: this.name };
  }
}

/** Of an address on the internet, which the server fetches. */
export class UrlPicture {
  /** @param {string} url */
  constructor(url) {
    this.name = url;
    this.note = "";
    this.still = null;
    this.preview = null; // until the server has fetched it
  }

  /** The address; once it has been fetched, the picture that was there. */
  async sent() {
    return this.preview ? { blob: this.preview, name: "picture" } : { url: this.name };
  }

  /** Keeps what the server found there, so that "why?" asks about the same picture. */
  async found(base64) {
    this.preview = fromBase64(base64);
    await noteAnimation(this, this.preview);
  }
}

async function noteAnimation(picture, blob) {
  if (picture.still || !(await isAnimated(blob))) return;
  picture.note = ANIMATED;
  picture.still = await firstFrame(blob);
}

/** The bytes of base64, as a blob without a type: browsers find out what it is. */
export function fromBase64(text, type = "") {
  return new Blob([Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0))], { type });
}

// A file that has gone, or is a folder, must not look like a server that has.
async function read(file) {
  try {
    return new Blob([await file.arrayBuffer()], { type: file.type });
  } catch {
    throw new Problem("FILE_UNREADABLE");
  }
}

async function scaledDown(file) {
  try {
    const image = await createImageBitmap(file); // upright, by its EXIF
    const scale = Math.min(1, LONG_SIDE_PX / Math.max(image.width, image.height));
    const blob = await drawn(image, scale, "image/jpeg");
    image.close();
    return blob;
  } catch {
    throw new Problem("FILE_TOO_LARGE", {
      detail: `It has ${megabytes(file.size)}, more than the 10 MiB that may be sent, and your browser cannot make it smaller. Try a smaller copy.`,
    });
  }
}

async function firstFrame(blob) {
  try {
    return await drawn(await createImageBitmap(blob), 1, "image/png");
  } catch {
    return null; // then the browser shows what it can
  }
}

function drawn(image, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext("2d");
  if (type === "image/jpeg") {
    context.fillStyle = "#fff"; // where it is transparent; else it would be black
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no blob"))), type, JPEG_QUALITY);
  });
}

/** Whether the bytes are a GIF of more than one frame. */
export async function isAnimated(blob) {
  if (blob.size < 14 || (await blob.slice(0, 3).text()) !== "GIF") return false;
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const tableLength = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let at = 13 + tableLength(bytes[10]);
  let frames = 0;
  while (at < bytes.length && frames < 2) {
    const kind = bytes[at];
    if (kind === 0x2c) {
      frames += 1;
      at += 11 + tableLength(bytes[at + 9]);
    } else if (kind === 0x21) at += 2;
    else break; // the end, or damage
    while (bytes[at]) at += bytes[at] + 1; // its blocks, up to the empty one
    at += 1;
  }
  return frames > 1;
}

function megabytes(count) {
  return `${(count / 2 ** 20).toFixed(1)} MiB`;
}
