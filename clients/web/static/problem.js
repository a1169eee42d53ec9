// What went wrong, in words that say what happened and what to do.

const SERVER = "ERROR_REASON_";
const MOST_DETAIL = 400; // characters; an address in it may be of any length

// By reason: a face for it, the headline, and what to say where the server's own detail is missing.
const WORDS = new Map(Object.entries({
  IMAGE_TOO_LARGE: ["🐘", "This picture is too large", "Pictures may have at most 10 MiB and 64 megapixels. Try a smaller copy."],
  UNDECODABLE_IMAGE: ["🤔", "This is not a picture", "The file is no image, or it is damaged. Try another one."],
  UNSUPPORTED_FORMAT: ["🤷", "This kind of file cannot be read", "Try a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."],
  EMPTY_IMAGE: ["🕳️", "This file is empty", "It has no bytes. Try another one."],
  DECODE_LIMIT: ["🥵", "This file is too much work", "It takes more time or memory than a picture of its size should. Save it anew, or try another one."],
  URL_REFUSED: ["🚧", "This address is not allowed", "Give an http or https address on the public internet."],
  URL_FAILED: ["🔗", "This address gave no picture", "Check it in a new tab, or save the picture and drop the file here."],
  MALFORMED_REQUEST: ["🤔", "The service did not understand", "Reload the page, and try again."],
  UNKNOWN_EMOJI: ["🔄", "Another model answers now", "It does not know this emoji. Try the picture again."],
  OVERLOADED: ["⏳", "Many people are asking now", "Your picture waits until there is room for it."],
  DRAINING: ["🔄", "The service is starting again", "Your picture waits until it is back."],
  NO_MODEL: ["☕", "The service is getting ready", "It has not loaded its model yet. Your picture waits until it has."],
  DEVICE_DIED: ["🤕", "The service stumbled", "Your picture waits until it is up again."],
  DECODER_DIED: ["🤕", "The service stumbled", "Your picture waits until it is up again."],
  SERVER_UNREACHABLE: ["😴", "The emoji service is away", "Your picture waits until it is back."],
  DEADLINE_TOO_SHORT: ["🐌", "That took too long", "The service is slow now. Try again in a moment."],
  UNAUTHENTICATED: ["🔐", "This page may not ask the emoji service", "Whoever runs it has to see to its token."],
  FORBIDDEN: ["🔐", "This page may not ask the emoji service", "Whoever runs it has to see to its token."],
  INTERNAL: ["🤕", "Something went wrong in the service", "It is not your picture's fault as far as we know. Try again."],
  // Found by the page itself:
  OFFLINE: ["🔌", "You are offline", "Your picture is tried again as soon as you are online."],
  PAGE_SERVER_AWAY: ["😴", "This page's server does not answer", "It may have been stopped. This page tries again until it is back."],
  NO_ANSWER_IN_TIME: ["🐌", "That took too long", "No answer came within 30 seconds. Try again."],
  ANSWER_UNREADABLE: ["😵", "The answer made no sense", "Something between this page and the service altered it. Try again."],
  FILE_UNREADABLE: ["📁", "This file cannot be read", "It may have been moved, or be a folder. Choose it again."],
  NOTHING_SEEN: ["🤷", "It has nothing to suggest", "No emoji came to its mind. Try another picture."],
  PAGE_FAULT: ["🤕", "This page made a mistake", "Try again; if that does not help, reload the page."],
  FILE_TOO_LARGE: ["🐘", "This file is too large", "It has more than 10 MiB, and your browser cannot make it smaller. Try a smaller copy."],
}));
const UNKNOWN = ["🤔", "That did not work", "Try again."];
// What passes by itself.
const PASSING = new Set(["OVERLOADED", "DRAINING", "NO_MODEL", "DEVICE_DIED", "DECODER_DIED", "SERVER_UNREACHABLE", "PAGE_SERVER_AWAY"]);
// What a proxy means that says nothing else.
const BY_STATUS = new Map([
  [408, "NO_ANSWER_IN_TIME"],
  [413, "IMAGE_TOO_LARGE"],
  [429, "OVERLOADED"],
  [502, "SERVER_UNREACHABLE"],
  [503, "SERVER_UNREACHABLE"],
  [504, "DEADLINE_TOO_SHORT"],
]);
// What another try cannot change.
const FINAL = new Set(["IMAGE_TOO_LARGE", "UNDECODABLE_IMAGE", "UNSUPPORTED_FORMAT", "EMPTY_IMAGE", "DECODE_LIMIT", "URL_REFUSED", "FILE_TOO_LARGE"]);

/** A failure: RFC 9457's from the server, or one that the page found. */
export class Problem extends Error {
  /** @param {string} reason the contract's without its prefix, or one of the page's */
  constructor(reason, { detail, retrySeconds } = {}) {
    const [mood, title, advice] = WORDS.get(reason) ?? UNKNOWN;
    super(title);
    this.reason = reason;
    this.mood = mood;
    this.title = title;
    this.detail = shortened(detail || advice);
    this.retrySeconds = retrySeconds;
    this.passes = PASSING.has(reason);
    this.final = FINAL.has(reason);
  }

  /**
   * @param {object} body the problem as JSON, of anybody: nothing in it is believed
   * @param {Response} [response] whose Retry-After counts where the body says nothing
   */
  static from(body, response) {
    const named = text(body.reason).replace(SERVER, "");
    const isTelling = WORDS.has(named) && named !== "MALFORMED_REQUEST";
    const seconds = body.retry_seconds ?? Number.parseFloat(response?.headers.get("Retry-After"));
    const byStatus = BY_STATUS.get(response?.status ?? body.status);
    return new Problem(isTelling ? named : (byStatus ?? named), {
      detail: text(body.detail) || text(body.title),
      retrySeconds: Number.isFinite(seconds) ? seconds : undefined,
    });
  }
}

function text(value) {
  return typeof value === "string" ? value : "";
}

function shortened(words) {
  return words.length > MOST_DETAIL ? `${words.slice(0, MOST_DETAIL)}…` : words;
}
