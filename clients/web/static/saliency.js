// Where in a picture the model sees an emoji: a spotlight on a canvas over it.

import { fromBase64 } from "./picture.js";

const DIM = [18, 14, 8, 0.66]; // where nothing speaks for it; style.css dims what lies outside alike
const GLOW = [255, 190, 40, 0.3];

/**
 * Lays a saliency over the part of the picture that it is about.
 *
 * @param {HTMLCanvasElement} canvas in the picture's own box
 * @returns {Promise<string>} where most of it is, in words
 */
export async function lay(saliency, canvas) {
  const image = await createImageBitmap(fromBase64(saliency.png, "image/png"));
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  image.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const place = centre(pixels, saliency.box);
  colour(pixels.data);
  context.putImageData(pixels, 0, 0);
  const { left, top, right, bottom } = saliency.box;
  const percent = (share) => `${share * 100}%`;
  Object.assign(canvas.style, {
    left: percent(left),
    top: percent(top),
    width: percent(right - left),
    height: percent(bottom - top),
  });
  return place;
}

function colour(data) {
  for (let at = 0; at < data.length; at += 4) {
    const share = data[at] / 255;
    const eased = share * share * (3 - 2 * share);
    const alpha = DIM[3] * (1 - eased) + GLOW[3] * eased;
    for (let part = 0; part < 3; part += 1) {
      data[at + part] = DIM[part] * (1 - eased) + GLOW[part] * eased;
    }
    data[at + 3] = alpha * 255;
  }
}

// Its centre of gravity, which names the same place for those who do not see it.
function centre({ data, width, height }, box) {
  let [sum, x, y] = [0, 0, 0];
  for (let at = 0; at < data.length; at += 4) {
    const weight = data[at] ** 2; // the bright parts count
    sum += weight;
    x += weight * ((at / 4) % width);
    y += weight * Math.floor(at / 4 / width);
  }
  if (sum === 0) return "in no particular part";
  const across = box.left + ((x / sum + 0.5) / width) * (box.right - box.left);
  const down = box.top + ((y / sum + 0.5) / height) * (box.bottom - box.top);
  const row = down < 0.42 ? "upper" : down > 0.58 ? "lower" : "";
  const column = across < 0.42 ? "left" : across > 0.58 ? "right" : "";
  if (!row && !column) return "mostly in the middle part";
  return `mostly in the ${[row, column].filter(Boolean).join(" ")} part`;
}
