// What people drop and paste: files, or the addresses of pictures.

const IMAGE_SOURCE = /<img\b[^>]*?\ssrc\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))/i;

/**
 * @param {DataTransfer} transfer
 * @returns {{files: File[], urls: string[], folders: number}} urls only where there are no files
 */
export function given(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file");
  const isFolder = (item) => item.webkitGetAsEntry?.()?.isDirectory;
  const folders = entries.filter(isFolder).length;
  const files = folders
    ? entries.filter((item) => !isFolder(item)).map((item) => item.getAsFile())
    : [...transfer.files];
  if (files.length > 0 || folders > 0) return { files, urls: [], folders };
  const shown = pictureOf(transfer.getData("text/html"));
  const named = transfer.getData("text/uri-list") || transfer.getData("text/plain");
  return { files, urls: shown ? [shown] : addresses(named), folders };
}

// A picture within a link: what was dragged is the picture. To parse strangers' markup would make
// elements of it, if inert ones.
function pictureOf(html) {
  const [, quoted, single, bare] = html.match(IMAGE_SOURCE) ?? [];
  return address((quoted ?? single ?? bare ?? "").replaceAll("&amp;", "&"));
}

function addresses(text) {
  const lines = text.split(/\s+/).filter((line) => line && !line.startsWith("#"));
  const found = lines.map(address);
  return found.every(Boolean) ? found : []; // a paragraph with a link in it is no address
}

/** The http or https address that the text is, or null. */
export function address(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
