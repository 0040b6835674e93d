/** What scores say at a threshold, over all thresholds, and by class: pure functions on arrays. */
"use strict";

/**
 * Scores of one class against all others, every part sorted: counting what lies above a threshold
 * is then a binary search, so a step of the slider costs the same for 100 rows and for 1,000,000.
 * `unreadable` counts the labelled rows without an image, which every threshold answers alike.
 * @typedef {{positive: Float64Array, negative: Float64Array, predict: Float64Array,
 *   unreadable: Counts, unscored: number}} Ranking
 * @typedef {{tp: number, fp: number, fn: number, tn: number}} Counts
 */
const figures = (() => {
  /** Divide, with 0 where there is nothing to divide by (scikit-learn's zero_division=0). */
  const ratio = (part, whole) => (whole === 0 ? 0 : part / whole);

  /**
   * Sort a system's scores of class `target`, by the truth. A labelled row without a score keeps
   * its stored answer, as one whose image cannot be read; one without an answer takes no part.
   * @param {Float64Array} p (n * classes) row-major
   * @param {Int8Array} label (n,) -1: to predict
   * @param {Int8Array} answer (n,) of the system, -1: none
   * @returns {Ranking}
   */
  function rank(p, label, answer, classes, target) {
    const [positive, negative, predict] = [0, 1, 2];
    const parts = Uint8Array.from(label, (truth) => (truth === target ? positive : truth < 0 ? predict : negative));
    const sizes = [0, 0, 0];
    const unreadable = { tp: 0, fp: 0, fn: 0, tn: 0 };
    let unscored = 0;
    for (let row = 0; row < parts.length; row += 1) {
      if (!Number.isNaN(p[row * classes + target])) sizes[parts[row]] += 1;
      else if (parts[row] === predict) unscored += 1;
      else if (answer[row] >= 0) unreadable[kindOf(parts[row] === positive, answer[row] === target)] += 1;
    }
    const sorted = sizes.map((size) => new Float64Array(size));
    for (let row = 0; row < parts.length; row += 1) {
      const score = p[row * classes + target];
      if (Number.isNaN(score)) continue;
      sizes[parts[row]] -= 1;
      sorted[parts[row]][sizes[parts[row]]] = score;
    }
    for (const scores of sorted) scores.sort();
    return { positive: sorted[positive], negative: sorted[negative], predict: sorted[predict], unreadable, unscored };
  }

  /** Name the cell of a decision. */
  function kindOf(positive, decided) {
    return positive ? (decided ? "tp" : "fn") : decided ? "fp" : "tn";
  }

  /** Count sorted scores above a threshold; those equal to it are not. */
  function above(sorted, threshold) {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sorted[middle] > threshold) high = middle;
      else low = middle + 1;
    }
    return sorted.length - low;
  }

  /** Count decisions p > threshold against the truth. @returns {Counts} */
  function countsAt(ranking, threshold) {
    const { positive, negative, unreadable } = ranking;
    const tp = above(positive, threshold);
    const fp = above(negative, threshold);
    return {
      tp: tp + unreadable.tp,
      fp: fp + unreadable.fp,
      fn: positive.length - tp + unreadable.fn,
      tn: negative.length - fp + unreadable.tn,
    };
  }

  /** Arrange counts of two classes as a matrix [truth][answer]. */
  function matrixOf({ tp, fp, fn, tn }, positive) {
    return positive === 1
      ? [
          [tn, fp],
          [fn, tp],
        ]
      : [
          [tp, fn],
          [fp, tn],
        ];
  }

  /** Compute the figures of a class from its counts, each of them in [0, 1]. */
  function ratesOf({ tp, fp, fn, tn }) {
    const [recall, specificity] = [ratio(tp, tp + fn), ratio(tn, tn + fp)];
    const f1 = ratio(2 * tp, 2 * tp + fp + fn);
    const classes = (tp + fn > 0) + (tn + fp > 0);
    return {
      macro_f1: (f1 + ratio(2 * tn, 2 * tn + fp + fn)) / 2,
      accuracy: ratio(tp + tn, tp + fp + fn + tn),
      balanced_accuracy: ratio(recall + specificity, classes),
      precision: ratio(tp, tp + fp),
      recall,
      specificity,
      f1,
    };
  }

  /** Compute figures of a matrix [truth][answer] of any number of classes, means over classes. */
  function matrixRates(matrix) {
    const sums = matrix.map((row) => row.reduce((sum, cell) => sum + cell, 0));
    const decided = matrix.map((_, k) => matrix.reduce((sum, row) => sum + row[k], 0));
    const hits = matrix.map((row, k) => row[k]);
    const total = sums.reduce((sum, x) => sum + x, 0);
    const mean = (values, size = values.length) => ratio(values.reduce((a, b) => a + b, 0), size);
    return {
      macro_f1: mean(hits.map((hit, k) => ratio(2 * hit, sums[k] + decided[k]))),
      accuracy: ratio(mean(hits, 1), total),
      balanced_accuracy: mean(
        hits.map((hit, k) => ratio(hit, sums[k])),
        sums.filter((x) => x > 0).length,
      ),
    };
  }

  /** Count the images above a threshold, labelled and to predict: those to look through. */
  function reviewAt(ranking, threshold) {
    const { positive, negative, predict, unscored } = ranking;
    return {
      labelled: above(positive, threshold) + above(negative, threshold),
      ofLabelled: positive.length + negative.length,
      predict: above(predict, threshold),
      ofPredict: predict.length + unscored,
      unscored,
    };
  }

  /** Count answers against the truth: a matrix [truth][answer]. */
  function confusion(label, answers, classes) {
    const matrix = Array.from({ length: classes }, () => new Array(classes).fill(0));
    for (let row = 0; row < label.length; row++) {
      if (label[row] >= 0 && answers[row] >= 0) matrix[label[row]][answers[row]]++;
    }
    return matrix;
  }

  /** Take the counts of a class out of a matrix [truth][answer]. @returns {Counts} */
  function countsOf(matrix, target) {
    const counts = { tp: 0, fp: 0, fn: 0, tn: 0 };
    matrix.forEach((row, truth) => row.forEach((cell, answer) => {
      counts[kindOf(truth === target, answer === target)] += cell;
    }));
    return counts;
  }

  /**
   * Follow precision and recall from the highest score down, a step per distinct score.
   * `precision` is the average precision, `area` that under the ROC curve, as scikit-learn has
   * them; the points are thinned to what can be seen. Rows without an image take no part.
   * @returns {{pr: number[][], roc: number[][], precision: number, area: number}}
   */
  function curves({ positive, negative }) {
    const [hits, others] = [positive.length, negative.length];
    const none = { pr: [], roc: [], precision: NaN, area: NaN };
    if (hits === 0 || others === 0) return none;
    const pr = thinned();
    const roc = thinned();
    roc.add(0, 0);
    let [i, j, precision, area] = [hits, others, 0, 0];
    while (i > 0 || j > 0) {
      const score = j === 0 || (i > 0 && positive[i - 1] > negative[j - 1]) ? positive[i - 1] : negative[j - 1];
      const tp = hits - i;
      const fp = others - j;
      while (i > 0 && positive[i - 1] === score) i -= 1;
      while (j > 0 && negative[j - 1] === score) j -= 1;
      const found = hits - i;
      const wrong = others - j;
      const right = found / (found + wrong);
      precision += ((found - tp) / hits) * right;
      area += ((wrong - fp) * (found + tp)) / 2 / hits / others;
      pr.add(found / hits, right);
      roc.add(wrong / others, found / hits);
    }
    return { pr: pr.points(), roc: roc.points(), precision, area };
  }

  /** Keep the points of a line that are far enough from the one before to be seen; ends stay. */
  function thinned(step = 1 / 400) {
    const points = [];
    let [keptX, keptY, x, y] = [-Infinity, -Infinity, 0, 0];
    const keep = () => {
      points.push([x, y]);
      [keptX, keptY] = [x, y];
    };
    return {
      add(nextX, nextY) {
        x = nextX;
        y = nextY;
        if (Math.abs(x - keptX) + Math.abs(y - keptY) >= step) keep();
      },
      points() {
        if (x !== keptX || y !== keptY) keep();
        return points;
      },
    };
  }

  /** Count scores in equal bins over [0, 1], by the truth; what lies outside is in the end bins. */
  function histogram({ positive, negative, predict }, bins = 40) {
    const binned = (scores) => {
      const counts = new Array(bins).fill(0);
      for (const score of scores) counts[binOf(score, bins)] += 1;
      return counts;
    };
    return { positive: binned(positive), negative: binned(negative), predict: binned(predict) };
  }

  /** Find the bin of a score. */
  function binOf(score, bins) {
    return Math.min(bins - 1, Math.max(0, Math.floor(score * bins)));
  }

  /**
   * Compare probabilities with what happened, in equal bins over [0, 1]: mean probability, share of
   * the class with its 95 % interval, and count of every bin that has rows.
   */
  function calibration({ positive, negative }, bins = 10) {
    const found = Array.from({ length: bins }, () => ({ count: 0, hits: 0, sum: 0 }));
    const fill = (scores, hit) => {
      for (const score of scores) {
        const bin = found[binOf(score, bins)];
        bin.count += 1;
        bin.hits += hit;
        bin.sum += score;
      }
    };
    fill(positive, 1);
    fill(negative, 0);
    return found
      .filter((bin) => bin.count > 0)
      .map(({ count, hits, sum }) => {
        const [low, high] = wilson(hits, count);
        return { count, mean: sum / count, share: hits / count, low, high };
      });
  }

  /** Compute Wilson's 95 % interval of a share. */
  function wilson(hits, count) {
    const z = 1.959964;
    const share = hits / count;
    const centre = (share + (z * z) / (2 * count)) / (1 + (z * z) / count);
    const half =
      (z / (1 + (z * z) / count)) *
      Math.sqrt((share * (1 - share)) / count + (z * z) / (4 * count * count));
    return [Math.max(0, centre - half), Math.min(1, centre + half)];
  }

  return {
    rank, countsAt, countsOf, matrixOf, ratesOf, matrixRates, reviewAt, confusion, curves, histogram, calibration, wilson,
  };
})();
