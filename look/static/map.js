"use strict";
/* The map of an embedding: one canvas; points open images, an outline drawn around them selects them. */

const SHAPES_MOST = 3000;
const NEAR_PIXELS = 12;
const COLOUR_BY = ["label", "answer", "outcome", "split"];
const ZOOM_STEP = 1.5;

/** Draw the sign of a class, or a ring where there is none. */
const SHAPES = [
  (draw, x, y, r) => { draw.moveTo(x + r, y); draw.arc(x, y, r, 0, 2 * Math.PI); },
  (draw, x, y, r) => polygon(draw, x, y, r * 1.2, 3, -Math.PI / 2),
  (draw, x, y, r) => draw.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8),
  (draw, x, y, r) => polygon(draw, x, y, r * 1.2, 4, -Math.PI / 2),
  (draw, x, y, r) => polygon(draw, x, y, r * 1.2, 3, Math.PI / 2),
  (draw, x, y, r) => { draw.rect(x - r, y - r / 3, r * 2, r / 1.5); draw.rect(x - r / 3, y - r, r / 1.5, r * 2); },
  (draw, x, y, r) => polygon(draw, x, y, r * 1.2, 5, -Math.PI / 2),
];

function polygon(draw, x, y, radius, corners, start) {
  for (let corner = 0; corner < corners; corner += 1) {
    const angle = start + (2 * Math.PI * corner) / corners;
    const at = [x + radius * Math.cos(angle), y + radius * Math.sin(angle)];
    if (corner === 0) draw.moveTo(...at);
    else draw.lineTo(...at);
  }
  draw.closePath();
}

/**
 * List the kinds of points for a colouring, in the order of their numbers; the last one is "none".
 * @returns {{name: string, mark: {colour: string, sign: string}, shape: number}[]}
 */
function kindsOf(colouring) {
  const none = { name: t("images.none"), mark: { colour: "--soft", sign: "●" }, shape: 0 };
  if (colouring === "outcome") {
    return [
      { name: t("images.right"), mark: { colour: "--sky", sign: "●" }, shape: 0 },
      { name: t("images.wrong"), mark: { colour: "--vermillion", sign: "✚" }, shape: 5 }, none];
  }
  const names = colouring === "split" ? data.meta.splits : data.meta.labels;
  return [...names.map((name, index) => ({ name, mark: markOf(index), shape: index % MARKS.length })), none];
}

/**
 * Give every row the number of its kind; rows that are not listed get the number after the last.
 * @param {number} count of the kinds, with "none"
 * @returns {Uint8Array} (n,)
 */
function kindNumbers(columns, colouring, count_, isListed) {
  const values = colouring === "outcome" ? outcomesOf(columns.label, columns.answer) : columns[colouring];
  const shift = colouring === "outcome" ? -1 : 0;
  const kinds = new Uint8Array(columns.n);
  for (let row = 0; row < kinds.length; row += 1) {
    const value = values ? values[row] + shift : -1;
    kinds[row] = isListed[row] ? (value < 0 ? count_ - 1 : Math.min(value, count_ - 1)) : count_;
  }
  return kinds;
}

