"use strict";
/* In which order images are reviewed, and which of them are decided together: pure functions on columns. */

/**
 * Order rows by suspicion: suspect labels by the probability of their label, then wrong answers by
 * their confidence, then, where asked for, the other labelled rows by the probability of their label.
 * @param {{label: Int8Array, suspect: Float32Array, answer: Int8Array|null, probability: Float32Array|null}} columns
 *   `answer` and `probability` (n*K, row-major) of one system, null where there is none
 * @param {{labels: number, others: boolean}} options how many labels there are
 * @returns {number[]} positions
 */
function suspicionOrder(columns, { labels, others }) {
  const { label, suspect, answer, probability } = columns;
  const of = (position, name) => (probability ? probability[position * labels + name] : NaN);
  const ranks = [[], [], []];
  for (let position = 0; position < label.length; position += 1) {
    if (label[position] < 0) continue;
    const isWrong = answer !== null && answer[position] >= 0 && answer[position] !== label[position];
    ranks[Number.isFinite(suspect[position]) ? 0 : isWrong ? 1 : 2].push(position);
  }
  return [
    ...sortedBy(ranks[0], (position) => suspect[position]),
    ...sortedBy(ranks[1], (position) => -of(position, answer[position])),
    ...(others ? sortedBy(ranks[2], (position) => of(position, label[position])) : []),
  ];
}

/** Sort positions by a number, those without one last; equal ones stay in the order of the table. */
function sortedBy(positions, value) {
  const keyed = positions.map((position) => [Number.isNaN(value(position)) ? Infinity : value(position), position]);
  return keyed.sort((one, other) => (one[0] === other[0] ? 0 : one[0] - other[0])).map(([, position]) => position);
}

/**
 * Put equal and near-equal images together where the first of them stands.
 * @param {Iterable<number>} positions
 * @param {{label: Int8Array, group: Int32Array}} columns
 * @param {boolean} together false leaves every image alone
 * @returns {number[][]} what is decided in one step; rows without a label join no others
 */
function reviewSteps(positions, { label, group }, together) {
  const asked = [...positions];
  if (!together) return asked.map((position) => [position]);
  const wanted = new Set(asked.filter((position) => label[position] >= 0).map((position) => group[position]));
  const members = new Map([...wanted].filter((number) => number >= 0).map((number) => [number, []]));
  for (let position = 0; position < group.length; position += 1) {
    if (label[position] >= 0) members.get(group[position])?.push(position);
  }
  const taken = new Set();
  const steps = [];
  for (const position of asked) {
    if (taken.has(position)) continue;
    const others = label[position] >= 0 ? members.get(group[position]) ?? [] : [];
    const step = [position, ...others.filter((other) => other !== position)];
    for (const each of step) taken.add(each);
    steps.push(step);
  }
  return steps;
}
