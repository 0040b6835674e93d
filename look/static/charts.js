/** Small charts in SVG: a plane with two axes, and what is drawn on it. Numbers run from left to right in every language. */
"use strict";

const charts = (() => {
  let unique = 0;

  /** Choose round values between two numbers: about `most` of them, and two at least. */
  function ticks(low, high, most = 5) {
    const span = high - low;
    if (!(span > 0)) return [low];
    const power = 10 ** Math.floor(Math.log10(span / most));
    const step = power * [1, 2, 5, 10].find((factor) => span / (power * factor) <= most);
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(k * step + 0);
    return found.length < 2 ? ticks(low, high, most + 1) : found;
  }

  /** Say how many digits tell ticks apart. */
  function digitsOf(values) {
    const step = values.length > 1 ? values[1] - values[0] : 1;
    return Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  }

  /** Make an axis from its ends. `ticks` and `format` are chosen where they are not given. */
  function axis(low, high, options = {}) {
    const marks = options.ticks ?? ticks(low, high, options.most);
    const digits = digitsOf(marks);
    return { low, high, label: options.label ?? "", ticks: marks, format: options.format ?? ((value) => number(value, digits)) };
  }

  /** Make the root of a chart: an image with a name and a description for those who do not see it. */
  function image(width, height, title, description, ...children) {
    unique += 1;
    const [name, about] = [`chart-${unique}-title`, `chart-${unique}-about`];
    return svg("svg", {
      role: "img", class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, "aria-labelledby": name, "aria-describedby": about,
    }, svg("title", { id: name }, title), svg("desc", { id: about }, description), ...children);
  }

  /**
   * Make a chart with two axes. Returns its element, the functions `x` and `y` from values to
   * places, and `draw`, which adds marks to it.
   */
  function plane({ title, description, width, height, x, y, inset = {} }) {
    const edge = { left: 54, right: 12, top: 10, bottom: 42, ...inset };
    const place = (low, high, from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);
    const atX = place(x.low, x.high, edge.left, width - edge.right);
    const atY = place(y.low, y.high, height - edge.bottom, edge.top);
    const [bottom, right] = [height - edge.bottom, width - edge.right];
    const grid = svg("g", { class: "grid" },
      y.ticks.map((value) => svg("line", { x1: edge.left, x2: right, y1: atY(value), y2: atY(value) })));
    const words = svg("g", { class: "axis" },
      svg("line", { x1: edge.left, x2: right, y1: bottom, y2: bottom }),
      x.ticks.map((value) => svg("text", { x: atX(value), y: bottom + 16, "text-anchor": "middle" }, x.format(value))),
      y.ticks.map((value) => svg("text", { x: edge.left - 7, y: atY(value) + 4, "text-anchor": "end" }, y.format(value))),
      svg("text", { class: "name", x: (edge.left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
      y.label && svg("text", { class: "name", x: 11, y: (edge.top + bottom) / 2, "text-anchor": "middle",
        transform: `rotate(-90 11 ${(edge.top + bottom) / 2})` }, y.label));
    const marks = svg("g", {});
    return { node: image(width, height, title, description, grid, words, marks), x: atX, y: atY, draw: (...added) => marks.append(...added.flat(Infinity).filter(Boolean)) };
  }

  /** Draw a line through points [x, y]. */
  function line(on, points, attributes = {}) {
    const path = points.map(([x, y], at) => `${at ? "L" : "M"}${on.x(x).toFixed(1)} ${on.y(y).toFixed(1)}`).join("");
    return svg("path", { class: "line", fill: "none", d: path, ...attributes });
  }

  /** Draw a line that stays at the later value between points, as precision over recall does. */
  function stairs(on, points, attributes = {}) {
    const corners = points.flatMap(([x, y], at) => (at ? [[points[at - 1][0], y], [x, y]] : [[x, y]]));
    return line(on, corners, attributes);
  }

  /** Draw an interval, from one value of y to another. */
  function interval(on, x, low, high, attributes = {}) {
    return svg("line", { class: "interval", x1: on.x(x), x2: on.x(x), y1: on.y(low), y2: on.y(high), ...attributes });
  }

  /** Draw a point. */
  function dot(on, x, y, attributes = {}) {
    return svg("circle", { class: "dot", cx: on.x(x), cy: on.y(y), r: 4, ...attributes });
  }

  /** Draw a bar from one value of y to another, between two values of x. */
  function bar(on, [left, right], [from, to], attributes = {}) {
    const [start, end] = [on.x(left) + 0.5, on.x(right) - 0.5];
    const [top, bottom] = [on.y(from), on.y(to)].sort((a, b) => a - b);
    return svg("rect", { class: "bar", x: start.toFixed(2), width: Math.max(0.5, end - start), y: top, height: bottom - top, ...attributes });
  }

  /**
   * Draw intervals on a line of their own, in per cent of its width so that it fits any cell: `marks`
   * are {low, high, value, optimistic}, `rules` are upright lines.
   */
  function strip(scale, { low, high, value, optimistic }, rules, title) {
    const at = (number_) => `${(100 * Math.min(1, Math.max(0, (number_ - scale.low) / (scale.high - scale.low)))).toFixed(2)}%`;
    const known = (number_) => number_ !== null && number_ !== undefined && Number.isFinite(number_);
    return svg("svg", { role: "img", class: "strip", "aria-label": title },
      rules.map(({ value: rule, name }) => svg("line", { class: `rule ${name}`, x1: at(rule), x2: at(rule), y1: "0", y2: "100%" })),
      known(low) && svg("line", { class: "interval", x1: at(low), x2: at(high), y1: "50%", y2: "50%" }),
      known(optimistic) && svg("circle", { class: "hollow", cx: at(optimistic), cy: "50%", r: 4.5 }),
      known(value) && svg("circle", { class: "dot", cx: at(value), cy: "50%", r: 4.5 }));
  }

  /** Draw the axis above strips of the same scale, with as many numbers as there is room for. */
  function stripAxis(scale, title) {
    return fitted((width) => axisOf(scale, title, width));
  }

  function axisOf(scale, title, width) {
    const all = ticks(scale.low, scale.high, Math.min(6, Math.max(2, Math.floor(width / 48))));
    const digits = digitsOf(all);
    const at = (value) => (100 * (value - scale.low)) / (scale.high - scale.low);
    const apart = ((at(all[1]) - at(all[0])) / 100) * width;
    const marks = all.filter((_, place) => place % Math.ceil(42 / apart) === 0);
    return svg("svg", { class: "strip names", role: "img", "aria-label": title }, marks.filter((value) => at(value) > 3 && at(value) < 97).map((value) =>
      svg("text", { x: `${at(value).toFixed(2)}%`, y: "70%", "text-anchor": "middle" }, number(value, digits))));
  }

  /** Keep a chart as wide as its place: `draw(width)` returns it, and is asked again when the place changes. */
  function fitted(draw, most = Infinity) {
    const place = el("div", { class: "fitted" });
    let [drawn, waiting] = [0, false];
    const redraw = () => {
      waiting = false;
      const width = Math.min(most, Math.floor(place.clientWidth));
      if (width > 0 && width !== drawn) {
        drawn = width;
        place.replaceChildren(draw(width));
      }
    };
    new ResizeObserver(() => {
      if (!waiting) requestAnimationFrame(redraw);
      waiting = true;
    }).observe(place);
    return place;
  }

  /** Make a table of a chart's numbers, which is filled when it is opened. */
  function table(heads, rows) {
    const holder = el("div", { class: "scroll" });
    const fill = () => {
      if (!holder.firstChild) holder.append(el("table", {},
        el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", class: "number" }, head)))),
        el("tbody", {}, rows().map((row) => el("tr", {}, row.map((cell) => el("td", { class: "number" }, cell)))))));
    };
    return el("details", { class: "numbers", on: { toggle: fill } }, el("summary", {}, t("results.as_table")), holder);
  }

  return { axis, ticks, plane, line, stairs, interval, dot, bar, strip, stripAxis, fitted, table };
})();
