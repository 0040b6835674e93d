"use strict";
/* The only maker of images of the archive: they are grey and blurred until a key or a click asks for them.

   One image is asked for by the button on it, or by the key V where it has the focus; the whole page by
   the switch in the header, or by the key B. What was asked for ends with the tab, with the element and
   with the page: nothing is kept that could show an image later, when nobody asked. */

const CARE_LETTERS = /^(?:Key([A-Z])|(?:Digit|Numpad)([0-9]))$/;
const CARE_PREVIEW_FROM = 200;
const careVisible = new Set();
let careMade = 0;

/**
 * Name the key of an event: a small letter, a digit, "?", or the browser's name of another key.
 *
 * Keys of another script are named by their place, so that a reader with an Arabic keyboard need not
 * change it. Empty with Ctrl, Alt, Meta or Shift, where text is written, and where single keys are off.
 * @param {KeyboardEvent} event
 * @returns {string}
 */
function plainKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return "";
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]")) return "";
  // On Arabic keyboards one key writes two letters: only names of keys begin with a capital.
  if (/^[A-Z]\w+$/.test(event.key)) return event.shiftKey ? "" : event.key;
  if (store.get("keys") === false) return "";
  if (event.key === "?" || event.key === "؟") return "?";
  return event.shiftKey ? "" : careLetter(event);
}

function careLetter(event) {
  const key = event.key.toLowerCase();
  if (/^[a-z0-9]$/.test(key)) return key;
  const place = CARE_LETTERS.exec(event.code);
  return place ? (place[1] ?? place[2]).toLowerCase() : event.key;
}

/**
 * Make the element of one image of the archive, grey and blurred unless the whole page is shown.
 * @param {number} position row of the table
 * @param {{size?: number, alt?: string, focusable?: boolean}} options longest side in CSS pixels, the
 *   text for those who do not see it (id and label, no more), and whether its button is in the tab order
 * @returns {HTMLElement} a span of class "care"
 */
function careImage(position, { size = 128, alt = "", focusable = true } = {}) {
  const url = data.thumbnail(position);
  const frame = el("span", { class: "care", "data-position": position, style: { "--care-size": `${size}px` } });
  if (url === null) {
    frame.append(carePlaceholder(position));
    return frame;
  }
  careMade += 1;
  const ids = [`care-show-${careMade}`, `care-image-${careMade}`];
  const image = el("img", {
    id: ids[1], class: "archive", src: url, alt, loading: "lazy", decoding: "async", draggable: "false",
    on: {
      load: () => careCount(image),
      error: () => {
        careVisible.delete(image);
        frame.replaceChildren(carePlaceholder(position));
      },
    },
  });
  const button = el("button", {
    id: ids[0], class: "care-show", type: "button", "aria-labelledby": ids.join(" "), tabindex: focusable ? null : "-1",
    on: {
      click: (event) => {
        event.stopPropagation();
        careToggle(frame);
      },
    },
  });
  frame.append(image, button);
  careName(frame);
  careEnlarge(frame);
  careObserver.observe(image);
  return frame;
}

function carePlaceholder(position) {
  const words = el("span", { class: "care-none" }, t("care.no_image"));
  data.column("status").then((statuses) => {
    const status = data.meta.statuses[statuses[position]];
    if (status) words.append(" ", bdi(status));
  });
  return words;
}

/** Return whether an image of the archive is unblurred now. */
function careIsShown(image) {
  return store.get("care").page || image.classList.contains("shown");
}

/** Show the image in a frame that careImage made, or blur it again. */
function careToggle(frame) {
  const image = frame.querySelector("img.archive");
  if (!image || store.get("care").page) return;
  image.classList.toggle("shown");
  careName(frame);
  careEnlarge(frame);
  careCount(image);
}

function careName(frame) {
  const button = frame.querySelector(".care-show");
  const image = frame.querySelector("img.archive");
  button.textContent = t(image.classList.contains("shown") ? "care.blur" : "care.show");
}

