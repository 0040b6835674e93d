/** The frame: tabs, language, and the start of everything. */
"use strict";

const data = {
  page: () => pageSource(),
  server: () => serverSource(),
  review: () => queueSource(),
}[document.documentElement.dataset.shell]();

/** Take the first state: the recommended system, its threshold, and the reader's language. */
function begin() {
  const { systems, board, positive } = data.meta;
  const best = systems.findIndex((system) => system.name === board.best);
  const system = systems.length ? Math.max(0, best) : -1;
  store.set({
    language: document.documentElement.lang,
    tab: addressedTab(),
    system,
    positive,
    threshold: systems[system]?.threshold ?? NaN,
    filter: {},
    sort: { by: system < 0 ? "table" : "mistake", descending: system >= 0 },
    shown: new Int32Array(0),
    image: -1,
    lasso: null,
  });
}

/** Return the tab that the address names; the first, where it names none. */
function addressedTab() {
  const name = location.hash.slice(1);
  const tabs = parts.filter(({ tab }) => tab);
  return (tabs.find((each) => each.name === name) ?? tabs[0]).name;
}

/** Make the row of tabs, which the arrow keys move through as ARIA describes. */
function makeTabs() {
  const list = document.getElementById("tabs");
  const main = document.getElementById("main");
  const tabs = parts.filter(({ tab }) => tab);
  for (const { name } of tabs) {
    list.append(el("button", {
      id: `tab-${name}`, role: "tab", type: "button", "aria-controls": `panel-${name}`,
      on: { click: () => store.set({ tab: name }), keydown: (event) => moveBetween(event, tabs, name) },
    }, t(`${name}.tab`)));
    main.append(el("section", { id: `panel-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}`, tabindex: 0, hidden: true }));
  }
}

function moveBetween(event, tabs, name) {
  const forwards = document.documentElement.dir === "rtl" ? "ArrowLeft" : "ArrowRight";
  const backwards = forwards === "ArrowLeft" ? "ArrowRight" : "ArrowLeft";
  const at = tabs.findIndex((tab) => tab.name === name);
  const steps = { [forwards]: at + 1, [backwards]: at - 1, Home: 0, End: tabs.length - 1 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = tabs.at(steps[event.key] % tabs.length).name;
  store.set({ tab: next });
  document.getElementById(`tab-${next}`).focus();
}

const mounted = new Set();

function showTab() {
  const shown = store.get("tab");
  // The browser's own Back leads to the tab before.
  if (shown !== addressedTab()) location.hash = shown;
  for (const { name, tab, mount } of parts) {
    if (!tab) continue;
    const button = document.getElementById(`tab-${name}`), panel = document.getElementById(`panel-${name}`);
    button.setAttribute("aria-selected", name === shown);
    button.tabIndex = name === shown ? 0 : -1;
    panel.hidden = name !== shown;
    if (name === shown && !mounted.has(name)) {
      mounted.add(name);
      mount(panel);
    }
  }
}

/** Show the page in another language: every part is made anew, the state stays. */
function showLanguage() {
  const language = store.get("language");
  document.documentElement.lang = language;
  document.documentElement.dir = language === "ar" ? "rtl" : "ltr";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
  store.listeners = store.listeners.filter(({ wanted }) => wanted === FRAME);
  mounted.clear();
  document.getElementById("tabs").replaceChildren();
  document.getElementById("main").replaceChildren();
  document.getElementById("tools").replaceChildren(languageButton());
  makeTabs();
  for (const { tab, mount } of parts) if (!tab) mount(document.getElementById("tools"));
  showTab();
}

function languageButton() {
  const other = store.get("language") === "ar" ? "en" : "ar";
  const names = { ar: "العربية", en: "English" };
  return el("button", { type: "button", id: "language", lang: other, on: { click: () => store.set({ language: other }) } }, names[other]);
}

/** Say on the page what it is about, and of which state. */
function describe() {
  const { task, snapshot, made, version, partial, count: rows } = data.meta;
  document.title = task;
  document.getElementById("task").replaceChildren(bdi(task));
  document.getElementById("about").textContent = t("base.about", { rows: count(rows), snapshot: snapshot.slice(0, 12), made, version });
  const note = document.getElementById("partial");
  note.hidden = !partial;
  note.replaceChildren(t("base.partial"), " ", bdi(partial ?? ""));
}

const FRAME = ["language", "tab"];

function start() {
  begin();
  showLanguage();
  describe();
  let language = store.get("language");
  store.on(FRAME, () => {
    if (language !== store.get("language")) {
      language = store.get("language");
      showLanguage();
      describe();
    } else {
      showTab();
    }
  });
}

window.addEventListener("hashchange", () => store.set({ tab: addressedTab() }));

start();
