// The last minutes of every figure, as columns with the time in the first.

export const SPAN_SECONDS = 120;

export class History {
  #columns;

  /** @param {string[]} names */
  constructor(names) {
    this.#columns = new Map(["time", ...names].map((name) => [name, []]));
  }

  /** Adds what was found at that time, in seconds; null is a gap. */
  add(time, found) {
    for (const [name, column] of this.#columns) {
      column.push(name === "time" ? time : (found?.[name] ?? null));
    }
    const times = this.#columns.get("time");
    const old = times.findIndex((each) => each >= time - SPAN_SECONDS);
    for (const column of this.#columns.values()) column.splice(0, old);
  }

  /** The columns of these names, after the time's. */
  of(...names) {
    return ["time", ...names].map((name) => this.#columns.get(name));
  }

  /** The newest value, the mean and the most of what is known; null without any. */
  summary(name) {
    const known = this.#columns.get(name).filter((value) => value !== null);
    if (known.length === 0) return null;
    const sum = known.reduce((total, value) => total + value, 0);
    return { now: this.#columns.get(name).at(-1), mean: sum / known.length, most: Math.max(...known) };
  }
}
