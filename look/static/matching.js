"use strict";
/* Which rows match a filter, and in which order: pure functions on typed arrays, no object per row.

   Every row has one number of bits, one bit for each part of the filter that it fails. So one pass over a
   column serves the matching (no bit set), the count of one part alone (its own bit not set) and the count
   of what a choice would add (no bit of another part set). Plain loops over indices: callbacks of map and
   from, and iterators, took up to thirty times as long on a million rows. */

const FACETS = ["label", "answer", "split", "status"];
const PARTS = [...FACETS, "outcome", "group", "suspect", "corrected", "text", "lasso", "ranking"];
const SORTS = ["mistake", "score", "suspicion", "table", "similarity"];
const RIGHT = 1;
const WRONG = 2;

/**
 * @typedef {Object} Columns  what is known of the n rows; null where there is none
 * @property {number} n
 * @property {number} classes
 * @property {number} positive  class whose probability is the score
 * @property {Int8Array} label
 * @property {?Int8Array} answer  of the chosen system at the chosen threshold, -1 none
 * @property {?Float64Array} scores  (n, classes) probabilities of the chosen system
 * @property {Int8Array} split
 * @property {Int16Array} status
 * @property {Int32Array} group
 * @property {Float32Array} suspect
 * @property {?Uint8Array} corrected
 * @property {?Uint8Array} text  1 where the text was found
 * @property {?Uint8Array} lasso
 * @property {?Float32Array} ranking  similarity, NaN where it is not known
 *
 * @typedef {Object} Filter  a part that is absent lets every row through
 * @property {number[]} [label] @property {number[]} [answer] @property {number[]} [split]
 * @property {number[]} [status]  numbers to keep, -1 for "none"
 * @property {"right"|"wrong"} [outcome]
 * @property {number|"any"} [group]  one near-duplicate group, or every row that is in one
 * @property {boolean} [suspect] @property {boolean} [corrected]
 * @property {string} [text]  part of the id, path or caption
 */

/** Return the bit of a part of the filter. */
function bitOf(part) {
  return 1 << PARTS.indexOf(part);
}

/**
 * Answer with the positive class where its probability is above the threshold (two classes).
 *
 * Rows without a probability keep the stored answer, as unreadable images do; so do all rows where the
 * threshold is not a number.
 * @param {?Float64Array} scores (n, classes)
 * @returns {?Int8Array} (n,)
 */
function answersAt(scores, classes, positive, threshold, stored) {
  if (stored === null || scores === null || classes !== 2 || !Number.isFinite(threshold)) return stored;
  const answers = stored.slice();
  for (let row = 0; row < answers.length; row += 1) {
    const score = scores[2 * row + positive];
    if (score === score) answers[row] = score > threshold ? positive : 1 - positive;
  }
  return answers;
}

/** Compare labels with answers: 0 where one is missing, else RIGHT or WRONG. */
function outcomesOf(label, answer) {
  const outcomes = new Uint8Array(label.length);
  if (answer === null) return outcomes;
  for (let row = 0; row < label.length; row += 1) {
    if (label[row] >= 0 && answer[row] >= 0) outcomes[row] = label[row] === answer[row] ? RIGHT : WRONG;
  }
  return outcomes;
}

/** Set a bit in every row whose value is not among those to keep. */
function failUnlisted(failures, bit, values, kept) {
  // Room for every value of two bytes: a look beyond the end of an array is slow.
  const isKept = new Uint8Array(0x8001);
  for (const value of kept) isKept[value + 1] = 1;
  for (let row = 0; row < values.length; row += 1) {
    if (!isKept[values[row] + 1]) failures[row] |= bit;
  }
}

function failUnmarked(failures, bit, mask) {
  for (let row = 0; row < mask.length; row += 1) if (!mask[row]) failures[row] |= bit;
}

/** Mark the rows that are in a near-duplicate group: in any, or in one. */
function groupedRows(group, wanted) {
  const mask = new Uint8Array(group.length);
  for (let row = 0; row < mask.length; row += 1) mask[row] = (wanted === "any" ? group[row] >= 0 : group[row] === wanted) ? 1 : 0;
  return mask;
}

/** Mark the rows that have a number. */
function numberedRows(values) {
  const mask = new Uint8Array(values.length);
  for (let row = 0; row < mask.length; row += 1) mask[row] = values[row] === values[row] ? 1 : 0;
  return mask;
}

/**
 * Say of every row which parts of the filter it fails.
 * @param {Columns} columns
 * @param {Filter} filter
 * @returns {Uint16Array} (n,) bits as bitOf gives them; 0 where the row matches
 */
function failuresOf(columns, filter) {
  const failures = new Uint16Array(columns.n);
  for (const name of FACETS) {
    if (filter[name] && columns[name]) failUnlisted(failures, bitOf(name), columns[name], filter[name]);
  }
  if (filter.outcome) {
    const outcomes = outcomesOf(columns.label, columns.answer);
    failUnlisted(failures, bitOf("outcome"), outcomes, [filter.outcome === "wrong" ? WRONG : RIGHT]);
  }
  if (filter.group !== undefined) failUnmarked(failures, bitOf("group"), groupedRows(columns.group, filter.group));
  if (filter.suspect) failUnmarked(failures, bitOf("suspect"), numberedRows(columns.suspect));
  if (filter.corrected && columns.corrected) failUnmarked(failures, bitOf("corrected"), columns.corrected);
  for (const name of ["text", "lasso"]) {
    if (columns[name]) failUnmarked(failures, bitOf(name), columns[name]);
  }
  if (columns.ranking) failUnmarked(failures, bitOf("ranking"), numberedRows(columns.ranking));
  return failures;
}

