"use strict";
/* One image as a tile: blurred image, id, label, answer, score, split and status. Used all over the page. */

/** Colour and shape of every class, after Okabe and Ito; further classes begin again. */
const MARKS = [
  { colour: "--blue", sign: "●" }, { colour: "--orange", sign: "▲" }, { colour: "--green", sign: "■" },
  { colour: "--purple", sign: "◆" }, { colour: "--sky", sign: "▼" }, { colour: "--vermillion", sign: "✚" },
  { colour: "--yellow", sign: "★" },
];
const ID_LENGTH = 200;

/** Return the colour and the sign of a class, the same all over the page. */
function markOf(value) {
  return MARKS[value % MARKS.length];
}

/** Shorten what comes from the archive: names of 10 kB are cut, the whole is in the dialog. */
function clipped(text, length = ID_LENGTH) {
  const points = Array.from(text.slice(0, 2 * length + 2));
  return points.length > length ? `${points.slice(0, length).join("")}…` : text;
}

function className(value) {
  return value < 0 ? t("images.none") : data.meta.labels[value];
}

function classWords(value) {
  return el("span", { class: "class-name" }, classMark(value), " ", bdi(clipped(className(value))));
}

/** Say on the status line what the data refused; a server may have ended. */
function sayFault(fault) {
  announce(fault.message);
}

/** Return what the listing knows of one row. */
function factsOf(position) {
  const { label, answer, scores, split, status, classes, positive, suspect, group } = listing.columns;
  const given = label[position];
  const answered = answer ? answer[position] : -1;
  const outcome = given < 0 || answered < 0 ? "" : given === answered ? "right" : "wrong";
  return {
    label: given, answer: answered, outcome, score: scores ? scores[position * classes + positive] : NaN,
    split: data.meta.splits[split?.[position]] ?? "", status: data.meta.statuses[status?.[position]] ?? "",
    suspect: suspect ? suspect[position] : NaN, group: group ? group[position] : -1,
  };
}

function tileLines(position) {
  const facts = factsOf(position);
  const lines = [tileLine(t("images.label"), classWords(facts.label), ...suspectMark(facts.suspect))];
  const place = [...similarityOf(position), el("span", { class: "tile-place" }, facts.split ? bdi(clipped(facts.split)) : null,
    facts.status && facts.status !== "ok" ? el("span", { class: "tile-status" }, " ", bdi(facts.status)) : null)];
  if (chosenSystem()) {
    lines.push(tileLine(t("images.answer"), classWords(facts.answer), ...outcomeSigns(facts.outcome)));
    lines.push(tileLine(t("images.score"), el("span", {}, number(facts.score)), ...place));
  } else lines.push(el("div", { class: "tile-line" }, ...place));
  return { facts, lines };
}

function tileLine(key, ...words) {
  return el("div", { class: "tile-line" }, el("span", { class: "tile-key" }, key), ...words);
}

/** Say that a label is suspect. */
function suspectMark(probability) {
  if (probability !== probability) return [];
  const words = t("images.is_suspect");
  return [el("span", { class: "tile-suspect", title: words, "aria-hidden": "true" }, "?"), el("span", { class: "visually-hidden" }, words)];
}

/** Say whether an answer is right or wrong, where that is known. */
function outcomeSigns(outcome) {
  return outcome ? [outcomeMark(outcome), el("span", { class: "visually-hidden" }, t(`images.${outcome}`))] : [];
}

function similarityOf(position) {
  const similarity = store.get("ranking")?.keys[position];
  return similarity >= -1 && similarity <= 1 ? [el("span", { class: "tile-near" }, "≈ ", number(similarity))] : [];
}

function fillTile(box, position) {
  const { facts, lines } = tileLines(position);
  box.querySelector(".tile-words").replaceChildren(...lines);
  box.classList.toggle("wrong", facts.outcome === "wrong");
}

function tileText(row, position) {
  const facts = factsOf(position);
  const words = [clipped(row.id), `${t("images.label")}: ${clipped(className(facts.label))}`];
  if (facts.answer >= 0) words.push(`${t("images.answer")}: ${clipped(className(facts.answer))}`);
  if (facts.outcome) words.push(t(`images.${facts.outcome}`));
  return words.join(", ");
}

/**
 * Make the tile of one image; a click on it (not on its own buttons), or Enter, opens the image.
 * @param {number} position row of the table
 * @param {{size?: number, focusable?: boolean}} options longest side of the image in CSS pixels; whether
 *   its buttons are in the tab order
 * @returns {HTMLElement} filled at once, or as soon as the columns are there
 */
function tile(position, { size = 128, focusable = true } = {}) {
  const open = el("button", {
    class: "tile-open", type: "button", tabindex: focusable ? null : "-1",
    on: { click: () => openImage(position) },
  }, bdi("…"));
  const box = el("div", {
    class: "tile", "data-position": String(position), style: { "--tile": `${size}px` },
    on: { click: (event) => { if (!event.target.closest("button, a, input")) openImage(position); } },
  }, careImage(position, { size, focusable }), open, el("div", { class: "tile-words" }));
  if (listing.columns) fillTile(box, position);
  const ready = listing.columns ? Promise.resolve() : startListing();
  Promise.all([wordsOf(position), ready]).then(([row]) => {
    if (!listing.columns) return;
    fillTile(box, position);
    // The end of a path tells images apart; all of it is in the title.
    open.replaceChildren(bdi(clipped(row.id.split("/").at(-1) || row.id)));
    open.title = clipped(row.id);
    open.setAttribute("aria-label", tileText(row, position));
    box.querySelector("img.archive")?.setAttribute("alt", clipped(row.id));
  }).catch(sayFault);
  return box;
}
