/** The queue of a review: one image after the other, decided by a key or a button, kept at once by the server. */
"use strict";

const QUEUE_SIZE = 440;
const QUEUE_AHEAD = 8;
const QUEUE_KEYS = { u: "unsure", s: "skip", z: "undo" };
/* Another browser under the same name has a session of its own. */
const queueSession = crypto.randomUUID();

const queue = { who: "", items: [], skipped: [], past: [], counts: null, said: new Set(), isBusy: false, isSettling: false };

/** Ask for what comes next; what was skipped comes again at the end. */
async function queueFill() {
  const { items, counts } = await data.ask("next", {
    reviewer: queue.who, session: queueSession, count: QUEUE_AHEAD + queue.skipped.length, settle: queue.isSettling,
  });
  const later = new Set(queue.skipped);
  queue.items = [...items.filter(({ image }) => !later.has(image)), ...items.filter(({ image }) => later.has(image))];
  queue.counts = counts;
}

/** Do something that the server must know of; meanwhile keys and buttons wait, and faults are said. */
async function queueDo(action) {
  if (queue.isBusy) return;
  queue.isBusy = true;
  try {
    await action();
    announce("");
  } catch (error) {
    announce(error.message);
    await queueFill().catch(() => {});
  } finally {
    queue.isBusy = false;
  }
  queueShow();
}

function queueDecide(answer) {
  return queueDo(async () => {
    const [item] = queue.items;
    if (!item) return;
    const isShown = store.get("care").images.has(data.place(item.image));
    queue.counts = await data.ask("decide", {
      reviewer: queue.who, image: item.image, answer, unblurred: isShown, settles: item.part === "settle",
    });
    queue.past.push({ image: item.image, part: item.part });
    queue.skipped = queue.skipped.filter((image) => image !== item.image);
    queue.items.shift();
    if (queue.items.length === 0) await queueFill();
  });
}

function queueUndo() {
  return queueDo(async () => {
    const last = queue.past.at(-1);
    if (!last) return;
    await data.ask("undo", { reviewer: queue.who, ...last });
    queue.past.pop();
    await queueFill();
  });
}

function queueSkip() {
  return queueDo(async () => {
    const item = queue.items.shift();
    if (item && !queue.skipped.includes(item.image)) queue.skipped.push(item.image);
    if (queue.items.length === 0) await queueFill();
  });
}

function queueStop() {
  return queueDo(async () => {
    if (!window.confirm(t("queue.sure"))) return;
    await data.ask("stop", { reviewer: queue.who });
    await queueFill();
  });
}

/** Tell the server which images were seen unblurred, each once. */
async function queueTell() {
  if (!queue.who) return;
  const seen = [...store.get("care").images].filter((position) => !queue.said.has(position));
  for (const position of seen) queue.said.add(position);
  if (seen.length === 0) return;
  try {
    queue.counts = await data.ask("show", { reviewer: queue.who, images: seen.map(data.digest) });
    queueCounts();
  } catch (error) {
    announce(error.message);
  }
}

function queueButton(name, key, action, words) {
  return el("button", { type: "button", "data-action": name, "aria-keyshortcuts": key || null, on: { click: action } },
    ...words, ...(key ? [" ", el("kbd", {}, key.toUpperCase())] : []));
}

function queueButtons() {
  const labels = data.meta.labels.map((label, number) =>
    queueButton(`label-${number}`, number < 9 ? String(number + 1) : "", () => queueDecide(label), [bdi(label)]));
  return el("div", { class: "review-buttons" }, ...labels,
    queueButton("unsure", "u", () => queueDecide("unsure"), [t("queue.unsure")]),
    queueButton("skip", "s", queueSkip, [t("queue.skip")]),
    queueButton("undo", "z", queueUndo, [t("queue.undo")]),
    queueButton("settle", "", () => queueDo(async () => {
      queue.isSettling = !queue.isSettling;
      await queueFill();
    }), [t("queue.settle")]),
    queueButton("stop", "", queueStop, [t("queue.stop")]));
}

function queueOnKey(event) {
  const key = event.defaultPrevented || !queue.who ? "" : plainKey(event);
  const label = /^[1-9]$/.test(key) ? data.meta.labels[Number(key) - 1] : undefined;
  if (label !== undefined) queueDecide(label);
  if (QUEUE_KEYS[key] === "unsure") queueDecide("unsure");
  if (QUEUE_KEYS[key] === "skip") queueSkip();
  if (QUEUE_KEYS[key] === "undo") queueUndo();
}

function queueNameForm() {
  const input = el("input", { type: "text", name: "who", required: true, maxlength: "100", autocomplete: "off", dir: "auto", value: data.meta.reviewer });
  const submit = (event) => {
    event.preventDefault();
    if (!event.target.reportValidity()) return;
    queue.who = input.value.trim();
    queueDo(queueFill);
  };
  return el("form", { class: "review-name", on: { submit } },
    el("label", {}, t("queue.name"), " ", input), " ", el("button", { type: "submit", class: "primary" }, t("queue.begin")));
}

function queueCounts() {
  const place = document.getElementById("queue-counts");
  if (!place || !queue.counts) return;
  const { stage, decided, left, found, twice, disputed, unblurred } = queue.counts;
  const words = [t(`queue.${stage}`), t("queue.counts", { decided: count(decided), left: count(left), found: count(found) })];
  if (twice) words.push(t("queue.twice", { count: count(twice) }));
  if (disputed) words.push(t("queue.disputed", { count: count(disputed) }));
  words.push(t("queue.unblurred", { name: queue.who, count: count(unblurred) }));
  place.textContent = words.join(" ");
}

function queueShow() {
  const stage = document.getElementById("queue-stage");
  if (!stage) return;
  document.getElementById("queue-form").hidden = Boolean(queue.who);
  stage.hidden = !queue.who;
  if (!queue.who || !queue.counts) return;
  queueCounts();
  const [item] = queue.items;
  for (const button of stage.querySelectorAll("button[data-action]")) {
    const name = button.dataset.action;
    if (name.startsWith("label") || name === "unsure" || name === "skip") button.disabled = !item;
    if (name === "undo") button.disabled = queue.past.length === 0;
    if (name === "stop") button.hidden = queue.counts.stage !== "queue";
    if (name === "settle") button.hidden = !queue.counts.disputed && !queue.isSettling;
  }
  const place = document.getElementById("queue-image");
  if (!item) {
    place.replaceChildren(el("p", {}, t("queue.empty")));
    return;
  }
  const words = [t(`queue.part_${item.part}`, { position: item.position ? count(item.position) : "" })];
  if (item.images > 1) words.push(t("queue.group", { count: count(item.images) }));
  place.replaceChildren(careImage(data.place(item.image), { size: QUEUE_SIZE, alt: item.id }),
    el("p", {}, bdi(item.id)), el("p", { class: "queue-words" }, words.join(" ")));
}

document.addEventListener("keydown", (event) => {
  // V shows the one image there is, wherever the focus is.
  const frame = plainKey(event) === "v" && !careFocus() ? document.querySelector("#queue-image .care") : null;
  if (frame) careToggle(frame);
  queueOnKey(event);
});

part({
  name: "queue",
  mount(section) {
    section.append(
      el("div", { id: "queue-form" }, el("p", {}, t("queue.why", { positive: data.meta.labels[data.meta.positive] })), queueNameForm()),
      el("div", { id: "queue-stage", hidden: true },
        el("p", { id: "queue-counts", role: "status" }), queueButtons(), el("div", { id: "queue-image" })));
    store.on(["care"], queueTell);
    queueShow();
  },
});
