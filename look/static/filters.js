"use strict";
/* The filter bar: what to keep, how many rows each choice would give, and the active parts as chips. */

/** Name a value of a facet; -1 is "none". */
function facetValue(name, value) {
  if (value < 0) return t("images.none");
  const names = { label: data.meta.labels, answer: data.meta.labels, split: data.meta.splits, status: data.meta.statuses };
  return names[name][value];
}

function facetSize(name) {
  if (name === "label" || name === "answer") return data.meta.labels.length;
  return name === "split" ? data.meta.splits.length : data.meta.statuses.length;
}

/** Draw the mark of a class: colour and shape together, so that colour alone says nothing. */
function classMark(value) {
  const index = value < 0 ? "none" : value % MARKS.length;
  return el("span", { class: `class-mark mark-${index}`, "aria-hidden": "true" }, value < 0 ? "–" : markOf(value).sign);
}

function toggleListed(name, value, isKept) {
  const kept = new Set(store.get("filter")?.[name] ?? []);
  if (isKept) kept.add(value);
  else kept.delete(value);
  changeFilter({ [name]: [...kept].sort((a, b) => a - b) });
}

function choice(input, words, update) {
  const amount = el("span", { class: "choice-count" });
  const line = el("label", { class: "choice" }, input, el("span", { class: "choice-name" }, ...words), amount);
  return { line, update: () => update(input, amount) };
}

function facetChoice(name, value) {
  const input = el("input", {
    type: "checkbox", on: { change: () => toggleListed(name, value, input.checked) },
  });
  const words = [bdi(facetValue(name, value))];
  if (name === "label" || name === "answer") words.unshift(classMark(value));
  return choice(input, words, (box) => { box.checked = store.get("filter")?.[name]?.includes(value) ?? false; });
}

/* A facet with one value only says nothing; its box is hidden as long as that is so. */
function facetBox(name) {
  const values = [...Array(facetSize(name)).keys(), -1];
  const choices = values.map((value) => facetChoice(name, value));
  const box = el("fieldset", { class: "facet" }, el("legend", {}, t(`images.${name}`)),
    ...choices.map(({ line }) => line));
  let last = {};
  const update = () => {
    const values_ = listing.columns[name];
    if (!values_) return void (box.hidden = true);
    if (last.values !== values_) last = { values: values_, counts: tally(values_, new Uint16Array(values_.length), 0, facetSize(name)) };
    const all = last.counts;
    const counts = tally(values_, listing.failures, bitOf(name), facetSize(name));
    choices.forEach((item, index) => {
      const value = values[index];
      item.update();
      item.line.hidden = all[value + 1] === 0;
      item.line.querySelector(".choice-count").textContent = count(counts[value + 1]);
    });
    box.hidden = all.filter((rows) => rows > 0).length < 2 && !store.get("filter")?.[name];
  };
  return { box, update };
}

function outcomeBox() {
  let counts = [];
  const choices = ["wrong", "right"].map((outcome) => {
    const input = el("input", {
      type: "checkbox", on: { change: () => changeFilter({ outcome: input.checked ? outcome : null }) },
    });
    return choice(input, [outcomeMark(outcome), t(`images.${outcome}`)], (box, amount) => {
      box.checked = store.get("filter")?.outcome === outcome;
      amount.textContent = count(counts[1 + (outcome === "wrong" ? WRONG : RIGHT)]);
    });
  });
  const box = el("fieldset", { class: "facet" }, el("legend", {}, t("images.outcome")), ...choices.map(({ line }) => line));
  const update = () => {
    const { label, answer } = listing.columns;
    box.hidden = !answer;
    counts = tally(outcomesOf(label, answer), listing.failures, bitOf("outcome"), 3);
    choices.forEach((item) => item.update());
  };
  return { box, update };
}

/** Draw the mark of a right or wrong answer. */
function outcomeMark(outcome) {
  return el("span", { class: `outcome-mark ${outcome}`, "aria-hidden": "true" }, outcome === "wrong" ? "✗" : "✓");
}

const FLAGS = {
  group: { value: "any", rows: (columns) => groupedRows(columns.group, "any") },
  suspect: { value: true, rows: (columns) => numberedRows(columns.suspect) },
  corrected: { value: true, rows: (columns) => columns.corrected },
};

