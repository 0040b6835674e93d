"use strict";
/* What the review looks like: its settings, buttons for all keys, and the bar under one image. */

function reviewButton(action, key, act, words, argument) {
  return el("button", {
    type: "button", "data-action": action, "aria-keyshortcuts": key || null,
    on: { click: () => act(action, argument) },
  }, ...words, ...(key ? [" ", el("kbd", {}, key === "Escape" ? "Esc" : key.toUpperCase())] : []));
}

/** Make the buttons of actions by their names, with one for each label. */
function reviewButtons(actions, act) {
  const keys = Object.fromEntries(Object.entries(REVIEW_KEYS).map(([key, action]) => [action, key]));
  const buttons = actions.map((action) => reviewButton(action, keys[action], act, [t(`review.${action}`)]));
  const labels = data.meta.labels.map((label, number) => {
    const key = number < 10 ? String((number + 1) % 10) : "";
    return reviewButton("label", key, act, [bdi(label)], number);
  });
  return el("div", { class: "review-buttons" },
    buttons[0],
    el("span", { class: "review-labels", role: "group", "aria-label": t("review.change") },
      el("span", { class: "review-change" }, t("review.change")), ...labels),
    ...buttons.slice(1));
}

/** Ask for the name of the reviewer, which goes into corrections.csv, and keep it. */
function reviewNameForm(whenGiven) {
  const input = el("input", {
    type: "text", name: "who", required: true, maxlength: String(NAME_LENGTH), autocomplete: "off", dir: "auto",
    value: store.get("who"),
  });
  const submit = (event) => {
    event.preventDefault();
    const who = plainName(input.value);
    input.setCustomValidity(who === "" ? t("review.name_empty") : "");
    if (!event.target.reportValidity()) return;
    remember("who", who);
    store.set({ who });
    whenGiven();
  };
  input.addEventListener("input", () => input.setCustomValidity(""));
  return el("form", { class: "review-name", novalidate: true, on: { submit } },
    el("label", {}, t("review.name"), " ", input), " ", el("button", { type: "submit" }, t("review.begin")));
}

function reviewCheck(name, whenChanged, isChecked) {
  const box = el("input", {
    type: "checkbox", name, checked: isChecked || null, autocomplete: "off",
    on: { change: () => whenChanged(box.checked) },
  });
  return el("label", {}, box, " ", t(`review.set_${name}`));
}

function reviewSettings() {
  const rebuild = (name) => (value) => {
    review[name] = value;
    reviewBuild();
  };
  const from = ["suspicion", "selection"].map((name) => el("label", {}, el("input", {
    type: "radio", name: "from", value: name, checked: review.from === name || null, autocomplete: "off",
    on: { change: () => rebuild("from")(name) },
  }), " ", t(`review.from_${name}`)));
  const keys = (value) => {
    store.set({ keys: value });
    remember("keys", value);
  };
  const form = el("form", { class: "review-settings", on: { submit: (event) => event.preventDefault() } },
    el("fieldset", {}, el("legend", {}, t("review.order")), ...from,
      ...["others", "again", "together"].map((name) => reviewCheck(name, rebuild(name), review[name]))),
    el("fieldset", {}, el("legend", {}, t("review.way")),
      reviewCheck("lead", (value) => value !== review.lead && reviewAct("lead"), review.lead),
      reviewCheck("keys", keys, store.get("keys") !== false)));
  return el("details", { class: "review-settings-all", open: !store.get("who") }, el("summary", {}, t("review.settings")), form);
}

function reviewKeyList() {
  const others = { v: "review.view", b: "care.page" };
  const keys = Object.entries(REVIEW_KEYS).map(([key, action]) => [key, `review.${action}`]);
  const rows = [...keys.filter(([key]) => key !== "v"), ["1 – 9, 0", "review.key_labels"], ...Object.entries(others)];
  return el("details", { class: "review-keys" }, el("summary", {}, t("review.keys")),
    el("table", {}, el("tbody", {}, ...rows.map(([key, words]) => el("tr", {},
      el("th", { scope: "row" }, el("kbd", {}, key === "Escape" ? "Esc" : key.toUpperCase())), el("td", {}, t(words)))))));
}

