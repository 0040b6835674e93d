"use strict";
/* The rows the page lists: columns gathered for the chosen system, then matched and sorted.

   Everything follows from the store (system, threshold, filter, sort, lasso, ranking); the result is put
   back as `shown`. Nothing is gathered before somebody asks for it (startListing). */

const listing = { columns: null, failures: null, running: null, again: false, found: null };

/** Return the entry of the chosen system in meta, or null. */
function chosenSystem() {
  return data.meta.systems[store.get("system") ?? -1] ?? null;
}

/** Return whether the answers follow the threshold of the page; else they are the stored ones. */
function isAtThreshold() {
  return chosenSystem() !== null && data.meta.labels.length === 2 && Number.isFinite(store.get("threshold"));
}

/** Return the class whose probability is the score, and which the threshold decides on. */
function positiveClass() {
  return store.get("positive") ?? data.meta.positive;
}

function columnOrNull(name) {
  return name in data.meta.columns ? data.column(name) : null;
}

async function foundText(text) {
  if (!text) return null;
  if (listing.found?.text !== text) listing.found = { text, mask: await data.find(text) };
  return listing.found.mask;
}

/** Mark the rows whose label was changed, in the file or since the page was opened. */
async function correctedRows(label) {
  const before = await columnOrNull("table_label");
  const mask = new Uint8Array(data.meta.count);
  if (before) for (let row = 0; row < mask.length; row += 1) mask[row] = before[row] !== label[row] ? 1 : 0;
  for (const { decision, position } of store.get("corrections")?.values() ?? []) {
    if (decision === "change" && position >= 0) mask[position] = 1;
  }
  return mask;
}

/**
 * Gather what matching() needs from the store and the data.
 * @returns {Promise<Columns>}
 */
async function gatherColumns() {
  const system = store.get("system") ?? -1;
  const filter = store.get("filter") ?? {};
  const [label, split, status, group, suspect, scores, stored, text] = await Promise.all([
    ...["label", "split", "status", "group", "suspect", `p:${system}`, `answer:${system}`].map(columnOrNull),
    foundText(filter.text)]);
  const classes = data.meta.labels.length;
  const positive = positiveClass();
  return {
    n: data.meta.count, classes, positive, label, split, status, group, suspect, scores, text,
    answer: answersAt(scores, classes, positive, store.get("threshold") ?? NaN, stored),
    corrected: await correctedRows(label),
    lasso: store.get("lasso") ?? null,
    ranking: store.get("ranking")?.keys ?? null,
  };
}

/** Return the sort to begin with: mistakes first where a system is chosen, else the order of the table. */
function firstSort() {
  return chosenSystem() ? { by: "mistake", descending: true } : { by: "table", descending: false };
}

async function renewListing() {
  try {
    do {
      listing.again = false;
      const columns = await gatherColumns();
      if (!listing.again) takeColumns(columns);
    } while (listing.again);
  } catch (fault) {
    // The list stays as it was; the next change asks again.
    announce(fault.message);
  } finally {
    listing.running = null;
  }
}

function takeColumns(columns) {
  listing.columns = columns;
  listing.failures = failuresOf(columns, store.get("filter") ?? {});
  store.set({ shown: orderedPositions(columns, listing.failures, store.get("sort") ?? firstSort()) });
}

/**
 * Bring the list of rows up to date; a change that comes meanwhile is taken in.
 * @returns {Promise<void>}
 */
function updateListing() {
  listing.again = true;
  listing.running ??= Promise.resolve().then(renewListing);
  return listing.running;
}

/**
 * List the rows, unless that was done; from then on the list follows the store.
 * @returns {Promise<void>}
 */
function startListing() {
  return listing.columns ? Promise.resolve() : updateListing();
}

/** Follow the store; main.js forgets all listeners when the language changes. */
function followStore() {
  const names = ["system", "threshold", "positive", "filter", "sort", "lasso", "ranking", "corrections"];
  let waiting = 0;
  const update = () => {
    clearTimeout(waiting);
    waiting = 0;
    updateListing();
  };
  store.on(names, () => {
    if (!listing.columns && !listing.running) return;
    if (store.get("tab") === "images") return update();
    // Nobody sees the list: it waits until the slider rests, so that a million rows do not hold that up.
    clearTimeout(waiting);
    waiting = setTimeout(update, 150);
  });
  store.on(["tab"], () => { if (waiting) update(); });
}

/**
 * Filter by some parts more; null takes a part away. `lasso` and `ranking` lie beside the filter.
 * @param {Object<string, any>} changes
 */
function changeFilter(changes) {
  const filter = { ...store.get("filter") };
  const values = {};
  for (const [part, value] of Object.entries(changes)) {
    if (part === "lasso" || part === "ranking") values[part] = value;
    else if (value === null || value === undefined || value.length === 0) delete filter[part];
    else filter[part] = value;
  }
  if (values.ranking === null) Object.assign(values, sortWithout("ranking"));
  store.set({ filter, ...values });
}

/**
 * List the rows that match a filter and nothing else: no selection on the map, no likeness.
 * @param {Filter} filter
 */
function listOnly(filter) {
  store.set({ filter, lasso: null, ranking: null, ...sortWithout("ranking") });
}

/** Show all rows again. */
function clearFilter() {
  listOnly({});
}

/** Return the change of the sort that goes with taking a part of the filter away. */
function sortWithout(part) {
  return part === "ranking" && store.get("sort")?.by === "similarity" ? { sort: firstSort() } : {};
}

/**
 * List the images most similar to one, or to words, the most similar first.
 * @param {{kind: "image"|"words", embedding: number, keys: Float32Array, position?: number, words?: string}} ranking
 */
function listSimilar(ranking) {
  store.set({ ranking, sort: { by: "similarity", descending: true } });
}

/** List the stored nearest neighbours of an image, itself first. */
async function listNeighbours(embedding, position) {
  const keys = new Float32Array(data.meta.count).fill(NaN);
  for (const near of await data.neighbours(embedding, position)) keys[near.position] = near.similarity;
  keys[position] = 2;
  listSimilar({ kind: "image", embedding, position, keys });
}

const waiting = new Map();
const known = new Map();
const KNOWN_ROWS = 5000;

/**
 * Return the words of one row; the rows asked for in one go are fetched together and kept for a while.
 * @param {number} position
 * @returns {Promise<Object>}
 */
function wordsOf(position) {
  if (known.has(position)) return known.get(position);
  if (waiting.size === 0) queueMicrotask(fetchWaiting);
  const words = new Promise((resolve, reject) => waiting.set(position, { resolve, reject }));
  known.set(position, words);
  if (known.size > KNOWN_ROWS) known.delete(known.keys().next().value);
  return words;
}

async function fetchWaiting() {
  const asked = new Map(waiting);
  waiting.clear();
  try {
    const rows = await data.rows([...asked.keys()]);
    [...asked.values()].forEach(({ resolve }, index) => resolve(rows[index]));
  } catch (error) {
    for (const [position, { reject }] of asked) {
      known.delete(position);
      reject(error);
    }
  }
}
