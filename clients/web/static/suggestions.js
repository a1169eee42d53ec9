// The suggestions of one picture: emoji to copy, how probable they are, and why.

import { copy } from "./say.js";

/** @typedef {{emoji: string, name: string, probability: number}} Suggestion */

export class Suggestions {
  #list;
  #onWhy;
  #buttons = new Map();

  /** @param {(suggestion: Suggestion) => void} onWhy */
  constructor(list, onWhy) {
    this.#list = list;
    this.#onWhy = onWhy;
  }

  /** @param {Suggestion[]} suggestions the likeliest first */
  fill(suggestions) {
    this.#buttons.clear();
    this.#list.replaceChildren(...suggestions.map((one) => this.#row(one)));
  }

  /** Shows which emoji's "why?" is open; none for null. */
  press(emoji) {
    for (const [own, button] of this.#buttons) {
      button.setAttribute("aria-pressed", String(own === emoji));
    }
  }

  #row(suggestion) {
    const { emoji, name, probability } = suggestion;
    const row = document.getElementById("suggestion").content.cloneNode(true);
    const copies = row.querySelector(".emoji");
    copies.textContent = emoji;
    copies.setAttribute("aria-label", `Copy ${emoji} ${name}`);
    copies.addEventListener("click", () => copy(emoji, `${emoji} ${name}`));
    row.querySelector(".name").textContent = name;
    row.querySelector(".bar span").style.width = `${Math.max(1, probability * 100)}%`;
    row.querySelector(".share-of").textContent = percent(probability);
    const why = row.querySelector(".why");
    why.setAttribute("aria-label", `Why? ${emoji} ${name}`);
    why.addEventListener("click", () => this.#onWhy(suggestion));
    this.#buttons.set(emoji, why);
    return row;
  }
}

/** A probability for people. */
export function percent(probability) {
  const rounded = Math.round(probability * 100);
  return rounded < 1 ? "<1%" : `${rounded}%`;
}
