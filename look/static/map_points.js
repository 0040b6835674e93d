"use strict";
/* Points of a map: drawn into pixels, found near a place, selected by an outline. Pure, on typed arrays. */

/**
 * Return the view that shows all points with a margin.
 * @param {Float32Array} x NaN where a row is not on the map
 * @param {Float32Array} y
 * @returns {{x: number, y: number, scale: number}} place of the left upper corner, pixels per unit
 */
function wholeView(x, y, width, height, margin = 16) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let row = 0; row < x.length; row += 1) {
    if (x[row] < left) left = x[row];
    if (x[row] > right) right = x[row];
    if (y[row] < low) low = y[row];
    if (y[row] > high) high = y[row];
  }
  if (left > right) return { x: 0, y: 0, scale: 1 };
  const across = Math.max(right - left, 1e-9);
  const along = Math.max(high - low, 1e-9);
  const scale = Math.min(Math.max(width - 2 * margin, 1) / across, Math.max(height - 2 * margin, 1) / along);
  return { x: (left + right - width / scale) / 2, y: (low + high - height / scale) / 2, scale };
}

/** Zoom a view about a place on the screen, which stays where it is. */
function zoomedView(view, factor, at) {
  const scale = view.scale * factor;
  return { scale, x: view.x + at.x / view.scale - at.x / scale, y: view.y + at.y / view.scale - at.y / scale };
}

/** Count the rows on the map that lie in sight. */
function countInSight(x, y, view, width, height) {
  const right = view.x + width / view.scale;
  const high = view.y + height / view.scale;
  let rows = 0;
  for (let row = 0; row < x.length; row += 1) {
    if (x[row] >= view.x && x[row] <= right && y[row] >= view.y && y[row] <= high) rows += 1;
  }
  return rows;
}

/**
 * Draw all points as squares of pixels, in the order of the rows.
 * @param {Uint32Array} pixels (width * height), as an ImageData holds them
 * @param {{x: Float32Array, y: Float32Array, kinds: Uint8Array, colours: Uint32Array}} points kinds: number
 *   of the colour of every row
 * @param {number} size side of a square in pixels
 * @param {number} below the kind that the others are drawn over, -1 for none
 */
function paintPoints(pixels, width, height, points, view, size, below = -1) {
  if (below >= 0) paintKind(pixels, width, height, points, view, size, (kind) => kind === below);
  paintKind(pixels, width, height, points, view, size, (kind) => kind !== below);
}

function paintKind(pixels, width, height, { x, y, kinds, colours }, view, size, isWanted) {
  const half = size >> 1;
  for (let row = 0; row < x.length; row += 1) {
    if (!isWanted(kinds[row])) continue;
    const left = Math.floor((x[row] - view.x) * view.scale) - half;
    const top = Math.floor((y[row] - view.y) * view.scale) - half;
    if (!(left >= 0 && top >= 0 && left + size <= width && top + size <= height)) continue;
    const colour = colours[kinds[row]];
    for (let line = top * width + left, end = line + size * width; line < end; line += width) {
      for (let pixel = line; pixel < line + size; pixel += 1) pixels[pixel] = colour;
    }
  }
}

/**
 * Find the row nearest to a place.
 * @param {number} most distance in units of the map
 * @param {?Uint8Array} allowed rows that may be found, all where null
 * @returns {number} position of the row, -1 where none is near
 */
function nearestPoint(x, y, placeX, placeY, most, allowed) {
  let nearest = -1;
  let least = most * most;
  for (let row = 0; row < x.length; row += 1) {
    const across = x[row] - placeX;
    const along = y[row] - placeY;
    const distance = across * across + along * along;
    if (distance <= least && (allowed === null || allowed[row]) && (distance < least || nearest < 0)) {
      least = distance;
      nearest = row;
    }
  }
  return nearest;
}

/**
 * Find the next row in a direction: the nearest within 45 degrees of it.
 * @param {number} from row to start at
 * @param {[number, number]} direction one of the four
 * @returns {number} position of the row, or `from` where there is none
 */
function nextPoint(x, y, from, [across, along], allowed) {
  let next = from;
  let least = Infinity;
  for (let row = 0; row < x.length; row += 1) {
    const ahead = (x[row] - x[from]) * across + (y[row] - y[from]) * along;
    const aside = Math.abs((x[row] - x[from]) * along) + Math.abs((y[row] - y[from]) * across);
    if (!(ahead > 0 && aside <= ahead) || (allowed !== null && !allowed[row])) continue;
    const distance = ahead * ahead + aside * aside;
    if (distance < least) {
      least = distance;
      next = row;
    }
  }
  return next;
}

/**
 * Mark the rows inside an outline (even-odd rule).
 * @param {[number, number][]} outline corners in units of the map
 * @param {?Uint8Array} allowed rows that may be marked, all where null
 * @returns {Uint8Array} (n,) 1 inside
 */
function insideOutline(x, y, outline, allowed) {
  const mask = new Uint8Array(x.length);
  const across = Float64Array.from(outline, (corner) => corner[0]);
  const along = Float64Array.from(outline, (corner) => corner[1]);
  const [left, right] = [Math.min(...across), Math.max(...across)];
  const [low, high] = [Math.min(...along), Math.max(...along)];
  for (let row = 0; row < x.length; row += 1) {
    if (!(x[row] >= left && x[row] <= right && y[row] >= low && y[row] <= high)) continue;
    if (allowed === null || allowed[row]) mask[row] = isInside(x[row], y[row], across, along) ? 1 : 0;
  }
  return mask;
}

/* A ray from the place to the right crosses the outline an odd number of times where it starts inside. */
function isInside(placeX, placeY, across, along) {
  let inside = false;
  for (let corner = 0, before = across.length - 1; corner < across.length; before = corner, corner += 1) {
    const crosses = along[corner] > placeY !== along[before] > placeY;
    if (!crosses) continue;
    const share = (placeY - along[corner]) / (along[before] - along[corner]);
    if (placeX < (across[before] - across[corner]) * share + across[corner]) inside = !inside;
  }
  return inside;
}
