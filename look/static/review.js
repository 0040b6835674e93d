"use strict";
/* Review by keyboard: one step after another in the order of suspicion, or of what the gallery shows.

   Images are blurred until asked for, the answers of a system hidden, so that nobody is led; a person
   can stop at any time, since every decision is recorded at once. */

const REVIEW_KEYS = { k: "keep", u: "unsure", s: "skip", z: "undo", v: "view", g: "split", p: "lead", "?": "keys", Escape: "stop" };
const REVIEW_SIZE = { alone: 440, together: 300 };
const REVIEW_AT_ONCE = 60;
const review = { from: "suspicion", together: true, others: false, again: false, lead: false,
  steps: [], at: -1, done: 0, past: [], isBusy: false, place: null };
const reviewBars = new WeakMap();

/** Review the images that the gallery shows, in its order. */
function reviewSelection() {
  reviewFrom("selection");
}

/** Review suspect labels and wrong answers. */
function reviewSuspicion() {
  reviewFrom("suspicion");
}

function reviewFrom(from) {
  const isOther = review.from !== from;
  review.from = from;
  store.set({ tab: "review" });
  review.place.settings.querySelector("form").elements.from.value = from;
  if (isOther && review.built) reviewBuild();
}

function reviewSystem() {
  const system = store.get("system") ?? -1;
  return system >= 0 || data.meta.systems.length === 0 ? system : 0;
}

async function reviewPositions() {
  if (review.from === "selection") return store.get("shown") ?? [];
  const system = reviewSystem();
  const names = ["label", "suspect", ...(system >= 0 ? [`answer:${system}`, `p:${system}`] : [])];
  const [label, suspect, answer = null, probability = null] = await Promise.all(names.map((name) => data.column(name)));
  return suspicionOrder({ label, suspect, answer, probability }, { labels: data.meta.labels.length, others: review.others });
}

/** Build the steps anew, without those that are decided already, unless asked for. */
async function reviewBuild() {
  const [positions, label, group] = await Promise.all([reviewPositions(), data.column("label"), data.column("group")]);
  const steps = reviewSteps(positions, { label, group }, review.together);
  const decided = new Set([...store.get("corrections").values()].map((each) => each.position));
  const open = review.again ? steps : steps.filter((step) => !step.every((position) => decided.has(position)));
  review.steps = open.map((positions) => ({ positions, state: "open" }));
  review.done = steps.length - open.length;
  review.past = [];
  review.built = [store.get("shown"), reviewSystem()];
  review.at = review.steps.length > 0 ? 0 : -1;
  await reviewShow();
}

/** Rebuild where the gallery or the chosen system changed since. */
function reviewRefresh() {
  if (store.get("tab") !== "review" || !review.built) return;
  const [shown, system] = review.built;
  const isOld = review.from === "selection" ? shown !== store.get("shown") : system !== reviewSystem();
  if (isOld) reviewBuild();
  else if (review.at >= 0) reviewShow();
}

function reviewNext() {
  const isOpen = (step) => step.state === "open";
  const after = review.steps.findIndex((step, index) => index > review.at && isOpen(step));
  review.at = after >= 0 ? after : review.steps.findIndex(isOpen);
}

async function reviewDecide(choice) {
  const step = review.steps[review.at];
  const undo = await decide(step.positions, choice);
  step.state = "decided";
  review.past.push({ step, undo: () => undoDecision(undo) });
  reviewNext();
  await reviewShow();
}

