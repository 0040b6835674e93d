"use strict";
/* One image in a dialog: scores of every system and view, facts, nearest neighbours and duplicates. */

const NEAR_SHOWN = 12;
const GROUP_SHOWN = 24;
const SCORES_MOST = 20_000_000;
const PLAIN_SIZE = 288;
const LARGE_SIZE = 1024;
/** What stands above and below an enlarged image, in pixels. */
const AROUND = 170;
/** What stands beside it. */
const BESIDE = 48;
/** Observed facts that the dialog tells in words of its own. */
const TOLD = new Set(["status", "detail", "bytes", "width", "height", "format"]);

/** Open the dialog of one image. */
function openImage(position) {
  store.set({ image: position });
}

function bar(share) {
  return el("span", { class: "score-bar", "aria-hidden": "true" },
    el("span", { class: "score-fill", style: { "inline-size": `${100 * Math.min(Math.max(share || 0, 0), 1)}%` } }));
}

function scoreCell(score) {
  return el("td", { class: "number" }, bar(score), el("span", { class: "score-number" }, number(score)));
}

function outcomeWords(label, answer) {
  if (label < 0 || answer < 0) return [];
  return [" ", ...outcomeSigns(label === answer ? "right" : "wrong")];
}

function viewRows(names, values) {
  return names.map((name, index) => el("tr", { class: "view-row" },
    el("th", { scope: "row" }, bdi(name)), scoreCell(values[index]), el("td", {})));
}

/** One body of the table: a system, and its views below it. */
async function systemBody(system, position, label) {
  const { classes, positive } = listing.columns;
  const [scores, stored, views] = await Promise.all(
    [`p:${system}`, `answer:${system}`, `views:${system}`].map(columnOrNull));
  const { name, views: names } = data.meta.systems[system];
  const isChosen = system === store.get("system");
  const answer = isChosen ? listing.columns.answer[position] : stored[position];
  const body = el("tbody", { class: isChosen ? "chosen" : null }, el("tr", {},
    el("th", { scope: "row" }, bdi(name)), scoreCell(scores[position * classes + positive]),
    el("td", {}, classWords(answer), ...outcomeWords(label, answer))));
  if (views && names.length) {
    const of = [...views.subarray(position * names.length, (position + 1) * names.length)];
    body.append(...viewRows(names, positive === data.meta.positive ? of : of.map((score) => 1 - score)));
  }
  return body;
}

/** All systems where their columns are small enough to fetch; else the chosen one, and a button for the rest. */
function systemTable(position, label) {
  const systems = [...data.meta.systems.keys()];
  if (systems.length === 0) return null;
  const { n, classes, positive } = listing.columns;
  const isSmall = n * classes * systems.length <= SCORES_MOST;
  const table = el("table", { class: "system-table" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("images.system")),
      el("th", { scope: "col", class: "number" }, t("images.score_of"), " ", bdi(clipped(className(positive), 40))),
      el("th", { scope: "col" }, t("images.answer")))));
  const add = async (chosen) => table.append(...await Promise.all(chosen.map((system) => systemBody(system, position, label))));
  add(isSmall ? systems : systems.filter((system) => system === store.get("system"))).catch(sayFault);
  const rest = systems.filter((system) => system !== store.get("system"));
  const more = isSmall ? null : el("button", {
    type: "button", on: { click: () => { more.remove(); add(rest).catch(sayFault); } },
  }, t("images.all_systems", { size: fileSize(rest.length * n * classes * 8) }));
  return el("section", {}, el("h3", {}, t("images.scores")), el("div", { class: "scroll" }, table), more);
}

function fact(name, ...words) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, ...words));
}

async function measured(position) {
  const [width, height, bytes, fold] = await Promise.all(["width", "height", "bytes", "fold"].map(columnOrNull));
  const facts = [];
  if (width && width[position] > 0) {
    facts.push(fact(t("images.size"), `${count(width[position])} × ${count(height[position])} px`));
  }
  if (bytes && bytes[position] >= 0) facts.push(fact(t("images.bytes"), fileSize(bytes[position])));
  if (fold && fold[position] >= 0) facts.push(fact(t("images.fold"), count(fold[position] + 1)));
  return facts;
}