/** Say what was decided, and by whom. */
function reviewDecision({ decision, label, who }) {
  return [t("review.before"), " ", t(`review.was_${decision}`), " · ", bdi(label || t("review.none")), " · ", bdi(who)];
}

/**
 * Make the buttons that decide one image, for the dialog that shows it; they have the same keys there.
 * @param {number} position
 * @returns {HTMLElement}
 */
function reviewBar(position) {
  const past = [];
  const news = el("p", { class: "review-bar-news", "aria-live": "polite" });
  const form = reviewNameForm(() => update());
  const group = el("label", { class: "review-bar-group", hidden: true });
  let positions = [position];
  const act = async (name, argument) => {
    if (!store.get("who")) {
      form.querySelector("input").focus();
      return;
    }
    const step = past.length > 0 && name === "undo" ? past.pop() : null;
    if (step) undoDecision(step);
    else if (name !== "undo") {
      const isAll = group.querySelector("input")?.checked ?? false;
      past.push(await decide(isAll ? positions : [position], name === "label" ? argument : name));
    }
    return update();
  };
  const tryAct = (...asked) => act(...asked).catch((error) => { news.textContent = error.message; });
  const buttons = reviewButtons(["keep", "unsure", "undo"], tryAct);
  const update = async () => {
    form.hidden = Boolean(store.get("who"));
    buttons.querySelector("[data-action=undo]").disabled = past.length === 0;
    const [row] = await data.rows([position]);
    const decided = store.get("corrections").get(row.id);
    news.replaceChildren(...(decided ? reviewDecision(decided) : []));
  };
  const bar = el("div", { class: "review-bar", role: "group", "aria-label": t("review.title") }, form, buttons, group, news);
  reviewBars.set(bar, tryAct);
  Promise.all([data.column("label"), data.column("group")]).then(([label, groups]) => {
    [positions] = reviewSteps([position], { label, group: groups }, true);
    group.hidden = positions.length < 2;
    group.append(el("input", { type: "checkbox", checked: positions.length > 1 || null, autocomplete: "off" }), " ",
      t("review.bar_group", { count: count(positions.length - 1) }));
  });
  update();
  return bar;
}

document.addEventListener("keydown", reviewOnKey);

/** Make the button of the gallery that reviews what it shows. */
function reviewChoice() {
  const button = el("button", { type: "button", on: { click: reviewSelection } }, t("review.selection"));
  return { box: button, update: () => { button.disabled = store.get("shown").length === 0; } };
}

part({
  name: "review",
  tab: true,
  mount(section) {
    const begin = () => {
      place.settings.open = false;
      reviewShow();
      place.stage.focus();
    };
    const change = () => {
      store.set({ who: "" });
      reviewShow().then(() => place.name.querySelector("input").focus());
    };
    const place = review.place = {
      settings: reviewSettings(),
      name: reviewNameForm(begin),
      who: el("span"),
      reviewer: el("p", { class: "review-reviewer" }),
      bar: el("progress", { "aria-label": t("review.progress") }),
      progress: el("span", { class: "review-progress", role: "status" }),
      stage: el("div", { class: "review-stage", tabindex: "-1", role: "region", "aria-label": t("review.stage") }),
      controls: reviewButtons(["keep", "unsure", "skip", "undo", "view", "split", "lead", "keys", "stop"], reviewAct),
      news: el("p", { class: "review-news", "aria-live": "polite" }),
      keys: reviewKeyList(),
    };
    place.reviewer.append(place.who, " ", el("button", { type: "button", on: { click: change } }, t("review.other_name")));
    section.append(el("h2", {}, t("review.title")), place.settings, place.name,
      el("div", { class: "review-state" }, place.bar, " ", place.progress, place.reviewer),
      place.stage, el("div", { class: "review-below" }, place.news, place.controls), place.keys);
    store.on(["tab", "shown", "system"], reviewRefresh);
    if (review.built) reviewShow();
    else correctionsLoaded.then(reviewBuild);
  },
});