/**
 * Count the rows of every value among those that fail no other part of the filter.
 * @param {ArrayLike<number>} values (n,) from -1
 * @param {number} bit the part whose own failures do not matter
 * @param {number} size how many values there are, without -1
 * @returns {Int32Array} (size + 1,) at value + 1
 */
function tally(values, failures, bit, size) {
  const counts = new Int32Array(size + 1);
  for (let row = 0; row < failures.length; row += 1) {
    if ((failures[row] & ~bit) === 0) counts[values[row] + 1] += 1;
  }
  return counts;
}

/** Count the rows that pass one part of the filter, whatever the others say. */
function countPassing(failures, part) {
  const bit = bitOf(part);
  let rows = 0;
  for (let row = 0; row < failures.length; row += 1) if ((failures[row] & bit) === 0) rows += 1;
  return rows;
}

/** Mistakes first, the surest first; then right answers and rows to predict, the least sure first. */
function mistakeKeys({ n, classes, label, answer, scores }) {
  const keys = new Float32Array(n).fill(NaN);
  if (answer === null || scores === null) return keys;
  for (let row = 0; row < n; row += 1) {
    if (answer[row] < 0) continue;
    const sureness = scores[row * classes + answer[row]];
    if (label[row] < 0) keys[row] = 1 - sureness;
    else keys[row] = label[row] === answer[row] ? 3 - sureness : 4 + sureness;
  }
  return keys;
}

/** The less probable the given label, the higher the key. */
function suspicionKeys(suspect) {
  const keys = new Float32Array(suspect.length);
  for (let row = 0; row < keys.length; row += 1) keys[row] = 1 - suspect[row];
  return keys;
}

/**
 * Return the keys of a sort: the higher, the earlier where it descends; NaN always last.
 * @returns {?Float32Array} (n,); null for the order of the table
 */
function sortKeys(columns, by) {
  if (by === "mistake") return mistakeKeys(columns);
  if (by === "suspicion") return suspicionKeys(columns.suspect);
  if (by === "similarity") return columns.ranking;
  if (by !== "score" || columns.scores === null) return null;
  const keys = new Float32Array(columns.n);
  for (let row = 0; row < keys.length; row += 1) {
    keys[row] = columns.scores[row * columns.classes + columns.positive];
  }
  return keys;
}

/* IEEE 754: with the sign bit flipped, or all bits of a negative number, floats order as integers do. */
function orderedBits(keys, descending) {
  const values = new Float32Array(keys.length);
  // Zero has two signs, which are one key.
  for (let row = 0; row < keys.length; row += 1) values[row] = keys[row] + 0;
  const bits = new Uint32Array(values.buffer);
  for (let row = 0; row < bits.length; row += 1) {
    if (keys[row] !== keys[row]) bits[row] = 0xffffffff;
    else {
      const ordered = bits[row] & 0x80000000 ? ~bits[row] : bits[row] | 0x80000000;
      bits[row] = descending ? ~ordered : ordered;
    }
  }
  return bits;
}

/* One pass of the radix sort: by 11 bits, from one array into another. */
function sortByDigit(from, into, bits, shift) {
  const starts = new Int32Array(2049);
  for (let at = 0; at < from.length; at += 1) starts[((bits[from[at]] >>> shift) & 2047) + 1] += 1;
  for (let digit = 0; digit < 2048; digit += 1) starts[digit + 1] += starts[digit];
  for (let at = 0; at < from.length; at += 1) {
    const digit = (bits[from[at]] >>> shift) & 2047;
    into[starts[digit]] = from[at];
    starts[digit] += 1;
  }
}

/**
 * Sort rows by their keys: a radix sort in three passes of 11 bits, stable, NaN last both ways.
 * @param {Int32Array} positions rows to sort; left as they are
 * @param {Float32Array} keys (n,)
 * @returns {Int32Array}
 */
function sortedPositions(positions, keys, descending) {
  const bits = orderedBits(keys, descending);
  let from = positions.slice();
  let into = new Int32Array(from.length);
  for (const shift of [0, 11, 22]) {
    sortByDigit(from, into, bits, shift);
    [from, into] = [into, from];
  }
  return from;
}

/** Return the rows that fail nothing, in the order of the table. */
function passingPositions(failures) {
  const positions = new Int32Array(failures.length);
  let size = 0;
  for (let row = 0; row < failures.length; row += 1) {
    if (failures[row] === 0) {
      positions[size] = row;
      size += 1;
    }
  }
  return positions.slice(0, size);
}

/** Put the rows that fail nothing in the order of a sort. */
function orderedPositions(columns, failures, { by, descending }) {
  const positions = passingPositions(failures);
  const keys = sortKeys(columns, by);
  if (keys !== null) return sortedPositions(positions, keys, descending);
  return by === "table" && descending ? positions.reverse() : positions;
}

/**
 * Return the rows that match a filter, in the order of a sort.
 * @param {Columns} columns
 * @param {Filter} filter
 * @param {{by: string, descending: boolean}} sort one of SORTS
 * @returns {Int32Array} positions of rows
 */
function matching(columns, filter, sort) {
  return orderedPositions(columns, failuresOf(columns, filter), sort);
}
