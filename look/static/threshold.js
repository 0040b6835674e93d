/** The threshold of a system: a slider that moves every figure, the confusion matrix and the gallery. */
"use strict";

const thresholdPanel = (() => {
  const { phrase, figure, interval, isolated } = leaderboard;
  const OF_ALL = ["macro_f1", "accuracy", "balanced_accuracy"];
  const OF_LABEL = ["precision", "recall", "specificity", "f1"];
  const BINS = 40;
  const INSET = { left: 54, right: 16 };
  // What the keys of the slider do to it.
  const STEPS = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1, Home: -1, End: 1 };

  /**
   * Make the panel of a model (see results.js): its element, and `show(threshold)`, which moves it.
   * A threshold of NaN stands for the system's own answers.
   */
  function make(model) {
    const pieces = [histogram(model), control(model), aims(model), figuresTable(model), matrixTable(model), review(model)];
    const show = (threshold) => {
      const state = stateAt(model, threshold);
      for (const piece of pieces) piece.show(state);
    };
    const [scores, slider, wishes, table, matrix, load] = pieces.map((piece) => piece.node);
    const rest = model.binary ? `var(${markOf(1 - model.target).colour})` : "var(--soft)";
    const node = el("section", { class: "threshold", style: { "--class": `var(${markOf(model.target).colour})`, "--rest": rest } },
      el("h3", {}, t("results.threshold_heading")),
      el("p", {}, model.binary ? phrase("results.threshold_note", { label: bdi(model.name) }) : phrase("results.threshold_one", { label: bdi(model.name) })),
      model.binary && model.system.threshold === null && el("p", { class: "note" }, t("results.threshold_none")),
      scores, slider, numbers(model), load, wishes,
      el("div", { class: "pair" }, table, matrix));
    return { node, show };
  }

  /** Compute all that the panel shows at a threshold. */
  function stateAt(model, threshold) {
    const moved = Number.isFinite(threshold);
    const at = moved ? threshold : 0.5;
    const counts = moved || !model.binary ? figures.countsAt(model.ranking, at) : figures.countsOf(model.matrix, model.target);
    return {
      at, moved, counts,
      rates: figures.ratesOf(counts),
      matrix: model.binary ? figures.matrixOf(counts, model.target) : model.matrix,
      review: figures.reviewAt(model.ranking, at),
    };
  }

  /** Draw the scores of the label upwards and those of the others downwards, and the threshold through both. */
  function histogram(model) {
    let move = () => {};
    let last = null;
    const place = charts.fitted((width) => {
      const drawn = drawHistogram(model, width);
      move = drawn.move;
      if (last) move(last);
      return drawn.node;
    });
    const node = el("figure", { class: "wide-chart" },
      el("figcaption", {}, t("results.scores"),
        el("span", { class: "legend" },
          el("span", {}, el("span", { class: "swatch positive", "aria-hidden": "true" }, markOf(model.target).sign), bdi(model.name)),
          el("span", {}, el("span", { class: "swatch negative", "aria-hidden": "true" }, model.binary ? markOf(1 - model.target).sign : "–"), model.others()))),
      place);
    return { node, show: (state) => { last = state; move(state); } };
  }

  /** Give the numbers of the histogram, those of the rows to predict too. */
  function numbers(model) {
    const { positive, negative, predict } = model.bins;
    const rows = () => positive.map((hits, bin) => [`${number(bin / BINS)} – ${number((bin + 1) / BINS)}`, count(hits), count(negative[bin]), count(predict[bin])]);
    return charts.table([t("results.score"), bdi(model.name), model.others(), t("results.to_predict")], rows);
  }

  function drawHistogram(model, width) {
    const { positive, negative } = model.bins;
    const shares = (counts) => counts.map((value) => value / Math.max(1, counts.reduce((sum, x) => sum + x, 0)));
    const [up, down] = [shares(positive), shares(negative)];
    const most = Math.max(0.01, ...up, ...down) * 1.08;
    const on = charts.plane({
      title: t("results.scores"), description: t("results.scores_about"), width, height: 220, inset: INSET,
      x: charts.axis(0, 1, { label: t("results.score_of", { label: isolated(short(model.name)) }), ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], format: (value) => number(value, 1) }),
      y: charts.axis(-most, most, { most: 4, format: (value) => percent(Math.abs(value), 0) }),
    });
    const region = svg("rect", { class: "region", y: on.y(most), height: on.y(-most) - on.y(most) });
    const mark = svg("line", { class: "mark", y1: on.y(most), y2: on.y(-most) });
    const bars = (values, name, sign) => values.map((value, bin) => value > 0 && charts.bar(on, [bin / BINS, (bin + 1) / BINS], [0, sign * value], { class: `bar ${name}` }));
    on.draw(region, bars(up, "positive", 1), bars(down, "negative", -1), mark,
      svg("line", { class: "zero", x1: on.x(0), x2: on.x(1), y1: on.y(0), y2: on.y(0) }));
    const move = ({ at }) => {
      const x = on.x(Math.min(1, Math.max(0, at)));
      mark.setAttribute("x1", x);
      mark.setAttribute("x2", x);
      region.setAttribute("x", x);
      region.setAttribute("width", on.x(1) - x);
    };
    return { node: on.node, move };
  }

  function short(text) {
    const letters = Array.from(text);
    return letters.length > 24 ? `${letters.slice(0, 23).join("")}…` : text;
  }

  /** Make the slider, the number beside it, and the way back; one change a frame reaches the page. */
  function control(model) {
    let wanted = null;
    let current = 0.5;
    const set = (value) => {
      if (!Number.isFinite(value)) return;
      if (wanted === null) requestAnimationFrame(() => {
        const threshold = wanted;
        wanted = null;
        store.set({ threshold });
      });
      wanted = Math.min(1, Math.max(0, value));
    };
    const keys = (event) => {
      if (!(event.key in STEPS) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const step = STEPS[event.key] * (event.shiftKey && Math.abs(STEPS[event.key]) < 0.1 ? 0.1 : 1);
      set(Number(((wanted ?? current) + step).toFixed(6)));
    };
    const range = el("input", { type: "range", min: 0, max: 1, step: "any", dir: "ltr", "aria-label": t("results.threshold"), on: { input: () => set(range.valueAsNumber), keydown: keys } });
    const exact = el("input", { type: "number", id: "threshold-number", min: 0, max: 1, step: 0.001, dir: "ltr", on: { input: () => set(exact.valueAsNumber), blur: () => write() } });
    const write = () => { exact.value = String(Number(current.toFixed(4))); };
    const stored = model.system.threshold;
    const reset = el("button", { type: "button", class: "reset", on: { click: () => store.set({ threshold: stored ?? NaN }) } },
      stored === null ? t(model.binary ? "results.reset_none" : "results.reset_half") : [t("results.reset"), " ", figure(number(stored))]);
    const show = ({ at, moved, rates }) => {
      current = at;
      range.value = String(at);
      const shown = model.binary ? "macro_f1" : "f1";
      range.setAttribute("aria-valuetext", `${number(at)}, ${t(`results.${shown}`)} ${number(rates[shown])}`);
      if (document.activeElement !== exact) write();
      reset.disabled = stored === null ? !moved : at === stored;
    };
    const node = el("div", { class: "control" },
      el("div", { class: "track", dir: "ltr" }, range),
      el("div", { class: "beside" }, el("label", { for: "threshold-number" }, t("results.threshold")), exact, reset,
        el("span", { class: "soft keys" }, t("results.keys"))));
    return { node, show };
  }

  /** List the settings that put a recall or a precision first, with what can be expected of them. */
  function aims(model) {
    const list = (model.binary ? model.system.aims : null) ?? [];
    if (!list.length) return { node: null, show: () => {} };
    const buttons = list.map((aim) => el("button", { type: "button", "aria-pressed": "false", on: { click: () => store.set({ threshold: aim.threshold }) } }, aimName(aim)));
    const head = ["results.aim", "results.threshold", "results.nested_recall", "results.nested_precision", "results.to_review"];
    const node = el("div", { class: "scroll aims" }, el("table", {},
      el("caption", {}, phrase("results.aims_note", { label: bdi(model.name) })),
      el("thead", {}, el("tr", {}, head.map((key, at) => el("th", { scope: "col", class: at ? (at === 1 ? "number wide" : "number") : null }, t(key))))),
      el("tbody", {}, list.map((aim, at) => el("tr", {},
        el("th", { scope: "row" }, buttons[at]),
        el("td", { class: "number wide" }, figure(number(aim.threshold))),
        el("td", { class: "number" }, figure(number(aim.recall)), " ", interval(aim.low, aim.high)),
        el("td", { class: "number" }, figure(number(aim.precision))),
        el("td", { class: "number" }, figure(count(aim.review))))))));
    const show = ({ at }) => buttons.forEach((button, place) => button.setAttribute("aria-pressed", at === list[place].threshold));
    return { node, show };
  }

  /** Name a setting in the language of the page: "recall 0.95". */
  function aimName({ rule }) {
    const [name, value] = rule.split(" ");
    return ["recall", "precision"].includes(name) ? t(`results.aim_${name}`, { value: number(Number(value), 2) }) : rule;
  }

  /** Make the table of figures: at the slider, where they are optimistic, beside the nested ones, which stay. */
  function figuresTable(model) {
    const { system } = model;
    const nested = { macro_f1: [figure(number(system.macro_f1)), " ", interval(system.low, system.high)], accuracy: figure(number(system.accuracy)) };
    const names = model.binary ? [...OF_ALL, ...OF_LABEL] : OF_LABEL;
    const cells = Object.fromEntries(names.map((name) => [name, figure("")]));
    const aimed = { recall: el("span", {}), precision: el("span", {}) };
    const row = (name) => el("tr", {},
      el("th", { scope: "row" }, t(`results.${name}`), OF_LABEL.includes(name) && el("span", { class: "of" }, bdi(model.name))),
      el("td", { class: "number now" }, cells[name]),
      model.binary && el("td", { class: "number" }, nested[name] ?? aimed[name] ?? "–"));
    const node = el("div", { class: "figures" },
      el("table", {},
        el("thead", {}, el("tr", {},
          el("th", { scope: "col" }, t("results.figure")),
          el("th", { scope: "col", class: "number" }, t("results.here")),
          model.binary && el("th", { scope: "col", class: "number" }, t("results.nested")))),
        el("tbody", {}, names.map(row))),
      el("p", { class: "soft" }, t(model.binary ? "results.figures_note" : "results.figures_one")));
    const show = ({ at, rates }) => {
      for (const name of names) cells[name].textContent = number(rates[name]);
      const aim = model.binary && system.aims?.find(({ threshold }) => threshold === at);
      aimed.recall.replaceChildren(...(aim ? [figure(number(aim.recall)), " ", interval(aim.low, aim.high)] : ["–"]));
      aimed.precision.replaceChildren(aim ? figure(number(aim.precision)) : "–");
    };
    return { node, show };
  }

  /** Make the confusion matrix: every cell opens its images. */
  function matrixTable(model) {
    const { labels, binary, target } = model;
    const open = (truth, answer) => {
      listOnly({ label: [truth], answer: [answer] });
      store.set({ tab: "images" });
      document.getElementById("tab-images")?.focus();
    };
    const cells = labels.map((_, truth) => labels.map((__, answer) => {
      const parts = { number: el("span", { class: "count" }), share: el("span", { class: "share" }) };
      const kind = truth === answer ? "right" : "wrong";
      const word = binary && t(`results.${cellName(truth === target, answer === target)}`);
      const button = el("button", { type: "button", class: `cell ${kind}`, on: { click: () => open(truth, answer) } },
        parts.number, parts.share, word && el("span", { class: "word" }, word));
      return { ...parts, button };
    }));
    const name = (label) => bdi(label);
    const node = el("div", { class: "matrix" },
      el("div", { class: "scroll" }, el("table", {},
        el("caption", {}, t("results.matrix")),
        el("thead", {},
          el("tr", {}, el("td", {}), el("th", { scope: "colgroup", colspan: labels.length, class: "over" }, t("results.answer"))),
          el("tr", {}, el("th", { scope: "col" }, t("results.label")), labels.map((label) => el("th", { scope: "col", title: label }, name(label))))),
        el("tbody", {}, labels.map((label, truth) => el("tr", {},
          el("th", { scope: "row", title: label }, name(label)),
          cells[truth].map(({ button }) => el("td", {}, button))))))),
      el("p", { class: "soft" }, t(binary ? "results.matrix_note" : "results.matrix_several")));
    const show = ({ matrix }) => matrix.forEach((row, truth) => {
      const sum = row.reduce((total, value) => total + value, 0);
      row.forEach((value, answer) => showCell(cells[truth][answer], value, sum, labels[truth], labels[answer]));
    });
    return { node, show };
  }

  function showCell({ number: place, share, button }, value, sum, truth, answer) {
    place.textContent = count(value);
    share.textContent = sum ? percent(value / sum, 0) : "–";
    button.style.setProperty("--share", sum ? (value / sum).toFixed(3) : "0");
    button.setAttribute("aria-label", t("results.open_cell", { count: count(value), label: isolated(short(truth)), answer: isolated(short(answer)) }));
  }

  function cellName(isPositive, isDecided) {
    if (isPositive) return isDecided ? "hit" : "miss";
    return isDecided ? "false_alarm" : "rejection";
  }

  /** Say how many images a person would have to look through above the threshold. */
  function review(model) {
    const node = el("p", { class: "review", "aria-live": "off" });
    const share = (part, whole) => el("span", {}, figure(count(part)), " ", t("results.of"), " ", figure(count(whole)));
    const show = ({ review: load }) => node.replaceChildren(
      ...phrase("results.review", { predict: el("strong", {}, share(load.predict, load.ofPredict)), labelled: el("strong", {}, share(load.labelled, load.ofLabelled)) }),
      ...(load.unscored ? [" ", t("results.review_unscored", { count: count(load.unscored) })] : []));
    return { node, show };
  }

  return { make };
})();