/** Read a colour variable of the page as the number that an ImageData holds. */
function pixelColour(name) {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888888";
  const rgb = parseInt(probe.fillStyle.slice(1), 16);
  return (0xff000000 | ((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
}

function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888888";
}

/** A map with its tools; `box` is its element. */
class EmbeddingMap {
  constructor() {
    this.map = 0;
    this.colouring = "label";
    this.isLasso = false;
    this.view = null;
    this.cursor = -1;
    this.hovered = -1;
    this.outline = [];
    this.drag = null;
    this.canvas = el("canvas", {
      class: "map-canvas", tabindex: "0", role: "application", "aria-label": t("images.map_help"),
      on: {
        pointerdown: (event) => this.onDown(event), pointermove: (event) => this.onMove(event),
        pointerup: (event) => this.onUp(event), pointercancel: () => { this.drag = null; },
        pointerleave: () => this.hover(-1), keydown: (event) => this.onKey(event),
        blur: () => this.redraw(), focus: () => this.redraw(),
      },
    });
    this.canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.preview = el("div", { class: "map-preview", "aria-hidden": "true", hidden: true });
    this.legend = el("ul", { class: "map-legend" });
    this.note = el("p", { class: "map-note" });
    this.box = el("section", { class: "map", "aria-label": t("images.map") },
      this.tools(), el("div", { class: "map-ground" }, this.canvas, this.preview), this.legend, this.note);
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  tools() {
    const map = el("select", { "aria-label": t("images.map_choose"), hidden: data.meta.maps.length < 2,
      on: { change: () => this.choose(Number(map.value)).catch(sayFault) } },
    ...data.meta.maps.map(({ name, method }, index) => el("option", { value: String(index) }, `${name} · ${method}`)));
    const colour = el("select", { id: "map-colour", on: { change: () => { this.colouring = colour.value; this.update(); } } },
      ...COLOUR_BY.filter((name) => chosenSystem() || !["answer", "outcome"].includes(name))
        .map((name) => el("option", { value: name }, t(`images.${name}`))));
    this.lasso = el("button", { type: "button", "aria-pressed": "false", on: { click: () => this.setLasso(!this.isLasso) } }, t("images.draw_lasso"));
    const button = (key, sign, action) => el("button", { type: "button", "aria-label": t(key), title: t(key), on: { click: action } }, sign);
    return el("div", { class: "map-tools" }, map, el("label", { for: "map-colour" }, t("images.colour")), colour, this.lasso,
      button("images.zoom_in", "+", () => this.zoom(ZOOM_STEP)), button("images.zoom_out", "−", () => this.zoom(1 / ZOOM_STEP)),
      button("images.zoom_whole", "⤢", () => this.showWhole()),
      el("button", { type: "button", on: { click: () => this.selectSight() } }, t("images.select_sight")));
  }

  setLasso(isLasso) {
    this.isLasso = isLasso;
    this.lasso.setAttribute("aria-pressed", String(isLasso));
    this.canvas.classList.toggle("lasso", isLasso);
  }

  async choose(map) {
    const isOther = map !== this.map || !this.x;
    this.map = map;
    const [x, y] = await Promise.all([data.column(`x:${map}`), data.column(`y:${map}`)]);
    if (map !== this.map) return;
    Object.assign(this, { x, y });
    if (isOther) Object.assign(this, { view: null, cursor: -1, outline: [] });
    this.describe();
    this.resize();
  }

  describe() {
    const { name, method, explained } = data.meta.maps[this.map];
    let off = 0;
    for (let row = 0; row < this.x.length; row += 1) if (this.x[row] !== this.x[row]) off += 1;
    const words = [t("images.map_of"), " ", bdi(name), " · ", bdi(method)];
    if (explained?.length) words.push(" · ", t("images.explained"), " ", explained.map((share) => percent(share)).join(" + "));
    if (off) words.push(" · ", t("images.off_map", { count: count(off) }));
    this.note.replaceChildren(...words);
  }

  /** Take the listed rows and their colours from the listing, and draw. */
  update() {
    if (!listing.columns) return;
    if (!this.x) return void this.choose(this.map).catch(sayFault);
    if (this.box.hidden) return;
    this.isListed = new Uint8Array(listing.columns.n);
    const shown = store.get("shown");
    for (let at = 0; at < shown.length; at += 1) this.isListed[shown[at]] = 1;
    this.kinds = kindsOf(this.colouring);
    this.numbers = kindNumbers(listing.columns, this.colouring, this.kinds.length, this.isListed);
    this.colours = Uint32Array.from([...this.kinds.map(({ mark }) => mark.colour), "--line"], pixelColour);
    if (!store.get("lasso") && !this.drag) this.outline = [];
    this.showLegend();
    this.redraw();
  }

  showLegend() {
    const counts = new Int32Array(this.kinds.length + 1);
    for (let row = 0; row < this.x.length; row += 1) if (this.x[row] === this.x[row]) counts[this.numbers[row]] += 1;
    const items = this.kinds.map(({ name, mark }, index) => ({ name: clipped(name, 60), mark, rows: counts[index] }));
    items.push({ name: t("images.other_rows"), mark: { colour: "--line", sign: "●" }, rows: counts[this.kinds.length] });
    this.legend.replaceChildren(...items.filter(({ rows }) => rows > 0).map(({ name, mark, rows }) => el("li", {},
      el("span", { class: "class-mark", "aria-hidden": "true", style: { color: `var(${mark.colour})` } }, mark.sign), " ",
      bdi(name), " ", el("span", { class: "choice-count" }, count(rows)))));
  }

  resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((side) => Math.round(side * ratio));
    if (width === 0 || height === 0 || !this.x) return;
    this.ratio = ratio;
    if (this.canvas.width !== width || this.canvas.height !== height || !this.view) {
      Object.assign(this.canvas, { width, height });
      this.view = wholeView(this.x, this.y, width, height);
    }
    this.update();
  }

  redraw() {
    if (this.frame || !this.view || !this.numbers) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const { width, height } = this.canvas;
    const draw = this.canvas.getContext("2d");
    const inSight = countInSight(this.x, this.y, this.view, width, height);
    const isShapes = inSight <= SHAPES_MOST;
    draw.clearRect(0, 0, width, height);
    const points = { x: this.x, y: this.y, kinds: this.numbers, colours: this.colours };
    if (isShapes) this.drawShapes(draw);
    else {
      const image = draw.createImageData(width, height);
      const size = Math.round((inSight > 50_000 ? 1 : inSight > 10_000 ? 2 : 3) * this.ratio);
      paintPoints(new Uint32Array(image.data.buffer), width, height, points, this.view, size, this.kinds.length);
      draw.putImageData(image, 0, 0);
    }
    this.drawOutline(draw);
    this.drawCursor(draw);
  }

  place(row) {
    return [(this.x[row] - this.view.x) * this.view.scale, (this.y[row] - this.view.y) * this.view.scale];
  }

  drawShapes(draw) {
    const radius = 4 * this.ratio;
    const colours = [...this.kinds.map(({ mark }) => cssColour(mark.colour)), cssColour("--line")];
    const order = [this.kinds.length, ...this.kinds.keys()];
    for (const kind of order) {
      draw.fillStyle = colours[kind];
      draw.beginPath();
      for (let row = 0; row < this.x.length; row += 1) {
        if (this.numbers[row] !== kind) continue;
        const [x, y] = this.place(row);
        if (!(x > -radius && y > -radius && x < this.canvas.width + radius && y < this.canvas.height + radius)) continue;
        SHAPES[this.kinds[kind]?.shape ?? 0](draw, x, y, kind === this.kinds.length ? radius * 0.6 : radius);
      }
      draw.fill();
    }
  }

  drawOutline(draw) {
    if (this.outline.length < 2) return;
    draw.beginPath();
    for (const [x, y] of this.outline) draw.lineTo((x - this.view.x) * this.view.scale, (y - this.view.y) * this.view.scale);
    draw.closePath();
    draw.strokeStyle = cssColour("--ink");
    draw.lineWidth = 1.5 * this.ratio;
    draw.setLineDash([6 * this.ratio, 4 * this.ratio]);
    draw.stroke();
    draw.setLineDash([]);
  }

  drawCursor(draw) {
    const row = document.activeElement === this.canvas && this.cursor >= 0 ? this.cursor : this.hovered;
    if (row < 0) return;
    const [x, y] = this.place(row);
    draw.beginPath();
    draw.arc(x, y, 9 * this.ratio, 0, 2 * Math.PI);
    draw.strokeStyle = cssColour("--ink");
    draw.lineWidth = 2 * this.ratio;
    draw.stroke();
  }

  /** Return a place on the canvas in its own pixels. */
  pixels(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - left) * this.ratio, y: (event.clientY - top) * this.ratio };
  }

  /** Return a place on the map. */
  units({ x, y }) {
    return [this.view.x + x / this.view.scale, this.view.y + y / this.view.scale];
  }

  near(event) {
    const [x, y] = this.units(this.pixels(event));
    return nearestPoint(this.x, this.y, x, y, (NEAR_PIXELS * this.ratio) / this.view.scale, this.isListed);
  }

  onDown(event) {
    if (event.button !== 0 || !this.view) return;
    this.canvas.setPointerCapture(event.pointerId);
    const isLasso = this.isLasso || event.shiftKey;
    this.drag = { at: this.pixels(event), view: this.view, isLasso, isMoved: false };
    if (isLasso) this.outline = [this.units(this.drag.at)];
  }

  onMove(event) {
    if (!this.view) return;
    if (!this.drag) return void this.hover(this.near(event));
    const at = this.pixels(event);
    const [across, along] = [at.x - this.drag.at.x, at.y - this.drag.at.y];
    if (Math.hypot(across, along) > 4 * this.ratio) this.drag.isMoved = true;
    if (this.drag.isLasso) this.outline.push(this.units(at));
    else if (this.drag.isMoved) {
      const { x, y, scale } = this.drag.view;
      this.view = { x: x - across / scale, y: y - along / scale, scale };
    }
    this.redraw();
  }

  onUp(event) {
    const { drag } = this;
    this.drag = null;
    if (!drag) return;
    if (drag.isLasso && drag.isMoved && this.outline.length > 2) this.select(this.outline);
    else if (!drag.isMoved) {
      const row = this.near(event);
      if (row >= 0) {
        this.cursor = row;
        openImage(row);
      }
    }
  }

  /** Filter by the points inside an outline. */
  select(outline) {
    this.outline = outline;
    this.setLasso(false);
    const mask = insideOutline(this.x, this.y, outline, null);
    changeFilter({ lasso: mask });
  }

  /** Select what is in sight, as the keyboard's way to an outline. */
  selectSight() {
    if (!this.view) return;
    const [left, low] = this.units({ x: 0, y: 0 });
    const [right, high] = this.units({ x: this.canvas.width, y: this.canvas.height });
    this.select([[left, low], [right, low], [right, high], [left, high]]);
  }

  onWheel(event) {
    if (!this.view) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 400), this.pixels(event));
  }

  zoom(factor, at = { x: this.canvas.width / 2, y: this.canvas.height / 2 }) {
    if (!this.view) return;
    this.view = zoomedView(this.view, factor, at);
    this.redraw();
  }

  showWhole() {
    this.view = null;
    this.resize();
  }

  hover(row) {
    if (row === this.hovered) return;
    this.hovered = row;
    this.preview.hidden = row < 0;
    this.preview.replaceChildren(...(row < 0 ? [] : [tile(row, { size: 112, focusable: false })]));
    this.canvas.style.setProperty("cursor", row < 0 || this.isLasso ? "" : "pointer");
    this.redraw();
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.view) return;
    const directions = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    const zooms = { "+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP };
    if (event.key in directions) this.moveCursor(directions[event.key]);
    else if (event.key in zooms) this.zoom(zooms[event.key], this.cursorPlace());
    else if (event.key === "0") this.showWhole();
    else if (event.key === "Enter" && this.cursor >= 0) openImage(this.cursor);
    else return;
    event.preventDefault();
  }

  cursorPlace() {
    if (this.cursor < 0) return undefined;
    const [x, y] = this.place(this.cursor);
    return { x, y };
  }

  moveCursor(direction) {
    const { width, height } = this.canvas;
    if (this.cursor < 0 || !this.isListed[this.cursor]) {
      const [x, y] = this.units({ x: width / 2, y: height / 2 });
      this.cursor = nearestPoint(this.x, this.y, x, y, Infinity, this.isListed);
    } else this.cursor = nextPoint(this.x, this.y, this.cursor, direction, this.isListed);
    if (this.cursor < 0) return;
    const [x, y] = this.place(this.cursor);
    if (x < 0 || y < 0 || x > width || y > height) {
      this.view = { ...this.view, x: this.view.x + (x - width / 2) / this.view.scale, y: this.view.y + (y - height / 2) / this.view.scale };
    }
    this.hover(this.cursor);
    this.redraw();
    wordsOf(this.cursor).then((row) => announce(tileText(row, this.cursor))).catch(sayFault);
  }
}
