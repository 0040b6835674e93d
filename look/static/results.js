/** The results tab: leaderboard, differences, a chosen system with its curves and threshold, learning curves. */
"use strict";

part({ name: "results", mount: (section) => results.mount(section) });

const results = (() => {
  const { phrase, figure, interval, isolated } = leaderboard;
  const models = new Map();

  /** Build the tab: it shows what there is, and says what is missing. */
  function mount(section) {
    const { meta } = data;
    const choose = (system) => {
      store.set({ system, threshold: meta.systems[system].threshold ?? NaN });
      announce(t("results.shown_below", { system: isolated(meta.systems[system].name) }));
    };
    const board = meta.systems.length ? leaderboard.systemsTable(meta, choose) : null;
    const chosen = el("section", { class: "system" });
    section.append(
      el("p", { class: "lead" }, t("results.lead", { labelled: count(meta.labelled), to_predict: count(meta.to_predict) })),
      leaderboard.missingList(meta) ?? "",
      el("section", {}, el("h2", {}, t("results.leaderboard")),
        board ? [el("p", { class: "soft" }, t("results.choose")), board, leaderboard.notes(meta)] : el("p", {}, t(meta.stored ? "results.no_current" : "results.no_systems"))),
      chosen,
      leaderboard.differencesTable(meta) ?? "",
      learningCurves(meta.learning) ?? "");
    if (!board) return;
    const mark = () => leaderboard.mark(board, store.get("system"));
    store.on(["system"], mark);
    mark();
    followSystem(chosen);
  }

  /** Show the chosen system, and move it with the threshold. */
  function followSystem(place) {
    let shown = null;
    let turn = 0;
    const show = async () => {
      turn += 1;
      const mine = turn;
      const [system, target] = [store.get("system"), store.get("positive")];
      if (system < 0) return;
      const model = await modelOf(system, target);
      // Somebody may have chosen another one while its columns were on their way.
      if (mine !== turn) return;
      shown = systemView(model);
      shown.move(store.get("threshold"));
      place.replaceChildren(...shown.nodes);
    };
    store.on(["system", "positive"], show);
    store.on(["threshold"], () => shown?.move(store.get("threshold")));
    show();
  }

  /**
   * Prepare a system's scores of one label: sorted once, so that a step of the slider is quick.
   * The last few are kept, by system and label.
   */
  async function modelOf(number_, target) {
    const key = `${number_} ${target}`;
    if (!models.has(key)) models.set(key, await makeModel(number_, target));
    if (models.size > 4) models.delete(models.keys().next().value);
    return models.get(key);
  }

  async function makeModel(number_, target) {
    const { labels, systems } = data.meta;
    const [p, label, answer] = await Promise.all([data.column(`p:${number_}`), data.column("label"), data.column(`answer:${number_}`)]);
    const ranking = figures.rank(p, label, answer, labels.length, target);
    const binary = labels.length === 2;
    return {
      system: systems[number_], labels, target, binary, ranking, name: labels[target],
      others: () => (binary ? bdi(labels[1 - target]) : t("results.others")),
      matrix: figures.confusion(label, answer, labels.length),
      bins: figures.histogram(ranking),
    };
  }

  /** Make everything about one system; `move(threshold)` moves what depends on the threshold. */
  function systemView(model) {
    const { system } = model;
    const panel = thresholdPanel.make(model);
    const place = el("div", { class: "charts" });
    let drawn = [];
    let last = NaN;
    const nodes = [
      el("h2", {}, phrase("results.about_system", { system: bdi(system.name) })),
      el("p", { class: "headline" }, t("results.nested_macro_f1"), " ", el("strong", {}, figure(number(system.macro_f1))), " ", interval(system.low, system.high),
        " · ", t("results.optimistic"), " ", figure(number(system.optimistic))),
      model.binary ? "" : [labelChoice(model), severalFigures(model)],
      panel.node,
      el("h3", {}, t("results.curves")),
      place,
    ].flat();
    const moveCharts = () => {
      const at = Number.isFinite(last) ? last : 0.5;
      for (const chart of drawn) chart.move?.(figures.ratesOf(figures.countsAt(readable(model.ranking), at)));
    };
    const move = (threshold) => {
      last = threshold;
      panel.show(threshold);
      moveCharts();
    };
    // Curves of a million rows take a second: what can be used already is shown first.
    requestAnimationFrame(() => setTimeout(() => {
      const curves = figures.curves(model.ranking);
      drawn = [precisionChart(model, curves), rocChart(model, curves), calibrationChart(model, figures.calibration(model.ranking))];
      place.append(...drawn.map((chart) => chart.node));
      moveCharts();
    }));
    return { nodes, move };
  }

  /** Leave the rows without a score out, as the curves do. */
  function readable(ranking) {
    return { ...ranking, unreadable: { tp: 0, fp: 0, fn: 0, tn: 0 } };
  }

  /** Choose the label that curves and slider are about, where there are more than two. */
  function labelChoice({ labels, target }) {
    const options = labels.map((label, at) => el("option", { value: at, selected: at === target }, label));
    const choose = (event) => store.set({ positive: Number(event.target.value), threshold: NaN });
    return el("p", { class: "choice" }, el("label", { for: "results-label" }, t("results.label_choice")), " ",
      el("select", { id: "results-label", on: { change: choose } }, options));
  }

  /** Show the figures of the answers themselves, for more than two labels. */
  function severalFigures({ matrix }) {
    const rates = figures.matrixRates(matrix);
    return el("p", {}, t("results.several_figures"), " ", Object.entries(rates).flatMap(([name, value], at) =>
      [at ? " · " : "", t(`results.${name}`), " ", figure(number(value))]));
  }

  /** Make a chart with a point that follows the threshold. */
  function movingChart({ title, note, make, heads, rows, pointOf }) {
    let place = () => {};
    let last = null;
    const holder = charts.fitted((width) => {
      const on = make(width);
      const mark = svg("circle", { class: "now", r: 5 });
      if (pointOf) on.draw(mark);
      place = (rates) => {
        const [x, y] = pointOf(rates);
        mark.setAttribute("cx", on.x(x));
        mark.setAttribute("cy", on.y(y));
      };
      if (last) place(last);
      return on.node;
    }, 420);
    const node = el("figure", {}, el("figcaption", {}, title), holder, note && el("p", { class: "soft" }, note), charts.table(heads, rows));
    const move = pointOf && ((rates) => { last = rates; place(rates); });
    return { node, move };
  }

  /** Write points as rows of a table. */
  function pointRows(points) {
    return () => points.filter((_, at) => at % Math.ceil(points.length / 40) === 0 || at === points.length - 1).map(([x, y]) => [number(x), number(y)]);
  }

  function precisionChart({ name }, curves) {
    const [x, y] = [t("results.recall"), t("results.precision")];
    return movingChart({
      title: t("results.pr"),
      note: [t("results.average_precision"), " ", figure(number(curves.precision))],
      make: (width) => {
        const on = charts.plane({
          title: `${t("results.pr")}, ${isolated(name)}`, description: `${t("results.average_precision")} ${number(curves.precision)}`, width, height: 260,
          x: charts.axis(0, 1, { label: x }), y: charts.axis(0, 1, { label: y }),
        });
        on.draw(charts.stairs(on, curves.pr, { class: "line positive" }));
        return on;
      },
      heads: [x, y], rows: pointRows(curves.pr), pointOf: (rates) => [rates.recall, rates.precision],
    });
  }

  function rocChart({ name }, curves) {
    const [x, y] = [t("results.false_alarms"), t("results.recall")];
    return movingChart({
      title: t("results.roc"),
      note: [t("results.area"), " ", figure(number(curves.area))],
      make: (width) => {
        const on = charts.plane({
          title: `${t("results.roc")}, ${isolated(name)}`, description: `${t("results.area")} ${number(curves.area)}`, width, height: 260,
          x: charts.axis(0, 1, { label: x }), y: charts.axis(0, 1, { label: y }),
        });
        on.draw(charts.line(on, [[0, 0], [1, 1]], { class: "line chance" }), charts.line(on, curves.roc, { class: "line positive" }));
        return on;
      },
      heads: [x, y], rows: pointRows(curves.roc), pointOf: (rates) => [1 - rates.specificity, rates.recall],
    });
  }

  function calibrationChart({ name }, calibration) {
    const most = Math.max(1, ...calibration.map((bin) => bin.count));
    const [x, y] = [t("results.mean_probability"), t("results.share")];
    return movingChart({
      title: t("results.calibration"),
      note: t("results.calibration_note"),
      make: (width) => {
        const on = charts.plane({
          title: `${t("results.calibration")}, ${isolated(name)}`, description: t("results.calibration_note"), width, height: 260,
          x: charts.axis(0, 1, { label: x }), y: charts.axis(0, 1, { label: y }),
        });
        const bars = calibration.map(({ mean, count: rows }) => {
          const left = Math.min(9, Math.floor(mean * 10)) / 10;
          return charts.bar(on, [left + 0.01, left + 0.09], [0, 0.18 * rows / most], { class: "bar count" });
        });
        on.draw(bars);
        // A point's area follows the count of its bin.
        on.draw(charts.line(on, [[0, 0], [1, 1]], { class: "line chance" }), calibration.map(({ mean, share, low, high, count: rows }) => [
          charts.interval(on, mean, low, high),
          charts.dot(on, mean, share, { r: (2.5 + 4 * Math.sqrt(rows / most)).toFixed(1) })]));
        return on;
      },
      heads: [x, y, t("results.images")],
      rows: () => calibration.map(({ mean, share, low, high, count: rows }) => [figure(number(mean)), el("span", {}, figure(number(share)), " ", interval(low, high)), figure(count(rows))]),
    });
  }

  /** Draw the learning curves of fine-tuned systems, a chart for each; null where there are none. */
  function learningCurves(curves) {
    if (!curves?.length) return null;
    const systems = [...new Set(curves.map(({ system }) => system))];
    return el("section", {},
      el("h2", {}, t("results.learning")),
      el("p", { class: "soft" }, t("results.learning_note")),
      systems.map((system) => {
        const own = curves.filter((curve) => curve.system === system);
        return el("div", {}, el("h3", {}, bdi(system)), el("div", { class: "charts" }, ["loss", "macro_f1"].map((name) => learningChart(own, name))));
      }));
  }

  function learningChart(curves, name) {
    const lines = curves
      .map((curve) => ({ ...curve, points: curve.epoch.map((epoch, at) => [epoch, curve[name][at]]).filter(([, value]) => value !== null) }))
      .filter(({ points }) => points.length);
    if (!lines.length) return null;
    const all = lines.flatMap(({ points }) => points);
    const [first, last] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x))];
    const [low, high] = [Math.min(...all.map(([, y]) => y)), Math.max(...all.map(([, y]) => y))];
    const edge = Math.max(0.01, (high - low) * 0.06);
    const title = t(`results.${name}`);
    const make = (width) => {
      const on = charts.plane({
        title: `${title}, ${isolated(curves[0].system)}`, description: t("results.learning_note"), width, height: 240,
        x: charts.axis(first, Math.max(last, first + 1), { label: t("results.epoch"), format: (value) => (Number.isInteger(value) ? count(value) : "") }),
        y: charts.axis(low - edge, high + edge, { label: title }),
      });
      on.draw(lines.map(({ points, part: name_, kept }) => [
        charts.line(on, points, { class: `line part ${name_.startsWith("fold") ? "fold" : "full"}` }),
        points.filter(([epoch]) => epoch === kept).map(([epoch, value]) => charts.dot(on, epoch, value, { class: "dot kept" }))]));
      return on.node;
    };
    return el("figure", {}, el("figcaption", {}, title), charts.fitted(make, 420),
      charts.table([t("results.part"), t("results.epoch"), title], () => lines.flatMap(({ part: name_, points }) => points.map(([epoch, value]) => [bdi(name_), count(epoch), number(value)]))));
  }

  return { mount, modelOf };
})();
