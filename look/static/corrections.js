"use strict";
/* What people decide of labels: recorded at once, in the browser or by the server, and written as corrections.csv.

   A decision is about the label of the table: to keep it, to change it, or that a person is unsure.
   What could not be recorded waits and is said; a button tries again, and it can be downloaded. */

const CORRECTION_COLUMNS = ["id", "label", "old_label", "decision", "who", "when"];
const NAME_LENGTH = 100;
/* A server takes so much in one request. */
const CORRECTIONS_AT_ONCE = 300;
/* What waits to be recorded: the correction of an id, or null where it is taken back. */
const correctionsWaiting = new Map();
let correctionsSending = null;
let correctionsLoaded = null;

/**
 * Say what a choice makes of one row.
 * @param {{id: string}} row
 * @param {number} tableLabel number of the label that the table gives, -1 for none
 * @param {number|"unsure"} choice number of the label from now on, or "unsure"
 * @param {string} who
 * @returns {object} Correction
 */
function correctionOf(row, tableLabel, choice, who) {
  const old = data.meta.labels[tableLabel] ?? "";
  const label = choice === "unsure" ? old : data.meta.labels[choice];
  const decision = choice === "unsure" ? "unsure" : label === old ? "keep" : "change";
  const when = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  return { id: row.id, label, old_label: old, decision, who: plainName(who), when };
}

/** Write the name of a person in one line that no program takes for anything else. */
function plainName(text) {
  const marks = [...text].map((mark) => (/[\p{C}\p{Z}]/u.test(mark) && !/[\u200c\u200d]/.test(mark) ? " " : mark));
  const line = marks.join("").replace(/^[=+\-@＝＋－＠ ]+/u, "").split(/ +/).join(" ");
  return [...line].slice(0, NAME_LENGTH).join("").trim();
}

/**
 * Write corrections as CSV (RFC 4180, UTF-8); the mark at its beginning is what spreadsheets know UTF-8 by.
 * @param {Iterable<object>} corrections
 * @returns {string}
 */