const REVIEW_ACTIONS = {
  keep: () => reviewDecide("keep"),
  label: (number) => reviewDecide(number),
  unsure: () => reviewDecide("unsure"),
  async skip() {
    const step = review.steps[review.at];
    step.state = "skipped";
    review.past.push({ step, undo: () => {} });
    reviewNext();
    await reviewShow();
  },
  async split() {
    const step = review.steps[review.at];
    if (step.positions.length < 2) return;
    const parts = step.positions.map((position) => ({ positions: [position], state: "open" }));
    review.steps.splice(review.at, 1, ...parts);
    review.past.push({ step, undo: () => review.steps.splice(review.steps.indexOf(parts[0]), parts.length, step) });
    await reviewShow();
  },
  async undo() {
    const last = review.past.pop();
    if (!last) {
      reviewSay(t("review.nothing_to_undo"));
      return;
    }
    last.undo();
    last.step.state = "open";
    review.at = review.steps.indexOf(last.step);
    await reviewShow();
  },
  view() {
    const frames = [...review.place.stage.querySelectorAll(".care:has(img.archive)")];
    const hidden = frames.filter((frame) => !careIsShown(frame.querySelector("img.archive")));
    for (const frame of hidden.length > 0 ? hidden : frames) careToggle(frame);
  },
  async lead() {
    review.lead = !review.lead;
    review.place.settings.querySelector("form").elements.lead.checked = review.lead;
    await reviewShow({ keep: true });
  },
  keys() {
    review.place.keys.open = !review.place.keys.open;
    if (review.place.keys.open) review.place.keys.scrollIntoView({ block: "nearest" });
  },
  async stop() {
    review.isStopped = true;
    await reviewShow();
  },
};

/** Do what a key or button asks, unless the images of the last step are still coming. */
async function reviewAct(name, argument) {
  const needsStep = !["undo", "keys", "lead"].includes(name);
  if (review.isBusy || review.isStopped || !store.get("who") || (needsStep && review.at < 0)) return;
  review.isBusy = true;
  try {
    await REVIEW_ACTIONS[name](argument);
  } catch (error) {
    // No label can be kept, or the server does not answer: the step stays as it is.
    reviewSay(error.message);
  } finally {
    review.isBusy = false;
  }
}

function reviewOnKey(event) {
  const key = event.defaultPrevented || event.repeat ? "" : plainKey(event);
  if (key === "" || (key === "v" && careFocus())) return;
  const dialog = document.querySelector("dialog[open]");
  const act = dialog ? reviewBars.get(dialog.querySelector(".review-bar")) : store.get("tab") === "review" && reviewAct;
  if (!act || (dialog && !["k", "u", "z"].includes(key) && !/^[0-9]$/.test(key))) return;
  const number = /^[0-9]$/.test(key) ? (Number(key) + 9) % 10 : -1;
  if (number >= 0 && number < data.meta.labels.length) act("label", number);
  else if (number < 0 && REVIEW_KEYS[key]) act(REVIEW_KEYS[key]);
  else return;
  event.preventDefault();
}

function reviewSay(text) {
  review.place.news.textContent = text;
}

/** Show the step; `keep` leaves its images as they are, where only the words about them change. */
async function reviewShow({ keep = false } = {}) {
  const { place } = review;
  const left = review.steps.filter((step) => step.state !== "decided").length;
  const total = review.steps.length + review.done;
  place.bar.max = Math.max(total, 1);
  place.bar.value = total - left;
  place.progress.textContent = t("review.left", { left: count(left), total: count(total) });
  place.name.hidden = Boolean(store.get("who"));
  place.who.replaceChildren(t("review.by"), " ", bdi(store.get("who")));
  place.reviewer.hidden = !store.get("who");
  const isAtStep = review.at >= 0 && !review.isStopped && Boolean(store.get("who"));
  place.controls.hidden = !isAtStep && !(review.past.length > 0 && !review.isStopped);
  for (const button of place.controls.querySelectorAll("button")) reviewFit(button, isAtStep);
  if (!isAtStep) {
    place.stage.replaceChildren(...(store.get("who") ? reviewEnd(left) : []));
    return;
  }
  const step = review.steps[review.at];
  const figures = await reviewFigures(step.positions, keep ? place.stage : null);
  place.stage.replaceChildren(...figures);
  reviewSay("");
}

