// The time until another try, counted down for people to see.

const FIRST_SECONDS = 1;
const MOST_SECONDS = 30;
const TRIES = 8; // by itself: about two minutes where nobody says when to come again

/**
 * How long to wait before the next try by itself; null when it is for people to say.
 *
 * @param {import("./problem.js").Problem} problem
 * @param {number} tries made so far
 */
export function secondsBefore(problem, tries) {
  if (!problem.passes || tries >= TRIES) return null;
  const guess = FIRST_SECONDS * 2 ** (tries - 1);
  const least = Math.max(FIRST_SECONDS, problem.retrySeconds ?? guess);
  // Cards that were refused together do not come again together.
  return Math.min(MOST_SECONDS, least) * (1 + Math.random() / 4);
}

export class Pause {
  #timer;

  /**
   * @param {(left: number) => void} tick every second, with whole seconds left
   * @param {() => void} done
   */
  constructor(seconds, tick, done) {
    const end = performance.now() + seconds * 1000;
    const step = () => {
      const left = (end - performance.now()) / 1000;
      if (left <= 0) {
        done();
        return;
      }
      tick(Math.ceil(left));
      this.#timer = setTimeout(step, Math.min(left, left % 1 || 1) * 1000 + 5);
    };
    step();
  }

  stop() {
    clearTimeout(this.#timer);
  }
}
