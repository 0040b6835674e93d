/** The data tab: what could not be read, duplicates, suspect labels, shortcuts and shift. */
"use strict";

part({ name: "data", mount(section) { section.append(el("h2", {}, t("data.tab"))); } });
