"use strict";
/* The gallery: a grid of tiles in a box of its own that scrolls; only the rows in sight are in the document.

   A browser cuts elements off at some 16 million pixels, and a million tiles are taller. So the box scrolls
   over at most SCROLL_MOST pixels; above that a long jump is scaled, while a small step moves the tiles by
   just that step, and the scroll bar is put right when the hand rests. */

const SCROLL_MOST = 8_000_000;
const TILES_MOST = 196;
const WORDS_HEIGHT = 88;
const GAP = 8;
/** Width in pixels from which tiles are a fifth wider, so that more words fit. */
const ROOMY = 640;
const SIZES = { small: 96, medium: 144, large: 220 };

/**
 * Lay out a grid.
 * @param {{width: number, height: number, wanted: number, count: number}} room in CSS pixels; wanted: width of a tile
 * @returns {{columns: number, tile: number, pitch: number, lines: number, total: number}} pitch: height of a
 *   line with its gap; total: height of all lines. Tiles grow until those in sight are at most TILES_MOST.
 */
function gridLayout({ width, height, wanted, count: rows }) {
  const room = Math.max(width, 1);
  for (let columns = Math.max(1, Math.floor((room + GAP) / (wanted + GAP))); ; columns -= 1) {
    const size = Math.max(1, Math.floor((room + GAP) / columns) - GAP);
    const pitch = size + WORDS_HEIGHT + GAP;
    if (columns > 1 && columns * (Math.ceil(height / pitch) + 3) > TILES_MOST) continue;
    const lines = Math.ceil(rows / columns);
    return { columns, tile: size, pitch, lines, total: lines * pitch };
  }
}

/**
 * Return where the grid stands after its box has scrolled.
 * @param {{offset: number, top: number}} before offset: of the grid; top: of the box, both in pixels
 * @param {number} top of the box now
 * @param {{total: number, height: number}} room of the grid and of what is in sight
 * @returns {number} offset of the grid
 */
function scrolledOffset(before, top, { total, height }) {
  const most = Math.max(0, total - height);
  const topMost = Math.min(total, SCROLL_MOST) - height;
  if (total <= SCROLL_MOST) return Math.min(Math.max(top, 0), most);
  if (top <= 0) return 0;
  if (top >= topMost - 1) return most;
  const step = top - before.top;
  const offset = Math.abs(step) <= height ? before.offset + step : (top / topMost) * most;
  return Math.min(Math.max(offset, 0), most);
}

/** Return where the box has to scroll for an offset of the grid. */
function topOf(offset, { total, height }) {
  if (total <= SCROLL_MOST) return offset;
  return Math.round((offset / (total - height)) * (SCROLL_MOST - height));
}

function isSameList(list, other) {
  if (list.length !== other.length) return false;
  for (let at = 0; at < list.length; at += 1) if (list[at] !== other[at]) return false;
  return true;
}

/** A grid of the rows in store `shown`: `box` is its element. */
class Gallery {
  constructor() {
    this.positions = new Int32Array(0);
    this.layout = null;
    this.offset = 0;
    this.top = 0;
    this.height = 0;
    this.cursor = 0;
    /** Elements of the lines in the document, by number. */
    this.lines = new Map();
    this.ground = el("div", { class: "gallery-ground", role: "presentation" });
    this.scroller = el("div", {
      class: "gallery", role: "grid", "aria-label": t("images.gallery"), tabindex: "-1",
      on: {
        keydown: (event) => this.onKey(event),
        scroll: () => this.onScroll(),
        focusin: (event) => this.onFocus(event),
      },
    }, this.ground);
    this.empty = el("p", { class: "gallery-empty", hidden: true }, t("images.nothing"), " ",
      el("button", { type: "button", on: { click: clearFilter } }, t("images.clear")));
    this.box = el("div", { class: "gallery-frame" }, this.scroller, this.empty);
    this.settle = later(150, () => this.straighten());
    new ResizeObserver(() => this.resize()).observe(this.scroller);
  }

  /** Take the rows of the store; go back to the first where they are others. */
  update() {
    const positions = store.get("shown") ?? new Int32Array(0);
    const isSame = isSameList(positions, this.positions);
    this.positions = positions;
    this.empty.hidden = positions.length > 0;
    this.scroller.hidden = positions.length === 0;
    if (!isSame) {
      this.offset = 0;
      this.cursor = 0;
    }
    if (this.scroller.clientWidth === 0) return;
    if (isSame && this.layout) this.refill();
    else this.resize();
  }

  /** Write the words of the tiles in sight again: a threshold has moved, or another system was chosen. */
  refill() {
    for (const box of this.ground.querySelectorAll(".tile")) fillTile(box, Number(box.dataset.position));
  }

  /** Lay the grid out for the room there is; the first image in sight stays in sight. */
  resize() {
    if (this.scroller.clientWidth === 0) return;
    const first = this.layout ? Math.floor(this.offset / this.layout.pitch) * this.layout.columns : 0;
    this.height = this.scroller.clientHeight;
    const width = this.ground.clientWidth;
    const wanted = SIZES[store.get("tile_size") ?? "medium"] * (width > ROOMY ? 1.2 : 1);
    this.layout = gridLayout({ width, height: this.height, wanted, count: this.positions.length });
    this.ground.style.setProperty("block-size", `${Math.min(this.layout.total, SCROLL_MOST)}px`);
    this.scroller.setAttribute("aria-rowcount", String(this.layout.lines));
    this.scroller.setAttribute("aria-colcount", String(this.layout.columns));
    this.moveTo(Math.floor(first / this.layout.columns) * this.layout.pitch);
    this.drawAgain();
  }