function flagChoice(part) {
  const { value, rows } = FLAGS[part];
  const input = el("input", {
    type: "checkbox", on: { change: () => changeFilter({ [part]: input.checked ? value : null }) },
  });
  return choice(input, [t(`images.is_${part}`)], (box, amount) => {
    const marked = rows(listing.columns);
    box.checked = store.get("filter")?.[part] !== undefined;
    amount.textContent = marked ? count(tally(marked, listing.failures, bitOf(part), 2)[2]) : "";
  });
}

function flagBox() {
  const choices = Object.keys(FLAGS).map(flagChoice);
  const box = el("fieldset", { class: "facet" }, el("legend", {}, t("images.marks")), ...choices.map(({ line }) => line));
  return { box, update: () => choices.forEach((item) => item.update()) };
}

function later(milliseconds, callback) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(callback, milliseconds);
  };
}

function textBox() {
  const input = el("input", { type: "search", id: "images-text", autocomplete: "off", spellcheck: "false", dir: "auto" });
  const apply = later(200, () => changeFilter({ text: input.value.trim() }));
  input.addEventListener("input", apply);
  const box = el("p", { class: "facet" }, el("label", { for: "images-text" }, t("images.text")), input);
  const update = () => { if (document.activeElement !== input) input.value = store.get("filter")?.text ?? ""; };
  return { box, update };
}

/**
 * Make the bar of all filters.
 * @returns {{box: HTMLElement, update: () => void}} update once the listing has changed
 */
function filterBar() {
  const parts = [textBox(), searchBox(), outcomeBox(), ...FACETS.map(facetBox), flagBox()];
  const amount = el("span", { class: "filter-amount" });
  const wide = window.matchMedia("(min-width: 60rem)");
  const box = el("details", { class: "filter-bar", open: wide.matches },
    el("summary", {}, t("images.filters"), " ", amount), ...parts.map((part) => part.box));
  wide.addEventListener("change", () => { box.open = wide.matches; });
  const update = () => {
    amount.textContent = activeParts().length ? `(${count(activeParts().length)})` : "";
    for (const part of parts) part.update();
  };
  return { box, update };
}

/** List the parts of the filter that are in use. */
function activeParts() {
  const filter = store.get("filter") ?? {};
  return PARTS.filter((part) => filter[part] !== undefined || (["lasso", "ranking"].includes(part) && store.get(part)));
}

function chipWords(part) {
  const value = store.get("filter")?.[part];
  if (FACETS.includes(part)) {
    return [t(`images.${part}`), ": ", ...value.flatMap((one, index) => [index ? ", " : "", bdi(facetValue(part, one))])];
  }
  if (part === "outcome") return [t(`images.${value}`)];
  if (part === "text") return [t("images.text"), ": ", bdi(value)];
  if (part === "group" && value !== "any") return [t("images.group", { number: number(value, 0) })];
  if (part === "ranking") return rankingWords();
  return [t(`images.is_${part}`)];
}

function rankingWords() {
  const { kind, embedding, position, words } = store.get("ranking");
  const name = bdi(data.meta.embeddings[embedding] ?? "");
  if (kind === "words") return [t("images.like_words"), " ", bdi(words), " · ", name];
  const id = bdi("");
  wordsOf(position).then((row) => { id.textContent = clipped(row.id); }).catch(sayFault);
  return [t("images.like_image"), " ", id, " · ", name];
}

function chip(part) {
  const rows = countPassing(listing.failures, part);
  return el("button", { class: "chip", type: "button", "data-part": part, title: t("images.remove"), on: { click: () => changeFilter({ [part]: null }) } },
    el("span", { class: "chip-words" }, ...chipWords(part)), el("span", { class: "chip-count" }, count(rows)),
    el("span", { class: "chip-cross", "aria-hidden": "true" }, "×"), el("span", { class: "visually-hidden" }, t("images.remove")));
}

/**
 * Make the row of chips: the active parts of the filter, each with its own number of rows.
 * @returns {{box: HTMLElement, update: () => void}}
 */
function chipRow() {
  const box = el("div", { class: "chips", role: "group", "aria-label": t("images.active") });
  const update = () => {
    const hadFocus = box.contains(document.activeElement);
    const chips = activeParts().map(chip);
    if (chips.length > 1) {
      chips.push(el("button", { class: "chip chip-all", type: "button", on: { click: clearFilter } }, t("images.clear")));
    }
    box.replaceChildren(...chips);
    box.hidden = chips.length === 0;
    if (hadFocus) (chips[0] ?? document.querySelector(".filter-bar summary"))?.focus();
  };
  return { box, update };
}
