// One picture's life on the page: in line, looked at, suggested, or failed and tried again.

import { suggest } from "./api.js";
import { Frame } from "./frame.js";
import { Pause, secondsBefore } from "./pause.js";
import { Problem } from "./problem.js";
import { copy, say, show } from "./say.js";
import { share } from "./share.js";
import { Suggestions, percent } from "./suggestions.js";

export class Card {
  #picture;
  #line;
  #onAnswer;
  #frame;
  #suggestions;
  #leaving = new AbortController();
  #pause = null;
  #tries = 0;
  #answer = null;
  #reasons = new Map(); // by emoji, what "why?" was answered
  #open = null; // the emoji whose "why?" is open

  /**
   * @param {import("./picture.js").FilePicture | import("./picture.js").UrlPicture} picture
   * @param {import("./line.js").Line} line
   * @param {{onAnswer: (suggestions: object[]) => void, onRemove: (card: Card) => void}} told
   */
  constructor(picture, line, { onAnswer, onRemove }) {
    this.#picture = picture;
    this.#line = line;
    this.#onAnswer = onAnswer;
    this.element = document.getElementById("card").content.cloneNode(true).firstElementChild;
    this.#frame = new Frame(this.#part(".frame"));
    this.#suggestions = new Suggestions(this.#part(".suggestions"), (one) => this.#why(one));
    this.#part("bdi").textContent = picture.name;
    this.#part("h3").title = picture.name;
    this.#part(".remove").setAttribute("aria-label", `Remove ${picture.name}`);
    this.#on(".remove", () => onRemove(this));
    this.element.addEventListener("click", ({ target }) => {
      if (target.closest(".again")) this.#again();
    });
    this.#on(".copy-all", () => this.#copyAll());
    this.#on(".share", () => this.#share());
    if (picture.preview) this.#frame.show(picture.preview, picture.name);
    globalThis.addEventListener("online", () => this.#online(), this.#leaving);
    this.#look();
  }

  /** Ends whatever is under way for it. */
  leave() {
    this.#leaving.abort();
    this.#pause?.stop();
    this.#frame.forget();
    this.element.remove();
  }

  focus() {
    this.#part(".remove").focus();
  }

  async #look() {
    this.#tries += 1;
    this.#state("waiting");
    this.#part(".spent").textContent = "Waits for its turn";
    try {
      const answer = await this.#line.run(() => this.#ask(), this.#leaving.signal);
      if (answer.result.picture) await this.#picture.found(answer.result.picture);
      if (!this.#left) this.#suggested(answer);
    } catch (error) {
      if (this.#left) return;
      this.#failed(known(error));
    }
  }

  async #ask(explain) {
    if (!explain) this.#part(".spent").textContent = "Looking at it";
    const sent = await this.#picture.sent();
    return suggest(sent, { explain, signal: this.#leaving.signal });
  }

  #suggested(answer) {
    this.#answer = answer;
    const { suggestions = [], timing } = answer.result;
    if (suggestions.length === 0) {
      this.#failed(new Problem("NOTHING_SEEN"));
      return;
    }
    this.#frame.show(this.#picture.still ?? this.#picture.preview, this.#picture.name);
    this.#suggestions.fill(suggestions);
    this.#frame.note(this.#picture.note);
    const took = timing ? `, ${Math.round(timing.total_seconds * 1000)} ms` : "";
    this.#part(".spent").textContent = `${answer.model?.name ?? ""}${took}`;
    this.#state("suggested");
    this.#frame.fill();
    const words = suggestions.slice(0, 3).map((one) => `${one.name} ${percent(one.probability)}`);
    say(`${this.#picture.name}: ${words.join(", ")}.`);
    this.#onAnswer(suggestions);
  }

  #failed(problem) {
    this.#state("failed");
    this.#frame.fill();
    this.#frame.note(this.#picture.note);
    if (!this.#picture.preview) this.#frame.blank();
    this.#part(".spent").textContent = "";
    const before = this.#part(".failed"); // another failure is another panel: what is new does not move
    before.replaceWith(before.cloneNode(true));
    this.#part(".mood").textContent = problem.mood;
    this.#part(".failed h4").textContent = problem.title;
    this.#part(".detail").textContent = problem.detail;
    this.#part(".failed").dataset.reason = problem.reason;
    this.#part(".again").hidden = problem.final;
    this.#part(".again").textContent = problem.passes ? "Try now" : "Try again";
    const countdown = this.#part(".countdown");
    const seconds = secondsBefore(problem, this.#tries);
    countdown.textContent = problem.passes && seconds === null ? "No more tries by itself." : "";
    if (this.#tries === 1 || seconds === null) {
      say(`${this.#picture.name}: ${problem.title}. ${problem.detail}`);
    }
    if (seconds === null) return;
    const tick = (left) => {
      countdown.textContent = `Tries again in ${left} s`;
    };
    this.#pause = new Pause(seconds, tick, () => this.#look());
  }

  // By hand, the tries count anew.
  #again() {
    this.#pause?.stop();
    this.#tries = 0;
    this.#look();
  }

  #online() {
    const reason = this.#part(".failed").hidden ? "" : this.#part(".failed").dataset.reason;
    if (reason !== "OFFLINE" && reason !== "PAGE_SERVER_AWAY") return;
    this.#pause?.stop();
    this.#tries = 0;
    this.#look();
  }

  async #why(suggestion) {
    const { emoji, name } = suggestion;
    this.#frame.clear();
    this.#frame.note(this.#picture.note);
    this.#open = this.#open === emoji ? null : emoji;
    this.#suggestions.press(this.#open);
    if (this.#open === null) return;
    this.#frame.note(`Asking where it sees ${emoji}`);
    try {
      const saliency = await this.#reason(emoji);
      if (this.#open !== emoji || this.#left) return;
      const place = await this.#frame.lay(saliency);
      this.#frame.note(`Bright is what speaks for ${emoji}`);
      say(`What speaks for ${name} is ${place} of the picture.`);
    } catch (error) {
      if (this.#open !== emoji || this.#left) return;
      this.#open = null;
      this.#suggestions.press(null);
      const problem = known(error);
      const words = `${problem.title}. ${problem.detail}`;
      this.#frame.note(words);
      say(words);
    }
  }

  async #reason(emoji) {
    if (!this.#reasons.has(emoji)) {
      const { result } = await this.#line.run(() => this.#ask(emoji), this.#leaving.signal);
      if (!result.saliency) throw new Problem("ANSWER_UNREADABLE");
      this.#reasons.set(emoji, result.saliency);
    }
    return this.#reasons.get(emoji);
  }

  #copyAll() {
    const all = this.#answer.result.suggestions.map((one) => one.emoji).join("");
    copy(all, all);
  }

  async #share() {
    const { model, result } = this.#answer;
    show(await share(this.#frame.image, result.suggestions, this.#picture.name, model?.name ?? ""));
  }

  #state(name) {
    const isLosing = name !== "failed" && this.#part(".failed").contains(document.activeElement);
    if (isLosing) this.#part(".remove").focus({ preventScroll: true });
    this.#part("article").setAttribute("aria-busy", String(name === "waiting"));
    this.#part(".waiting").hidden = name !== "waiting";
    this.#part(".suggestions").hidden = name !== "suggested";
    this.#part(".failed").hidden = name !== "failed";
    for (const button of [".copy-all", ".share"]) this.#part(button).hidden = name !== "suggested";
  }

  get #left() {
    return this.#leaving.signal.aborted;
  }

  #part(selector) {
    return this.element.querySelector(selector);
  }

  #on(selector, does) {
    this.#part(selector).addEventListener("click", does);
  }
}

// What nobody foresaw is told to people in words, and to developers as it is.
function known(error) {
  if (error instanceof Problem) return error;
  console.error(error);
  return new Problem("PAGE_FAULT");
}
