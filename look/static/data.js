/** The data tab: what could not be read, duplicates, suspect labels, shortcuts and shift. */
"use strict";

const GROUPS_SHOWN = 12;
const TILES_SHOWN = 24;

/** Make a section with a heading, and what it says. */
function dataSection(name, ...content) {
  return el("section", { class: "data-section", "aria-labelledby": `data-${name}` },
    el("h2", { id: `data-${name}` }, t(`data.${name}`)), ...content);
}

function showInGallery(filter) {
  store.set({ filter, tab: "images" });
}

function galleryButton(words, filter) {
  return el("button", { type: "button", on: { click: () => showInGallery(filter) } }, words);
}

function tiles(positions) {
  return el("div", { class: "data-tiles" }, ...Array.from(positions, (position) => tile(position)));
}

/** What could not be read: a line for every status but "ok", with how many rows have it. */
function unreadableSection() {
  const { statuses, data: found } = data.meta;
  const counts = Object.entries(found.unreadable);
  if (!counts.length) return dataSection("unreadable", el("p", {}, t("data.all_read")));
  const lines = counts.map(([status, rows]) => el("tr", {},
    el("td", {}, bdi(status)), el("td", { class: "number" }, count(rows)),
    el("td", {}, galleryButton(t("data.show"), { status: [statuses.indexOf(status)] }))));
  return dataSection("unreadable", el("p", {}, t("data.unreadable_why")), el("table", {},
    el("thead", {}, el("tr", {}, el("th", {}, t("data.status")), el("th", { class: "number" }, t("data.rows")), el("td", {}))),
    el("tbody", {}, ...lines)));
}

/**
 * Return the members of groups, those whose labels differ first.
 * @param {Int32Array} group number of the group of every row, -1 where alone
 * @param {Int8Array} label class of every row, -1 where there is none
 * @returns {{positions: number[], conflicting: boolean}[]}
 */
function groupsOf(group, label) {
  const members = new Map();
  group.forEach((number, position) => {
    if (number < 0) return;
    if (!members.has(number)) members.set(number, []);
    members.get(number).push(position);
  });
  const groups = Array.from(members.values(), (positions) => ({
    positions,
    conflicting: new Set(positions.map((position) => label[position]).filter((value) => value >= 0)).size > 1,
  }));
  return groups.sort((a, b) => b.conflicting - a.conflicting || b.positions.length - a.positions.length);
}

async function duplicatesSection() {
  const groups = groupsOf(await data.column("group"), await data.column("label"));
  if (!groups.length) return dataSection("duplicates", el("p", {}, t("data.no_duplicates")));
  const rows = groups.reduce((total, { positions }) => total + positions.length, 0);
  const conflicts = groups.filter(({ conflicting }) => conflicting).length;
  const said = [t("data.duplicates_found", { groups: count(groups.length), rows: count(rows) })];
  if (conflicts) said.push(t("data.duplicates_conflict", { groups: count(conflicts) }));
  const shown = groups.slice(0, GROUPS_SHOWN).map(({ positions, conflicting }) => el("li", { class: "data-group" },
    el("p", { class: conflicting ? "note" : "soft" },
      t("data.group_rows", { rows: count(positions.length) }), conflicting ? ` · ${t("data.labels_differ")}` : ""),
    tiles(positions.slice(0, TILES_SHOWN))));
  return dataSection("duplicates", ...said.map((words) => el("p", {}, words)),
    el("p", {}, galleryButton(t("data.show_all"), { group: "any" })),
    el("ol", { class: "data-groups" }, ...shown));
}

async function suspectsSection() {
  const { judge } = data.meta.data.suspects ?? {};
  const [suspect, label, suggested] = await Promise.all(["suspect", "label", "suggested"].map(data.column));
  const positions = [];
  suspect.forEach((probability, position) => { if (!Number.isNaN(probability)) positions.push(position); });
  if (!positions.length) return dataSection("suspects", el("p", {}, t("data.no_suspects")));
  positions.sort((a, b) => suspect[a] - suspect[b]);
  const cards = positions.slice(0, TILES_SHOWN).map((position) => el("li", {}, tile(position),
    el("p", { class: "data-reason" }, t("data.given"), " ", bdi(data.meta.labels[label[position]] ?? "–"), ": ", number(suspect[position], 2),
      el("br"), t("data.suggested"), " ", bdi(data.meta.labels[suggested[position]] ?? "–"))));
  return dataSection("suspects",
    el("p", {}, t("data.suspects_found", { rows: count(positions.length) }), judge ? [" ", t("data.judge"), " ", bdi(judge)] : ""),
    el("p", {}, el("button", { type: "button", class: "primary", on: { click: reviewSuspicion } }, t("data.review")),
      " ", galleryButton(t("data.show_all"), { suspect: true })),
    el("ul", { class: "data-cards" }, ...cards));
}

function interval(low, high, digits = 3) {
  return `[${number(low, digits)}, ${number(high, digits)}]`;
}

/** Properties of the files that ought to say nothing of the label, and how well they tell it. */
function shortcutsSection() {
  const { shortcuts } = data.meta.data;
  if (!shortcuts?.length) return dataSection("shortcuts", el("p", {}, t("data.not_looked")));
  const lines = shortcuts.map((shortcut) => el("tr", {},
    el("td", {}, bdi(shortcut.name)),
    el("td", { class: "number" }, number(shortcut.macro_f1), " ", shortcut.low === null ? "" : interval(shortcut.low, shortcut.high)),
    el("td", { class: "number" }, number(shortcut.chance)),
    el("td", {}, shortcut.flagged ? el("strong", {}, t("data.flagged")) : el("span", { class: "soft" }, t("data.harmless")))));
  const names = ["property", "score", "chance", "meaning"];
  return dataSection("shortcuts", el("p", {}, t("data.shortcuts_why")), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": "data-shortcuts" },
    el("table", {}, el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { class: /score|chance/.test(name) ? "number" : null }, t(`data.${name}`))))),
      el("tbody", {}, ...lines))));
}

function shiftSection() {
  const { shift } = data.meta.data;
  if (!shift || shift.auc === null) return dataSection("shift", el("p", {}, t(data.meta.to_predict ? "data.not_looked" : "data.no_shift")));
  const properties = shift.properties.map((property) => el("tr", {},
    el("td", {}, bdi(property.name)), el("td", { class: "number" }, number(property.auc, 2)),
    el("td", { class: "number" }, number(property.labelled, 2)), el("td", { class: "number" }, number(property.to_predict, 2))));
  const names = ["property", "auc", "labelled", "to_predict"];
  const examples = ["labelled", "to_predict"].filter((side) => shift.examples?.[side]?.length).map((side) => el("div", {},
    el("h3", {}, t(`data.typical_${side}`)), tiles(shift.examples[side].slice(0, TILES_SHOWN / 2))));
  return dataSection("shift", el("p", {}, t("data.shift_why")),
    el("p", {}, `AUC ${number(shift.auc)} ${shift.low === null ? "" : interval(shift.low, shift.high)}`),
    properties.length ? el("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": "data-shift" },
      el("table", {}, el("thead", {}, el("tr", {}, ...names.map((name, at) => el("th", { class: at ? "number" : null }, t(`data.${name}`))))),
        el("tbody", {}, ...properties))) : null,
    el("div", { class: "data-sides" }, ...examples));
}

part({
  name: "data",
  async mount(section) {
    const found = await Promise.all([unreadableSection(), suspectsSection(), duplicatesSection(), shortcutsSection(), shiftSection()]);
    section.replaceChildren(...found);
  },
});
