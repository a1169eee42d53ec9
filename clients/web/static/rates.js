// From totals to rates: what happened between two looks at the service's metrics.

/**
 * The rates between two answers of GET /api/service.
 *
 * @returns {object | null} null when the service has started again in between, or time stood still
 */
export function rates(before, after) {
  const seconds = after.seconds - before.seconds;
  if (!(seconds > 0) || totals(after).some((total, place) => total < totals(before)[place])) return null;
  const waits = after.waits - before.waits;
  return {
    wait: waits > 0 ? ((after.wait_seconds - before.wait_seconds) / waits) * 1000 : 0, // milliseconds
    decode: demand("decode", before, after, seconds),
    device: demand("device", before, after, seconds),
    images: (after.images - before.images) / seconds,
    refused: (after.refused - before.refused) / seconds,
    depth: depth(after),
  };
}

/** How many pictures are in line now, before whatever stage. */
export function depth(service) {
  return Object.values(service.stages).reduce((sum, stage) => sum + stage.depth, 0);
}

function totals({ wait_seconds, waits, images, refused, stages }) {
  return [wait_seconds, waits, images, refused, ...Object.values(stages).map((stage) => stage.busy_seconds)];
}

function demand(name, before, after, seconds) {
  const [then, now] = [before.stages[name], after.stages[name]];
  if (!then || !now || now.slots === 0) return 0;
  return (now.busy_seconds - then.busy_seconds) / (seconds * now.slots);
}
