/** The data of a page that shows the queue of a review: images come by their digests, one after the other. */
"use strict";

/** Make the `data` of the page of a review. */
function queueSource() {
  const digests = [];

  async function ask(address, content) {
    let answer;
    try {
      answer = await fetch(address, {
        method: "POST", credentials: "omit", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content),
      });
    } catch {
      throw new Error(t("server.ended"));
    }
    if (answer.ok) return answer.json();
    const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
    throw new Error(error);
  }

  return {
    meta: block("meta"),
    ask,

    /** Number an image, so that `careImage` can show it. */
    place(digest) {
      if (!digests.includes(digest)) digests.push(digest);
      return digests.indexOf(digest);
    },

    digest: (position) => digests[position],
    thumbnail: (position) => `thumb/${digests[position]}`,
    preview: (position) => `preview/${digests[position]}`,
    // Why an image cannot be shown is known to the server only.
    column: async () => digests.map(() => 0),
  };
}