async function labelFacts(position, facts) {
  const [before, suggested] = await Promise.all(["table_label", "suggested"].map(columnOrNull));
  const lines = [fact(t("images.label"), classWords(facts.label))];
  if (before && before[position] !== facts.label) lines.push(fact(t("images.table_label"), classWords(before[position])));
  if (facts.suspect === facts.suspect) {
    lines.push(fact(t("images.suspect_label"), t("images.suspect_share", { share: percent(facts.suspect) }),
      ...(suggested && suggested[position] >= 0 ? [" → ", classWords(suggested[position])] : [])));
  }
  return lines;
}

/** List what is known of an image; words of the archive as text, each in its own direction. */
async function factList(position, row) {
  const facts = factsOf(position);
  const lines = await labelFacts(position, facts);
  if (facts.split) lines.push(fact(t("images.split"), bdi(facts.split)));
  lines.push(fact(t("images.status"), bdi(facts.status), ...(row.detail ? [": ", bdi(row.detail)] : [])));
  if (row.text) lines.push(fact(t("images.caption"), bdi(row.text)));
  lines.push(fact(t("images.id"), bdi(row.id)));
  if (row.path && row.path !== row.id) lines.push(fact(t("images.path"), bdi(row.path)));
  lines.push(...await measured(position));
  if (row.format) lines.push(fact(t("images.format"), bdi(row.format)));
  for (const [name, value] of Object.entries(row.observed ?? {})) {
    if (!TOLD.has(name) && String(value ?? "") !== "") lines.push(fact(bdi(name), bdi(value)));
  }
  if (row.digest) lines.push(fact(t("images.digest"), el("code", { title: row.digest }, row.digest.slice(0, 16))));
  return el("section", {}, el("h3", {}, t("images.facts")), el("dl", { class: "facts" }, ...lines));
}

function closeAnd(action) {
  return () => {
    store.set({ image: -1, tab: "images" });
    action();
  };
}

/** Nearest neighbours in a chosen embedding. */
function neighbourSection(position) {
  const { embeddings } = data.meta;
  if (embeddings.length === 0) return null;
  const ground = el("div", { class: "tile-row" });
  const select = el("select", { id: "image-embedding", on: { change: () => fill().catch(sayFault) } },
    ...embeddings.map((name, index) => el("option", { value: String(index) }, name)));
  select.value = String(store.get("embedding") ?? 0);
  async function fill() {
    const embedding = Number(select.value);
    store.set({ embedding });
    const near = (await data.neighbours(embedding, position)).slice(0, NEAR_SHOWN);
    const tiles = near.map((other) => el("figure", { class: "near" }, tile(other.position, { size: 112 }),
      el("figcaption", {}, t("images.similarity"), " ", number(other.similarity, 2))));
    ground.replaceChildren(...(tiles.length ? tiles : [el("p", {}, t("images.no_neighbours"))]));
  }
  fill().catch(sayFault);
  return el("section", {}, el("h3", {}, t("images.neighbours")),
    el("p", { class: "section-tools" }, el("label", { for: "image-embedding" }, t("images.embedding")), " ", select, " ",
      el("button", { type: "button", on: { click: closeAnd(() => listNeighbours(Number(select.value), position)) } }, t("images.list_similar"))),
    ground);
}

/** The near-duplicates of an image side by side, itself among them. */
function groupSection(position) {
  const { group } = listing.columns;
  if (!group || group[position] < 0) return null;
  const number_ = group[position];
  const members = [];
  for (let row = 0; row < group.length; row += 1) if (group[row] === number_) members.push(row);
  return el("section", {}, el("h3", {}, t("images.duplicates", { count: count(members.length) })),
    el("p", { class: "section-tools" },
      el("button", { type: "button", on: { click: closeAnd(() => changeFilter({ group: number_ })) } }, t("images.list_group"))),
    el("div", { class: "tile-row" }, ...members.slice(0, GROUP_SHOWN).map((row) => tile(row, { size: 112 }))));
}

