/** The data of a page that carries everything itself: see source_server.js for the other one. */
"use strict";

const ARRAYS = { i1: Int8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

/** Decode base64 into bytes. */
function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  return bytes;
}

/** Return text as it is compared: cases and forms of Unicode are alike. */
function fold(text) {
  // Small letters first: only some large ones have another large form ("ẞ" and "SS").
  return text.normalize("NFC").toLowerCase().toUpperCase().normalize("NFC");
}

/** Make the `data` of a page file. */
function pageSource() {
  const meta = block("meta"), encoded = block("columns"), rows = block("rows"), thumbnails = block("thumbnails");
  const columns = new Map();
  let searched = null;
  const stored = `archiveprobe ${meta.key}`;
  const digests = new Map(rows.map(({ id, digest }) => [id, digest]));
  // Pages of other archives keep their decisions in the same place where they have the same names.
  const isOwn = ({ id, digest }) => digests.get(id) === digest;

  async function column(name) {
    if (!columns.has(name)) {
      if (!(name in encoded)) throw new Error(`no column ${name}`);
      columns.set(name, new ARRAYS[meta.columns[name]](bytesOf(encoded[name]).buffer));
      delete encoded[name];
    }
    return columns.get(name);
  }

  function kept() {
    try {
      const found = JSON.parse(localStorage.getItem(stored) ?? "[]");
      return Array.isArray(found) ? found.filter((each) => typeof each?.id === "string" && typeof each.digest === "string") : [];
    } catch {
      return null;
    }
  }

  return {
    meta,
    column,
    rows: async (positions) => Array.from(positions, (position) => rows[position]),

    async find(text) {
      const wanted = fold(text);
      searched ??= rows.map((row) => [row.id, row.path, row.text].map(fold));
      return Uint8Array.from(searched, (row) => (row.some((words) => words.includes(wanted)) ? 1 : 0));
    },

    thumbnail(position) {
      const found = thumbnails[position];
      if (!found) return null;
      return meta.images ? `${encodeURIComponent(meta.images)}/${found}.webp` : `data:image/webp;base64,${found}`;
    },

    preview: () => null,

    async neighbours(embedding, position) {
      const near = await column(`near:${embedding}`), similarity = await column(`similarity:${embedding}`);
      const width = near.length / meta.count;
      const found = [];
      for (let at = position * width; at < (position + 1) * width; at += 1) {
        if (near[at] >= 0) found.push({ position: near[at], similarity: similarity[at] });
      }
      return found;
    },

    async search(embedding, words) {
      const known = meta.words.find((entry) => entry.embedding === meta.embeddings[embedding]);
      const at = known ? known.texts.indexOf(words) : -1;
      if (at < 0) throw new Error("this page can only search for the texts that it carries");
      return column(`words:${embedding}:${at}`);
    },

    /** Return the corrections of images of this page that this browser keeps; null where it keeps nothing. */
    corrections: async () => kept()?.filter(isOwn) ?? null,

    /** Count the decisions that it keeps besides: of other pages, and of images that are not these any more. */
    unused: () => (kept() ?? []).filter((correction) => !isOwn(correction)).length,

    async record({ record = [], remove = [] }) {
      const gone = new Set([...remove, ...record.map((correction) => correction.id)]);
      const rest = (kept() ?? []).filter((correction) => !isOwn(correction) || !gone.has(correction.id));
      localStorage.setItem(stored, JSON.stringify([...rest, ...record]));
    },
  };
}