function reviewFit(button, isAtStep) {
  const { action } = button.dataset;
  button.disabled = action === "undo" ? review.past.length === 0 : !isAtStep && action !== "keys";
  if (action === "split") button.hidden = !isAtStep || review.steps[review.at].positions.length < 2;
}

function reviewEnd(left) {
  const skipped = review.steps.filter((step) => step.state === "skipped");
  const goOn = () => {
    review.isStopped = false;
    if (review.at < 0) {
      for (const step of skipped) step.state = "open";
      reviewNext();
    }
    reviewShow();
    review.place.stage.focus();
  };
  const text = review.isStopped ? "review.stopped" : left > 0 ? "review.skipped" : "review.finished";
  const button = el("button", { type: "button", class: "review-go-on", on: { click: goOn } }, t("review.go_on"));
  return [el("p", {}, t(text, { count: count(skipped.length) })), left > 0 ? button : ""];
}

/** Make a figure for each row of a step; `old` is where those are whose images stay as they are. */
async function reviewFigures(positions, old) {
  const some = positions.slice(0, REVIEW_AT_ONCE);
  const [rows, words] = [await data.rows(some), await reviewWords(some)];
  const size = some.length === 1 ? REVIEW_SIZE.alone : REVIEW_SIZE.together;
  const figures = some.map((position, index) => {
    const image = old?.querySelector(`.care[data-position="${position}"]`);
    return reviewFigure(position, rows[index], words[index], image, size);
  });
  const isOne = new Set(words.map(({ label }) => label)).size === 1;
  const heading = positions.length > 1 ? [el("p", { class: "review-together" },
    t("review.together", { count: count(positions.length), shown: count(some.length) }),
    isOne ? "" : el("strong", { class: "review-differ" }, " ", t("review.labels_differ")))] : [];
  return [...heading, el("div", { class: some.length === 1 ? "review-alone" : "review-group" }, ...figures)];
}

function reviewFigure(position, row, words, image, size) {
  const label = data.meta.labels[words.label] ?? t("review.none");
  const decided = store.get("corrections").get(row.id);
  return el("figure", { class: "review-figure" },
    image ?? careImage(position, { size, alt: `${row.id}, ${label}` }),
    el("figcaption", {},
      el("p", { class: "review-id" }, bdi(row.id)),
      el("p", {}, t("review.label"), " ", el("strong", {}, bdi(label))),
      decided ? el("p", {}, ...reviewDecision(decided)) : "",
      row.text ? el("p", { class: "review-caption", dir: "auto" }, row.text) : "",
      ...words.lines));
}

/** Return for each row the number of its label, and what a system says of it where that is asked for. */
async function reviewWords(positions) {
  const system = reviewSystem();
  const names = ["label", "table_label", "suspect", "suggested"];
  if (review.lead && system >= 0) names.push(`answer:${system}`, `p:${system}`);
  const columns = await Promise.all(names.map((name) => data.column(name)));
  const rows = await data.rows(positions);
  return positions.map((position, index) => {
    const label = labelNow(rows[index].id, columns[0][position], columns[1][position]);
    return { label, lines: review.lead ? reviewLead(position, label, columns, system) : [] };
  });
}

function reviewLead(position, label, [, , suspect, suggested, answer, probability], system) {
  const { labels, systems } = data.meta;
  const lines = [];
  if (answer && answer[position] >= 0) {
    lines.push([bdi(systems[system].name), " ", t("review.answers"), " ", bdi(labels[answer[position]])]);
    const named = [...new Set([answer[position], label])].filter((name) => name >= 0);
    lines.push([t("review.probability"), ...named.map((name) => el("span", { class: "review-p" },
      " ", bdi(labels[name]), ": ", bdi(number(probability[position * labels.length + name]))))]);
  }
  if (Number.isFinite(suspect[position])) {
    lines.push([t("review.suspect", { p: number(suspect[position]) }), " ", bdi(labels[suggested[position]] ?? t("review.none"))]);
  }
  return lines.map((words) => el("p", { class: "review-lead" }, ...words));
}
