// The JSON API: one picture asked about, and every failure as a Problem.

import { Problem } from "./problem.js";

const PATIENCE_MS = 30_000; // beyond the 10 s that the server gives itself

/**
 * What the model says about one picture.
 *
 * @param {{blob: Blob, name: string} | {url: string}} picture
 * @param {{explain?: string, signal: AbortSignal}} options explain: the emoji to lay open
 * @returns {Promise<{model: object, result: object}>}
 * @throws {Problem} or the signal's reason, when that was aborted
 */
export async function suggest(picture, { explain, signal }) {
  const form = new FormData();
  if (picture.blob) form.append("image", picture.blob, picture.name);
  else {
    form.append("url", picture.url);
    form.append("include_picture", "true");
  }
  if (explain) form.append("explain_emoji", explain);
  const answer = await ask("/api/suggest", { method: "POST", body: form }, signal);
  const result = answer.results?.[0];
  if (!result) throw new Problem("ANSWER_UNREADABLE");
  if (result.error) throw Problem.from(result.error);
  return { model: answer.model, result };
}

/** How the service lives: the totals of its metrics. */
export function service(signal) {
  return ask("/api/service", {}, signal);
}

async function ask(path, request, signal) {
  const patience = new AbortController();
  const leave = () => patience.abort();
  signal.addEventListener("abort", leave);
  const timer = setTimeout(leave, PATIENCE_MS);
  try {
    signal.throwIfAborted();
    const response = await fetch(path, { ...request, signal: patience.signal });
    const body = await response.json().catch((error) => {
      if (patience.signal.aborted) throw error;
      return null; // a proxy's page, perhaps
    });
    if (!response.ok) throw Problem.from(body ?? {}, response);
    if (!body) throw new Problem("ANSWER_UNREADABLE");
    return body;
  } catch (error) {
    if (error instanceof Problem || signal.aborted) throw error;
    if (patience.signal.aborted) throw new Problem("NO_ANSWER_IN_TIME");
    throw new Problem(navigator.onLine ? "PAGE_SERVER_AWAY" : "OFFLINE");
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", leave);
  }
}