  /** Scroll the grid to an offset in pixels. */
  moveTo(offset) {
    this.offset = Math.min(Math.max(offset, 0), Math.max(0, this.layout.total - this.height));
    this.top = topOf(this.offset, { total: this.layout.total, height: this.height });
    this.scroller.scrollTop = this.top;
  }

  /** Put the scroll bar where it belongs after small steps over a scaled grid. */
  straighten() {
    if (!this.layout || this.layout.total <= SCROLL_MOST) return;
    this.moveTo(this.offset);
    this.draw();
  }

  /** Return the first line in the document and the one after the last. */
  lineRange() {
    const { pitch, lines } = this.layout;
    const first = Math.max(0, Math.floor(this.offset / pitch) - 1);
    return [first, Math.min(Math.ceil((this.offset + this.height) / pitch) + 1, lines)];
  }

  draw() {
    if (!this.layout) return;
    const [first, last] = this.lineRange();
    for (const [number_, line] of this.lines) {
      if (number_ >= first && number_ < last) continue;
      if (line.contains(document.activeElement)) this.scroller.focus({ preventScroll: true });
      line.remove();
      this.lines.delete(number_);
    }
    for (let number_ = first; number_ < last; number_ += 1) {
      if (!this.lines.has(number_)) this.addLine(number_);
      const above = number_ * this.layout.pitch + this.top - this.offset;
      this.lines.get(number_).style.setProperty("inset-block-start", `${above}px`);
    }
    this.markCursor();
  }

  drawAgain() {
    const hadFocus = this.ground.contains(document.activeElement);
    for (const line of this.lines.values()) line.remove();
    this.lines.clear();
    this.draw();
    if (hadFocus) this.cell(this.cursor)?.focus({ preventScroll: true });
  }

  addLine(number_) {
    const { columns, tile: size } = this.layout;
    const line = el("div", { class: "gallery-line", role: "row", "aria-rowindex": String(number_ + 1) });
    const last = Math.min((number_ + 1) * columns, this.positions.length);
    for (let index = number_ * columns; index < last; index += 1) {
      line.append(el("div", {
        class: "gallery-cell", role: "gridcell", tabindex: "-1", "data-index": String(index),
        "aria-colindex": String((index % columns) + 1), style: { "inline-size": `${size}px` },
      }, tile(this.positions[index], { size, focusable: false })));
    }
    this.lines.set(number_, line);
    const after = [...this.lines.keys()].filter((other) => other > number_).sort((a, b) => a - b)[0];
    this.ground.insertBefore(line, after === undefined ? null : this.lines.get(after));
  }

  cell(index) {
    return this.ground.querySelector(`[data-index="${index}"]`);
  }

  /** Let the Tab key reach one image: that of the cursor, or the first in sight. */
  markCursor() {
    const [first] = this.lineRange();
    const inSight = this.cell(this.cursor) ? this.cursor
      : Math.max(Math.ceil(this.offset / this.layout.pitch), first) * this.layout.columns;
    for (const cell of this.ground.querySelectorAll('.gallery-cell[tabindex="0"]')) cell.setAttribute("tabindex", "-1");
    this.cell(inSight)?.setAttribute("tabindex", "0");
  }

  /** Give an image of the list the focus, and scroll just as far as needed. */
  moveCursor(index) {
    if (this.positions.length === 0) return;
    const { columns, pitch } = this.layout;
    this.cursor = Math.min(Math.max(index, 0), this.positions.length - 1);
    const above = Math.floor(this.cursor / columns) * pitch;
    if (above < this.offset) this.moveTo(above);
    else if (above + pitch > this.offset + this.height) this.moveTo(above + pitch - this.height);
    this.draw();
    this.cell(this.cursor)?.focus({ preventScroll: true });
  }

  /** Give the image of a row the focus, where it is listed. */
  focusPosition(position) {
    const index = this.positions.indexOf(position);
    if (index >= 0 && this.layout) this.moveCursor(index);
  }

  onScroll() {
    const top = this.scroller.scrollTop;
    if (!this.layout || Math.abs(top - this.top) < 1) return;
    this.offset = scrolledOffset(this, top, { total: this.layout.total, height: this.height });
    this.top = top;
    this.draw();
    this.settle();
  }

  onFocus(event) {
    const cell = event.target.closest(".gallery-cell");
    if (!cell) return;
    this.cursor = Number(cell.dataset.index);
    this.markCursor();
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || !this.layout) return;
    if (event.key === "Enter" && event.target.matches(".gallery-cell")) openImage(this.positions[this.cursor]);
    else if (event.key in this.steps()) this.step(event.key);
    else return;
    event.preventDefault();
  }

  /** Return how far every key moves the cursor. */
  steps() {
    const { columns, pitch } = this.layout;
    const page = Math.max(1, Math.floor(this.height / pitch)) * columns;
    const forward = getComputedStyle(this.scroller).direction === "rtl" ? -1 : 1;
    return {
      ArrowRight: forward, ArrowLeft: -forward, ArrowDown: columns, ArrowUp: -columns,
      PageDown: page, PageUp: -page, Home: -this.positions.length, End: this.positions.length,
    };
  }

  step(key) {
    const next = this.cursor + this.steps()[key];
    const isLine = key === "ArrowDown" || key === "ArrowUp";
    if (!isLine || (next >= 0 && next < this.positions.length)) this.moveCursor(next);
  }
}