function correctionsCsv(corrections) {
  const cell = (text) => (/[",\r\n;\t]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [...corrections].map((each) => CORRECTION_COLUMNS.map((name) => cell(String(each[name] ?? ""))));
  return "\ufeff" + [CORRECTION_COLUMNS, ...lines].map((cells) => `${cells.join(",")}\r\n`).join("");
}

/** Return the number of the label that a row has now, -1 for none; unsure rows have that of the table. */
function labelNow(id, label, tableLabel) {
  const correction = store.get("corrections").get(id);
  if (!correction) return label;
  return correction.decision === "change" ? data.meta.labels.indexOf(correction.label) : tableLabel;
}

/**
 * Decide rows together.
 * @param {number[]} positions
 * @param {number|"unsure"|"keep"} choice "keep" leaves every row the label it has now
 * @returns {Promise<Array>} the step, for `undoDecision`
 * @throws {Error} there is no label to keep, or the rows have several
 */
async function decide(positions, choice) {
  // What was decided before must not come in after it.
  await correctionsLoaded;
  const [rows, labels, tableLabels] = await Promise.all(
    [data.rows(positions), data.column("label"), data.column("table_label")]);
  const decisions = rows.map((row, index) => {
    const position = positions[index];
    const tableLabel = tableLabels[position];
    const label = choice === "keep" ? labelNow(row.id, labels[position], tableLabel) : choice;
    if (label === -1) return null;
    return { ...correctionOf(row, tableLabel, label, store.get("who")), digest: row.digest, position };
  }).filter((correction) => correction !== null);
  if (decisions.length === 0) throw new Error(t("review.no_label"));
  // Rows that are decided together are of one image: it has one label.
  if (choice === "keep" && new Set(decisions.map(({ label }) => label)).size > 1) throw new Error(t("review.labels_differ"));
  const before = store.get("corrections");
  const step = decisions.map(({ id }) => [id, before.get(id) ?? null]);
  correctionsTake(decisions.map((correction) => [correction.id, correction]));
  return step;
}

/** Take a step of `decide` back: what was decided before it stands again. */
function undoDecision(step) {
  correctionsTake(step);
}

function correctionsTake(entries) {
  const corrections = new Map(store.get("corrections"));
  for (const [id, correction] of entries) {
    if (correction) corrections.set(id, correction);
    else corrections.delete(id);
    correctionsWaiting.set(id, correction);
  }
  store.set({ corrections, correctionsLeft: correctionsWaiting.size });
  correctionsSend();
}

/** Record what waits, some at a time; what is decided meanwhile goes with the next. */
async function correctionsSend() {
  if (correctionsSending || correctionsWaiting.size === 0) return;
  correctionsSending = [...correctionsWaiting].slice(0, CORRECTIONS_AT_ONCE);
  let failure = null;
  try {
    const entries = correctionsSending;
    await data.record({
      record: entries.filter(([, each]) => each).map(([, each]) => correctionsStored(each)),
      remove: entries.filter(([, each]) => !each).map(([id]) => id),
      who: store.get("who"),
    });
    for (const [id, each] of entries) if (correctionsWaiting.get(id) === each) correctionsWaiting.delete(id);
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  }
  correctionsSending = null;
  store.set({ correctionsFailure: failure, correctionsLeft: correctionsWaiting.size });
  if (failure === null) await correctionsSend();
}

/** Return what is recorded: in a browser with the digest, since another image may get the same id later. */
function correctionsStored(correction) {
  const names = data.meta.shell === "server" ? CORRECTION_COLUMNS : [...CORRECTION_COLUMNS, "digest"];
  return Object.fromEntries(names.filter((name) => name in correction).map((name) => [name, correction[name]]));
}

function correctionsSign({ id, label, decision, when }) {
  return JSON.stringify([id, label, decision, when]);
}

/** Return how many decisions are in no file yet: not downloaded, or, with a server, not recorded. */
function correctionsUnsaved() {
  if (data.meta.shell === "server") return correctionsWaiting.size;
  const saved = new Set([...correctionsDownloaded(), ...(data.meta.corrections ?? []).map(correctionsSign)]);
  return [...store.get("corrections").values()].filter((each) => !saved.has(correctionsSign(each))).length;
}

/* How many decisions of this browser the file has replaced. */
let correctionsPast = 0;
/* Where the browser keeps nothing, what was downloaded is known until the page is left. */
let correctionsInFile = [];

function correctionsDownloaded() {
  return [...correctionsInFile, ...(recall("downloaded") ?? [])];
}

/** Read what this browser keeps for the task under a name, null where there is nothing. */
function recall(name) {
  try {
    return JSON.parse(localStorage.getItem(`${data.meta.key}:${name}`));
  } catch {
    return null;
  }
}

/** Keep a value for the task under a name. Returns whether the browser allows it. */
function remember(name, value) {
  try {
    localStorage.setItem(`${data.meta.key}:${name}`, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** Save all corrections as a file, those of it that came with the page and of rows that it lacks too. */
async function downloadCorrections() {
  const all = [...(await knownCorrections()).values()];
  const url = URL.createObjectURL(new Blob([correctionsCsv(all)], { type: "text/csv" }));
  el("a", { href: url, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  correctionsInFile = all.map(correctionsSign);
  remember("downloaded", correctionsInFile);
  remember("downloaded_at", new Date().toISOString());
  store.set({ corrections: new Map(store.get("corrections")) });
}

/** Return all decisions by id: those that the page came with, and later ones of its images; or the server's. */
async function knownCorrections() {
  const isServer = data.meta.shell === "server";
  const known = new Map((isServer ? [] : data.meta.corrections ?? []).map((each) => [each.id, each]));
  const isReplaced = isServer ? () => false : correctionsReplaced();
  correctionsPast = 0;
  for (const each of (await data.corrections()) ?? []) {
    if (isReplaced(each, known.get(each.id))) {
      correctionsPast += 1;
      continue;
    }
    if (!((known.get(each.id)?.when ?? "") > each.when)) known.set(each.id, each);
  }
  for (const [id, each] of correctionsWaiting) {
    if (each) known.set(id, each);
    else known.delete(id);
  }
  return known;
}

/**
 * Make the test of what the file has replaced: a decision was downloaded, and the file with which the
 * page was made later says something else, or nothing, of its row. Somebody has edited it by hand.
 */
function correctionsReplaced() {
  const { corrections = [], made } = data.meta;
  const downloaded = new Set(recall("downloaded") ?? []);
  const isLater = corrections.length > 0 && made > (recall("downloaded_at") ?? made);
  return (each, inFile) => (isLater && downloaded.has(correctionsSign(each))
    && (inFile?.label !== each.label || inFile.decision !== each.decision));
}

/** Let the decisions of this browser stand again that the file has replaced; they are to be downloaded. */
function correctionsRevive() {
  correctionsInFile = [];
  remember("downloaded", []);
  return loadCorrections();
}

/** Read what was decided before; what is said of rows that the page lacks is kept and not shown. */
async function loadCorrections() {
  const known = await knownCorrections();
  const isServer = data.meta.shell === "server";
  const rows = isServer ? known : await correctionsRows(known);
  const shown = [...known.values()].filter(({ id }) => (rows.get(id)?.position ?? -1) >= 0);
  store.set({ corrections: new Map(shown.map((each) => [each.id, { ...each, ...rows.get(each.id) }])) });
}

/** Find the rows of some ids: position and digest of those that the page has. */
async function correctionsRows(ids) {
  const found = new Map();
  for (let start = 0; found.size < ids.size && start < data.meta.count; start += 1000) {
    const positions = Array.from({ length: Math.min(1000, data.meta.count - start) }, (_, index) => start + index);
    const rows = await data.rows(positions);
    rows.forEach(({ id, digest }, index) => ids.has(id) && found.set(id, { position: positions[index], digest }));
  }
  return found;
}

function correctionsNews() {
  const unsaved = correctionsUnsaved();
  const failure = store.get("correctionsFailure");
  const isServer = data.meta.shell === "server";
  const lines = [el("span", {}, t("corrections.count", { count: count(store.get("corrections").size) }))];
  if (unsaved > 0) {
    lines.push(el("strong", {}, t(isServer ? "corrections.unsent" : "corrections.unsaved", { count: count(unsaved) })));
    if (!isServer) lines.push(el("span", { class: "soft" }, t("corrections.advice")));
  }
  if (correctionsPast > 0) {
    lines.push(
      el("strong", {}, t("corrections.replaced", { count: count(correctionsPast) })),
      el("button", { type: "button", on: { click: correctionsRevive } }, t("corrections.revive")));
  }
  const unused = data.unused?.() ?? 0;
  if (unused > 0) lines.push(el("span", { class: "soft" }, t("corrections.unused", { count: count(unused) })));
  if (failure !== null) {
    lines.push(
      el("strong", { class: "review-fault", role: "alert" },
        t(isServer ? "corrections.failed" : "corrections.not_kept"), " ", bdi(failure)),
      el("button", { type: "button", on: { click: correctionsSend } }, t("corrections.retry")));
  }
  return lines;
}

store.set({ corrections: new Map(), correctionsFailure: null, correctionsLeft: 0, who: "" });

// The same page in another tab decided something.
window.addEventListener("storage", () => loadCorrections());
window.addEventListener("beforeunload", (event) => correctionsWaiting.size > 0 && event.preventDefault());

part({
  name: "corrections",
  tab: false,
  mount() {
    const news = el("p", { "aria-live": "polite" });
    const download = el("button", { type: "button", on: { click: downloadCorrections } }, t("corrections.download"));
    const region = beforeMain("corrections", t("corrections.title"), news, download);
    const update = () => {
      download.hidden = store.get("corrections").size === 0 && correctionsWaiting.size === 0;
      region.hidden = download.hidden && correctionsPast === 0 && !data.unused?.();
      news.replaceChildren(...correctionsNews().flatMap((line) => [line, " "]));
    };
    store.set({ who: recall("who") ?? "", keys: recall("keys") ?? true });
    store.on(["corrections", "correctionsFailure", "correctionsLeft"], update);
    update();
    correctionsLoaded = loadCorrections();
  },
});
