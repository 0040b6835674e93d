/** Elements, words, numbers and the state that all parts of the page share. */
"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** Give an element its attributes and children; text becomes text nodes, never markup. */
function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "style") {
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Make an HTML element. `attributes` may hold `on` (listeners by event) and `style` (values by property). */
function el(tag, attributes, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
function svg(tag, attributes, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

/** Make an element for words of the archive, which may run in another direction than the page. */
function bdi(text) {
  return el("bdi", {}, String(text));
}

/** Read a block of JSON that the page carries. */
function block(name) {
  return JSON.parse(document.getElementById(name).textContent);
}

/** The state of the page: values by name, and who wants to know when they change. */
const store = {
  values: {},
  listeners: [],
  pending: null,

  get(name) {
    return this.values[name];
  },

  /** Change some values; each listener of any of them is called once, after all are in. */
  set(changes) {
    const changed = Object.keys(changes).filter((name) => !Object.is(this.values[name], changes[name]));
    Object.assign(this.values, changes);
    if (this.pending) {
      for (const name of changed) this.pending.add(name);
      return;
    }
    this.pending = new Set(changed);
    // What a listener sets in turn is told after all have heard of this change.
    while (this.pending.size) {
      const names = this.pending;
      this.pending = new Set();
      for (const { wanted, callback } of [...this.listeners]) {
        if (wanted.some((name) => names.has(name))) callback();
      }
    }
    this.pending = null;
  },

  /** Call back whenever one of the values changes; the result ends that. */
  on(wanted, callback) {
    const listener = { wanted, callback };
    this.listeners.push(listener);
    return () => { this.listeners = this.listeners.filter((other) => other !== listener); };
  },
};

const STRINGS = block("strings");
const parts = [];

/** Register a part of the page: a tab, mounted when it is first shown, or what is always there. */
function part({ name, tab = true, mount }) {
  parts.push({ name, tab, mount });
}

/** Return the words of a key in the language of the page, {name} replaced by `values`. */
function t(key, values = {}) {
  const language = store.get("language");
  const words = STRINGS[key]?.[language] ?? STRINGS[key]?.en ?? key;
  // Between Arabic words a date or a name is set apart (FSI, PDI), or its parts change places.
  const [before, after] = language === "ar" ? ["\u2068", "\u2069"] : ["", ""];
  return words.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? `${before}${values[name]}${after}` : whole));
}

// Figures keep Western digits in both languages, so that they read like those of the command line.
function localised(options) {
  const language = store.get("language") === "ar" ? "ar-u-nu-latn" : "en";
  return new Intl.NumberFormat(language, options);
}

/** Write a number with some digits; a dash for what is undefined. */
function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return localised({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** Write a share as per cent. */
function percent(value, digits = 1) {
  return value === null || Number.isNaN(value) ? "–" : `${number(100 * value, digits)} %`;
}

/** Write a count. */
function count(value) {
  return number(value, 0);
}

/** Write a count of bytes. */
function fileSize(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let size = bytes, unit = 0;
  while (size >= 1000 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return `${number(size, unit && size < 10 ? 1 : 0)} ${units[unit]}`;
}

/** Say something on the status line, which screen readers read aloud. */
function announce(text) {
  document.getElementById("status").textContent = text;
}