/** The image itself, larger only when asked, and blurred until asked. */
function mainFigure(position, row) {
  const frame = careImage(position, { size: PLAIN_SIZE, alt: clipped(row.id) });
  const enlarge = el("button", {
    type: "button", "aria-pressed": "false",
    on: {
      click: () => {
        const isLarge = enlarge.getAttribute("aria-pressed") !== "true";
        enlarge.setAttribute("aria-pressed", String(isLarge));
        const room = Math.min(window.innerHeight - AROUND, window.innerWidth - BESIDE);
        const large = Math.max(Math.min(PLAIN_SIZE, room), Math.min(LARGE_SIZE, room));
        frame.style.setProperty("--care-size", `${isLarge ? large : PLAIN_SIZE}px`);
        figure.closest(".image-body")?.classList.toggle("large", isLarge);
      },
    },
  }, t("images.enlarge"));
  const figure = el("figure", { class: "image-figure", tabindex: "-1" }, frame,
    el("figcaption", {}, data.thumbnail(position) === null ? null : enlarge));
  return figure;
}

/** The dialog; one for the page, filled anew for every image. */
class ImageDialog {
  constructor() {
    this.title = el("h2", { id: "image-title" });
    this.place = el("span", { class: "image-place" });
    this.body = el("div", { class: "image-body" });
    this.before = el("button", { type: "button", on: { click: () => this.step(-1) } }, t("images.previous"));
    this.after = el("button", { type: "button", on: { click: () => this.step(1) } }, t("images.next"));
    this.dialog = el("dialog", {
      id: "image-dialog", "aria-labelledby": "image-title",
      on: {
        close: () => this.onClose(),
        keydown: (event) => this.onKey(event),
      },
    }, el("div", { class: "image-head" }, this.title,
      el("div", { class: "image-tools" }, this.place, this.before, this.after,
        el("button", { type: "button", class: "image-close", on: { click: () => this.dialog.close() } }, t("images.close")))),
    this.body);
  }

  /** Follow the store: open, show another image, or close and give the focus back. */
  async follow() {
    const position = store.get("image") ?? -1;
    if (position < 0) {
      if (this.dialog.open) this.dialog.close();
      return;
    }
    const [row] = await Promise.all([wordsOf(position), startListing()]);
    if (store.get("image") !== position) return;
    const facts = await factList(position, row);
    if (store.get("image") !== position) return;
    this.fill(position, row, facts);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.body.querySelector(".image-figure").focus({ preventScroll: true });
  }

  /** Tell the store that the image shown was closed, unless another was asked for before this event came. */
  onClose() {
    if (!this.dialog.open && store.get("image") === this.shown) store.set({ image: -1 });
  }

  fill(position, row, facts) {
    this.shown = position;
    this.title.replaceChildren(bdi(clipped(row.id)));
    this.body.classList.remove("large");
    const review = typeof reviewBar === "function" ? reviewBar(position) : null;
    const { label } = factsOf(position);
    this.body.replaceChildren(
      el("div", { class: "image-main" }, mainFigure(position, row), review),
      el("div", { class: "image-side" }, ...[systemTable(position, label), facts].filter(Boolean)),
      el("div", { class: "image-near" }, ...[groupSection(position), neighbourSection(position)].filter(Boolean)));
    this.showPlace();
  }

  showPlace() {
    const shown = store.get("shown");
    const index = shown.indexOf(store.get("image"));
    this.place.textContent = index < 0 ? t("images.not_listed") : t("images.place", { number: count(index + 1), count: count(shown.length) });
    this.before.disabled = index <= 0;
    this.after.disabled = index < 0 || index === shown.length - 1;
  }

  /** Go to the next or previous image of the list. */
  step(by) {
    const shown = store.get("shown");
    const index = shown.indexOf(store.get("image"));
    const next = shown[index + by];
    if (index >= 0 && next !== undefined) store.set({ image: next });
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea")) return;
    const forward = getComputedStyle(this.dialog).direction === "rtl" ? -1 : 1;
    const by = { ArrowRight: forward, ArrowLeft: -forward }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this.step(by);
  }
}

part({
  name: "image",
  tab: false,
  mount() {
    document.getElementById("image-dialog")?.remove();
    followStore();
    const dialog = new ImageDialog();
    document.body.append(dialog.dialog);
    store.on(["image"], () => dialog.follow().catch(sayFault));
    store.on(["shown"], () => { if (dialog.dialog.open) dialog.showPlace(); });
    dialog.follow().catch(sayFault);
  },
});
