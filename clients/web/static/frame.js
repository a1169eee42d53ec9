// The part of a card that shows the picture, and what is laid over it.

import { lay } from "./saliency.js";

export class Frame {
  #root;
  #picture;
  #image;
  #overlay;
  #address = null;
  #blob = null;

  /** @param {HTMLElement} root of the card's template */
  constructor(root) {
    this.#root = root;
    this.#picture = root.querySelector(".picture");
    this.#image = root.querySelector("img");
    this.#overlay = root.querySelector(".saliency");
    this.#image.addEventListener("load", () => this.#loaded());
    this.#image.addEventListener("error", () => this.blank());
  }

  /** The picture as the page shows it; null where the browser cannot. */
  get image() {
    return this.#picture.hidden ? null : this.#image;
  }

  /** @param {Blob} blob of whatever kind */
  show(blob, description) {
    if (blob === this.#blob) return;
    this.forget();
    this.#part(".unshown", false);
    this.#blob = blob;
    this.#address = URL.createObjectURL(blob);
    this.#image.alt = description;
    this.#image.src = this.#address;
  }

  /** Fills what the picture leaves free with its colours: a few pixels of it, enlarged. */
  async fill() {
    const canvas = this.#root.querySelector(".backdrop");
    const { width, height } = canvas;
    if (!this.#blob) return;
    try { // beside the page's own work, and only once that is done: photographs are large
      const few = await createImageBitmap(this.#blob, { resizeWidth: width, resizeHeight: height });
      canvas.getContext("2d").drawImage(few, 0, 0);
      canvas.classList.add("drawn");
    } catch {
      // Then it stays plain.
    }
  }

  /** Says that there is nothing to show. */
  blank() {
    this.#part(".unshown", true);
  }

  /** What has to be said about the picture, or the overlay; nothing hides it. */
  note(words) {
    this.#root.querySelector(".note").textContent = words;
    this.#part(".note", words !== "");
  }

  /** Lays a saliency over the picture; where it is brightest, in words. */
  async lay(saliency) {
    const place = await lay(saliency, this.#overlay);
    this.#overlay.hidden = false;
    return place;
  }

  clear() {
    this.#overlay.hidden = true;
  }

  /** Gives the picture's memory back. */
  forget() {
    if (this.#address) URL.revokeObjectURL(this.#address);
  }

  #loaded() {
    const { naturalWidth: width, naturalHeight: height } = this.#image;
    this.#picture.style.setProperty("--ratio", String(width / height || 1));
    this.#picture.hidden = false;
  }

  #part(selector, shown) {
    this.#root.querySelector(selector).hidden = !shown;
  }
}
