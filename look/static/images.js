"use strict";
/* The tab of images: filters, chips, gallery and map over one list of rows. */

function systemChoice() {
  const { systems } = data.meta;
  const select = el("select", {
    id: "images-system",
    on: {
      change: () => {
        const system = Number(select.value);
        store.set({ system, threshold: systems[system]?.threshold ?? NaN });
      },
    },
  }, ...systems.map(({ name }, index) => el("option", { value: String(index) }, clipped(name, 60))));
  const box = el("span", { class: "tool", hidden: systems.length < 2 }, el("label", { for: "images-system" }, t("images.system")), select);
  return { box, update: () => { select.value = String(store.get("system")); } };
}

function thresholdChoice() {
  const input = el("input", {
    type: "range", id: "images-threshold", min: "0", max: "1", step: "any",
    on: { input: () => store.set({ threshold: input.valueAsNumber }) },
  });
  input.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const side = getComputedStyle(input).direction === "rtl" && ["ArrowRight", "ArrowLeft"].includes(event.key) ? -1 : 1;
    store.set({ threshold: Math.min(1, Math.max(0, input.valueAsNumber + side * by)) });
  });
  const amount = el("output", { for: "images-threshold", class: "tool-number" });
  const back = el("button", {
    type: "button", on: { click: () => store.set({ threshold: chosenSystem().threshold }) },
  }, t("images.threshold_back"));
  const box = el("span", { class: "tool" }, el("label", { for: "images-threshold" }, t("images.threshold")), input, amount, back);
  const update = () => {
    const system = chosenSystem();
    box.hidden = system === null || system.threshold === null || data.meta.labels.length !== 2;
    if (isAtThreshold()) input.value = String(store.get("threshold"));
    amount.textContent = number(store.get("threshold"));
    back.hidden = store.get("threshold") === system?.threshold;
  };
  return { box, update };
}

/* By what the rows can be sorted now. */
function sortsNow() {
  const needs = {
    mistake: chosenSystem(), score: chosenSystem(), suspicion: listing.columns?.suspect,
    similarity: store.get("ranking"), table: true,
  };
  return SORTS.filter((by) => needs[by]);
}

function sortChoice() {
  const select = el("select", {
    id: "images-sort", on: { change: () => store.set({ sort: { by: select.value, descending: select.value !== "table" } }) },
  });
  const turn = el("button", {
    type: "button", on: { click: () => store.set({ sort: { ...store.get("sort"), descending: !store.get("sort").descending } }) },
  });
  const box = el("span", { class: "tool" }, el("label", { for: "images-sort" }, t("images.sort")), select, turn);
  const update = () => {
    const { by, descending } = store.get("sort");
    select.replaceChildren(...sortsNow().map((name) => el("option", { value: name }, t(`images.sort_${name}`))));
    select.value = by;
    turn.textContent = descending ? "↓" : "↑";
    const words = descending ? t("images.descending") : t("images.ascending");
    turn.setAttribute("aria-label", words);
    turn.title = words;
  };
  return { box, update };
}

function sizeChoice(changed) {
  const select = el("select", { id: "images-size", on: { change: () => { store.set({ tile_size: select.value }); changed(); } } },
    ...Object.keys(SIZES).map((name) => el("option", { value: name }, t(`images.size_${name}`))));
  select.value = store.get("tile_size") ?? "medium";
  return { box: el("span", { class: "tool" }, el("label", { for: "images-size" }, t("images.tiles")), select), update: () => {} };
}

function mapChoice(map) {
  const toggle = el("button", {
    type: "button", id: "images-map", "aria-pressed": String(!map.box.hidden),
    on: {
      click: () => {
        map.box.hidden = !map.box.hidden;
        toggle.setAttribute("aria-pressed", String(!map.box.hidden));
        store.set({ map: !map.box.hidden });
        map.update();
      },
    },
  }, t("images.map"));
  return { box: toggle, update: () => {} };
}

/* Whose answers are shown, and how they came about. */
function answerNote() {
  const box = el("p", { class: "answer-note" });
  const update = () => {
    const system = chosenSystem();
    if (system === null) return void box.replaceChildren(t("images.no_system"));
    box.replaceChildren(t("images.answers_of"), " ", bdi(clipped(system.name)), ": ", answerWords(system), " ", ...answerSwitch(system));
  };
  return { box, update };
}

function answerWords(system) {
  if (!isAtThreshold()) return t("images.answers_stored");
  const threshold = number(store.get("threshold"));
  return store.get("threshold") === system.threshold ? t("images.answers_chosen", { threshold }) : t("images.answers_moved", { threshold });
}

/* The way from the answers at the threshold to those stored, and back. */
function answerSwitch(system) {
  if (data.meta.labels.length !== 2 || system.threshold === null) return [];
  const [words, threshold] = isAtThreshold() ? [t("images.show_stored"), NaN] : [t("images.show_threshold"), system.threshold];
  return [el("button", { type: "button", class: "plain", on: { click: () => store.set({ threshold }) } }, words)];
}

function amountShown() {
  const box = el("strong", { class: "images-amount", "aria-live": "polite" });
  return { box, update: () => { box.textContent = t("images.amount", { count: count(store.get("shown").length), total: count(data.meta.count) }); } };
}

function mountImages(section) {
  const grid = new Gallery();
  const map = data.meta.maps.length ? new EmbeddingMap() : null;
  if (map) map.box.hidden = !store.get("map");
  const filters = filterBar();
  const chips = chipRow();
  const note = answerNote();
  const tools = [amountShown(), sortChoice(), systemChoice(), thresholdChoice(), sizeChoice(() => grid.resize()), ...(map ? [mapChoice(map)] : []), reviewChoice()];
  section.classList.add("images");
  section.append(el("h2", { class: "visually-hidden" }, t("images.tab")),
    el("div", { class: "images-tools" }, ...tools.map(({ box }) => box)), note.box, chips.box,
    el("div", { class: "images-body" }, filters.box, el("div", { class: "images-main" }, map?.box, grid.box)));
  const update = () => {
    for (const piece of [...tools, note, chips, filters, grid, ...(map ? [map] : [])]) piece.update();
  };
  store.on(["shown"], () => { if (listing.columns) update(); });
  fillWindow(section);
  store.on(["image"], () => followFocus(grid));
  if (listing.columns) update();
  else startListing();
}

/* The gallery fills the window below what stands above it, however high that is. */
function fillWindow(section) {
  const body = section.querySelector(".images-body");
  const measure = () => {
    const above = body.getBoundingClientRect().top + window.scrollY;
    if (above > 0) section.style.setProperty("--above", `${Math.round(above)}px`);
  };
  new ResizeObserver(measure).observe(section.querySelector(".images-tools"));
  store.on(["shown"], measure);
}

/* Once the dialog is closed, the gallery gives the focus to the image seen last. */
function followFocus(grid) {
  const image = store.get("image");
  if (image >= 0) grid.seenLast = image;
  const place = document.activeElement;
  if (image < 0 && (place === document.body || grid.box.contains(place))) grid.focusPosition(grid.seenLast ?? -1);
}

part({ name: "images", mount: mountImages });
