/** The leaderboard with its intervals drawn, and the differences from the first. */
"use strict";

const leaderboard = (() => {
  /** Put elements into the {places} of a sentence. */
  function phrase(key, elements = {}) {
    return t(key).split(/\{(\w+)\}/).map((piece, at) => (at % 2 ? elements[piece] : piece));
  }

  /** Write a figure so that it reads from left to right in every language. */
  function figure(text) {
    return el("span", { dir: "ltr", class: "figure" }, text);
  }

  /** Write an interval. */
  function interval(low, high, digits = 3) {
    if (low === null || low === undefined || Number.isNaN(low)) return figure("–");
    return el("span", { dir: "ltr", class: "figure soft" }, `[${number(low, digits)}, ${number(high, digits)}]`);
  }

  /** Write words that the command line made, which are English. */
  function english(text) {
    return el("bdi", { lang: "en", dir: "ltr" }, text);
  }

  /** Name the rule of a threshold in the language of the page: "recall 0.95". */
  function ruleName(rule) {
    const [name, value] = rule.split(" ");
    const key = `results.rule_${name}`;
    return key in STRINGS ? t(key, { value: value ?? "" }) : english(rule);
  }

  /** Name what a system looks at: embeddings by their names, or other systems by their count. */
  function featuresName(features) {
    const [, members] = /^(\d+) systems?$/.exec(features) ?? [];
    return members ? t("results.members", { count: members }) : bdi(features);
  }

  /** Keep words apart from the direction of the sentence around them, where no element can. */
  function isolated(text) {
    return `\u2068${text}\u2069`;
  }

  /**
   * Choose the ends of a scale that shows all values; what lies far off, as the majority may, would
   * press the rest together and is left out.
   */
  function scaleOf(values, distant) {
    const known = values.filter((value) => value !== null && Number.isFinite(value));
    let [low, high] = [Math.min(...known), Math.max(...known)];
    if (distant !== null && distant < low && low - distant <= 2 * (high - low)) low = distant;
    if (distant !== null && distant > high && distant - high <= 2 * (high - low)) high = distant;
    const edge = Math.max(0.005, (high - low) * 0.06);
    return { low: low - edge, high: high + edge };
  }

  const isInside = (scale, value) => value > scale.low && value < scale.high;

  /** Make the table of systems; `choose(number)` is called when a row is chosen. */
  function systemsTable({ systems, board }, choose) {
    const { majority, selection } = board;
    const values = [...systems, ...(selection ? [selection] : [])].flatMap(({ macro_f1: f1, low, high, optimistic }) => [f1, low, high, optimistic]);
    const scale = scaleOf(values, majority.macro_f1);
    const rules = isInside(scale, majority.macro_f1) ? [{ value: majority.macro_f1, name: "majority" }] : [];
    const head = el("tr", {},
      el("th", { scope: "col" }, t("results.system")),
      el("th", { scope: "col", class: "plot" }, charts.stripAxis(scale, t("results.macro_f1_axis"))),
      el("th", { scope: "col", class: "number" }, t("results.macro_f1_interval")),
      el("th", { scope: "col", class: "number wide" }, t("results.optimistic")),
      el("th", { scope: "col", class: "number wide" }, t("results.accuracy")),
      el("th", { scope: "col", class: "number wide" }, t("results.threshold")));
    const rows = systems.map((system, at) => systemRow(system, system.name === board.best, scale, rules, () => choose(at)));
    return el("table", { class: "board" },
      el("caption", {}, legend(rules.length > 0)),
      el("thead", {}, head),
      el("tbody", {}, rows, selection && selectionRow(selection, scale, rules), majorityRow(majority, scale, rules)));
  }

  /** Explain the marks. */
  function legend(hasMajority) {
    const mark = (...shapes) => svg("svg", { class: "mark", width: 26, height: 14, "aria-hidden": "true" }, ...shapes);
    const entry = (shapes, key) => el("span", {}, mark(...shapes), t(key));
    return el("span", { class: "legend" },
      entry([svg("line", { class: "interval", x1: 1, x2: 25, y1: 7, y2: 7 }), svg("circle", { class: "dot", cx: 13, cy: 7, r: 4.5 })], "results.legend_nested"),
      entry([svg("circle", { class: "hollow", cx: 13, cy: 7, r: 4.5 })], "results.legend_optimistic"),
      hasMajority && entry([svg("line", { class: "rule majority", x1: 13, x2: 13, y1: 0, y2: 14 })], "results.legend_majority"));
  }

  function plot(line, scale, rules) {
    const said = t("results.strip", { value: number(line.macro_f1), low: number(line.low), high: number(line.high), optimistic: number(line.optimistic) });
    return el("td", { class: "plot" }, charts.strip(scale, { ...line, value: line.macro_f1 }, rules, said));
  }

  function scoreCells(line) {
    return [
      el("td", { class: "number" }, figure(number(line.macro_f1)), " ", interval(line.low, line.high),
        el("span", { class: "soft narrow" }, t("results.optimistic"), " ", figure(number(line.optimistic)))),
      el("td", { class: "number wide" }, figure(number(line.optimistic))),
      el("td", { class: "number wide" }, figure(number(line.accuracy))),
    ];
  }

  function systemRow(system, isBest, scale, rules, choose) {
    return el("tr", { class: "system", on: { click: choose } },
      el("th", { scope: "row" },
        el("button", { type: "button", class: "name", "aria-pressed": "false" }, bdi(system.name)),
        isBest && el("span", { class: "tag" }, t("results.recommended")),
        el("span", { class: "features" }, featuresName(system.features))),
      plot(system, scale, rules),
      ...scoreCells(system),
      el("td", { class: "number wide" }, figure(number(system.threshold)), system.threshold_rule && el("span", { class: "features" }, ruleName(system.threshold_rule))));
  }

  function selectionRow(selection, scale, rules) {
    return el("tr", { class: "selection" },
      el("th", { scope: "row" }, t("results.selection"), el("span", { class: "features" }, t("results.selection_note"))),
      plot(selection, scale, rules), ...scoreCells(selection), el("td", { class: "number wide" }, "–"));
  }

  function majorityRow({ label, macro_f1: f1, accuracy }, scale, rules) {
    // Off the scale, it is where the arrow points.
    const mark = rules.length ? charts.strip(scale, {}, rules, t("results.majority")) : el("span", { class: "soft off", dir: "ltr" }, f1 < scale.low ? `◂ ${number(f1)}` : `${number(f1)} ▸`);
    return el("tr", { class: "selection" },
      el("th", { scope: "row" }, t("results.majority"), el("span", { class: "features" }, phrase("results.majority_note", { label: bdi(label) }))),
      el("td", { class: f1 > scale.high ? "plot far" : "plot" }, mark),
      el("td", { class: "number" }, figure(number(f1))),
      el("td", { class: "number wide" }, "–"),
      el("td", { class: "number wide" }, figure(number(accuracy))),
      el("td", { class: "number wide" }, "–"));
  }

  /** Mark the row of the chosen system. */
  function mark(table, chosen) {
    table.querySelectorAll("tr.system").forEach((row, at) => {
      row.classList.toggle("chosen", at === chosen);
      row.querySelector("button.name").setAttribute("aria-pressed", at === chosen);
    });
  }

  /** Say which system is recommended and why, on what the intervals rest, and every warning. */
  function notes({ board, systems }) {
    const best = board.best === null ? t("results.recommended_none") : phrase("results.recommended_is", { system: bdi(board.best) });
    return el("div", { class: "notes" },
      systems.length > 0 && el("p", {}, best, board.reason && [" ", english(`(${board.reason})`)]),
      el("p", { class: "soft" }, t("results.groups", { groups: count(board.groups) })),
      board.warnings.map((warning) => el("p", { class: "note", lang: "en", dir: "ltr" }, warning)));
  }

  /** Make the table of paired differences; null where there is no second system. */
  function differencesTable({ systems }) {
    const compared = systems.filter(({ difference }) => difference);
    if (!compared.length) return null;
    const scale = scaleOf([0, ...compared.flatMap(({ difference: d }) => [d.macro_f1, d.low, d.high])], null);
    return el("section", {},
      el("h2", {}, t("results.differences")),
      el("p", { class: "soft" }, phrase("results.differences_note", { system: bdi(compared[0].difference.against) })),
      el("table", { class: "board" },
        el("thead", {}, el("tr", {},
          el("th", { scope: "col" }, t("results.system")),
          el("th", { scope: "col", class: "plot" }, charts.stripAxis(scale, t("results.difference_axis"))),
          el("th", { scope: "col", class: "number" }, t("results.difference")),
          el("th", { scope: "col", class: "wide" }, t("results.reading")))),
        el("tbody", {}, compared.map((system) => differenceRow(system, scale)))));
  }

  function differenceRow({ name, difference }, scale) {
    const { macro_f1: value, low, high } = difference;
    const reading = low <= 0 && high >= 0 ? "results.alike" : value < 0 ? "results.worse" : "results.better";
    const said = t("results.difference_strip", { value: number(value), low: number(low), high: number(high) });
    return el("tr", {},
      el("th", { scope: "row" }, bdi(name)),
      el("td", { class: "plot" }, charts.strip(scale, { value, low, high }, [{ value: 0, name: "zero" }], said)),
      el("td", { class: "number" }, figure(number(value)), " ", interval(low, high)),
      el("td", { class: "wide" }, t(reading)));
  }

  /** List what this set of runs lacks, with the commands that make it; null where nothing is. */
  function missingList({ missing }) {
    if (!missing.length) return null;
    return el("section", { class: "missing" },
      el("h2", {}, t("results.missing")),
      el("ul", {}, missing.map(({ what, command }) => el("li", {}, english(what), command && commandLine(command)))));
  }

  /** Show a command with a button that copies it; where the browser refuses, it is selected. */
  function commandLine(command) {
    const words = el("code", {}, command);
    const select = () => getSelection().selectAllChildren(words);
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(command);
        announce(t("results.copied"));
      } catch {
        select();
      }
    };
    return el("span", { class: "command" }, words, el("button", { type: "button", on: { click: copy } }, t("results.copy")));
  }

  return { phrase, figure, interval, english, isolated, scaleOf, systemsTable, differencesTable, missingList, notes, mark };
})();
