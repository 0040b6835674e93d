"use strict";
/* Search by words: the stored texts of every embedding, and free words where a text tower is cached. */

function wordsEmbedding(entry) {
  return data.meta.embeddings.indexOf(entry.embedding);
}

/** List the images most similar to words, as one embedding sees them. */
async function listByWords(embedding, words) {
  try {
    const keys = Float32Array.from(await data.search(embedding, words));
    listSimilar({ kind: "words", embedding, keys, words });
  } catch {
    announce(t("images.search_failed"));
  }
}

function storedChoice() {
  const choices = data.meta.words.flatMap((entry) => entry.texts.map((words) => ({ embedding: wordsEmbedding(entry), words })));
  const select = el("select", {
    id: "images-stored",
    on: {
      change: () => {
        if (select.value === "") return changeFilter({ ranking: null });
        const { embedding, words } = choices[Number(select.value)];
        return listByWords(embedding, words);
      },
    },
  }, el("option", { value: "" }, t("images.search_choose")),
  ...choices.map(({ embedding, words }, index) => el("option", { value: String(index) },
    `${clipped(words, 60)} · ${data.meta.embeddings[embedding]}`)));
  const update = () => {
    const ranking = store.get("ranking");
    const index = choices.findIndex(({ embedding, words }) => ranking?.kind === "words"
      && ranking.embedding === embedding && ranking.words === words);
    select.value = index < 0 ? "" : String(index);
  };
  return { box: el("p", {}, el("label", { for: "images-stored" }, t("images.search_stored")), select), update };
}

function freeChoice(entries) {
  const input = el("input", { type: "search", id: "images-words", autocomplete: "off", dir: "auto" });
  const select = el("select", { "aria-label": t("images.embedding"), hidden: entries.length < 2 },
    ...entries.map((entry) => el("option", { value: String(wordsEmbedding(entry)) }, entry.embedding)));
  const go = () => { if (input.value.trim()) listByWords(Number(select.value), input.value.trim()); };
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
  const box = el("p", {}, el("label", { for: "images-words" }, t("images.search_free")), input, select,
    el("button", { type: "button", on: { click: go } }, t("images.search_go")));
  return { box, update: () => {} };
}

/**
 * Make the search by words, hidden where no embedding has any.
 * @returns {{box: HTMLElement, update: () => void}}
 */
function searchBox() {
  const free = data.meta.words.filter((entry) => entry.free);
  const choices = [];
  if (data.meta.words.some((entry) => entry.texts.length)) choices.push(storedChoice());
  if (free.length) choices.push(freeChoice(free));
  const box = el("div", { class: "facet search-words", hidden: choices.length === 0 }, ...choices.map((choice_) => choice_.box));
  return { box, update: () => choices.forEach((choice_) => choice_.update()) };
}
