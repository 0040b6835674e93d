/** The data of a page that a server hands out: every address is relative to the page's own. */
"use strict";

const ROWS_AT_ONCE = 500;
/* The server takes a million bytes at once; a letter may take six of them. */
const LETTERS_AT_ONCE = 150_000;

/** Make the `data` of the server's page. */
function serverSource() {
  const meta = block("meta");
  const columns = new Map();

  /** Ask the server; what it refuses, and that it has ended, is said on the status line. */
  async function ask(address, options) {
    let answer;
    try {
      answer = await fetch(address, { credentials: "omit", ...options });
    } catch {
      throw fault(t("server.ended"));
    }
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
    throw fault(error);
  }

  function fault(words) {
    source.onfault(words);
    return new Error(words);
  }

  async function bytes(address) {
    return (await ask(address)).arrayBuffer();
  }

  async function json(address) {
    return (await ask(address)).json();
  }

  async function fetchColumn(name) {
    return new ARRAYS[meta.columns[name]](await bytes(`column/${encodeURIComponent(name)}`));
  }

  function post(record, remove, who) {
    return ask("corrections", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ record, remove, who }),
    });
  }

  const source = {
    meta,
    onfault: announce,

    /** Return a column, asked for once; after a fault the next call asks again. */
    column(name) {
      if (!columns.has(name)) {
        if (!(name in meta.columns)) return Promise.reject(new Error(`no column ${name}`));
        const asked = fetchColumn(name);
        columns.set(name, asked);
        asked.catch(() => columns.delete(name));
      }
      return columns.get(name);
    },

    async rows(positions) {
      const parts = [];
      for (let start = 0; start < positions.length; start += ROWS_AT_ONCE) {
        parts.push(json(`rows?at=${Array.from(positions.slice(start, start + ROWS_AT_ONCE)).join()}`));
      }
      return (await Promise.all(parts)).flat();
    },

    async find(text) {
      return new Uint8Array(await bytes(`find?${new URLSearchParams({ text })}`));
    },

    thumbnail: (position) => `thumb/${position}`,

    preview: (position) => `preview/${position}`,

    neighbours: (embedding, position) => json(`neighbours/${embedding}/${position}`),

    async search(embedding, words) {
      return new Float32Array(await bytes(`search/${embedding}?${new URLSearchParams({ words })}`));
    },

    /** Return what is recorded; a row that this page does not have has no position. */
    async corrections() {
      const found = await json("corrections");
      return found.map((each) => ({ ...each, position: each.position ?? undefined }));
    },

    /** Record decisions, in parts that the server takes: it answers when they are in the file. */
    async record({ record = [], remove = [], who = "" }) {
      let part = [], letters = 0;
      for (const { id, label, old_label, decision, who: by, when } of record) {
        const correction = { id, label, old_label, decision, who: by ?? "", when };
        const length = JSON.stringify(correction).length;
        if (part.length && letters + length > LETTERS_AT_ONCE) {
          await post(part, [], who);
          [part, letters] = [[], 0];
        }
        part.push(correction);
        letters += length;
      }
      await post(part, remove, who);
    },
  };
  return source;
}