/** Load the larger image where there is one, only once it is asked for. */
function careEnlarge(frame) {
  const image = frame.querySelector("img.archive");
  if (!careIsShown(image) || parseFloat(frame.style.getPropertyValue("--care-size")) < CARE_PREVIEW_FROM) return;
  const preview = data.preview(Number(frame.dataset.position));
  if (preview !== null && image.getAttribute("src") !== preview) image.src = preview;
}

const careObserver = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) careVisible.add(entry.target);
    else careVisible.delete(entry.target);
    careCount(entry.target);
  }
});

/** Count an image once it is seen: unblurred, loaded and within the window. */
function careCount(image) {
  const { page, images } = store.get("care");
  const position = Number(image.parentElement?.dataset.position);
  const isSeen = careVisible.has(image) && image.complete && image.naturalWidth > 0 && careIsShown(image);
  if (!isSeen || Number.isNaN(position) || images.has(position)) return;
  store.set({ care: { page, images: new Set(images).add(position) } });
}

/** Blur all images again, or show all there are on this page. */
function careShowPage(page) {
  for (const image of document.querySelectorAll("img.archive.shown")) {
    image.classList.remove("shown");
    careName(image.parentElement);
  }
  document.documentElement.dataset.care = page ? "shown" : "blurred";
  store.set({ care: { page, images: store.get("care").images } });
  if (!page) return;
  for (const frame of document.querySelectorAll(".care:has(img.archive)")) careEnlarge(frame);
  for (const image of careVisible) careCount(image);
}

/** Return the frame of the image that has the focus, or null. */
function careFocus() {
  const place = document.activeElement;
  if (!place || place === document.body) return null;
  const inside = place.querySelectorAll(".care");
  return place.closest(".care") ?? (inside.length === 1 ? inside[0] : null);
}

function careOnKey(event) {
  const key = event.defaultPrevented ? "" : plainKey(event);
  const frame = key === "v" ? careFocus() : null;
  if (frame) careToggle(frame);
  if (key === "b") careShowPage(!store.get("care").page);
}

/** Read which images this session has shown before a reload; a browser may refuse to keep it. */
function careRemembered() {
  try {
    return new Set(JSON.parse(sessionStorage.getItem(`${data.meta.key}:care`) ?? "[]"));
  } catch {
    return new Set();
  }
}

function careRemember(images) {
  try {
    sessionStorage.setItem(`${data.meta.key}:care`, JSON.stringify([...images]));
  } catch {
    // The counter then begins again after a reload.
  }
}

store.set({ care: { page: false, images: new Set() } });
document.addEventListener("keydown", careOnKey);
window.addEventListener("pageshow", (event) => event.persisted && careShowPage(false));

part({
  name: "care",
  tab: false,
  mount(section) {
    const counter = el("output", { class: "care-count", "aria-live": "polite" });
    const toggle = el("input", {
      type: "checkbox", role: "switch", id: "care-page", autocomplete: "off",
      on: { change: () => careShowPage(toggle.checked) },
    });
    const update = () => {
      const { page, images } = store.get("care");
      toggle.checked = page;
      counter.textContent = t("care.count", { count: count(images.size) });
      careRemember(images);
    };
    section.append(
      el("label", { class: "care-switch", for: "care-page" }, toggle, " ", t("care.page"), " ", el("kbd", {}, "B")), counter);
    beforeMain("care-why", t("care.title"), el("p", {}, t("care.why")));
    store.on(["care"], update);
    store.on(["tab"], () => careShowPage(false));
    store.set({ care: { page: false, images: careRemembered() } });
    careShowPage(false);
    update();
  },
});

/** Put a region of its own between the header and the tab. */
function beforeMain(id, label, ...children) {
  document.getElementById(id)?.remove();
  const region = el("section", { id, "aria-label": label }, ...children);
  document.getElementById("main").before(region);
  return region;
}
