// The line in front of the server: so many requests at a time, first come first served.

export class Line {
  #free;
  #waiting = [];

  /** @param {number} slots */
  constructor(slots) {
    this.#free = slots;
  }

  /** Runs the work when its turn has come; who has left by then never takes a turn. */
  async run(work, signal) {
    await this.#turn(signal);
    try {
      return await work();
    } finally {
      this.#free += 1;
      this.#admit();
    }
  }

  #turn(signal) {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const entry = { resolve, signal };
      const leave = () => {
        this.#waiting = this.#waiting.filter((other) => other !== entry);
        reject(signal.reason);
      };
      entry.enter = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.push(entry);
      this.#admit();
    });
  }

  #admit() {
    while (this.#free > 0 && this.#waiting.length > 0) {
      this.#free -= 1;
      this.#waiting.shift().enter();
    }
  }
}
