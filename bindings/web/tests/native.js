// What the program says on this machine, to compare with.
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const PROGRAM = process.env.CENTROID ?? `${ROOT}target/debug/centroid`;

/**
 * How far a score, or a value of a vector, may be from that of the program, if both use the same algorithms: the
 * instruction set `portable` there, or the mode `exact`, whose sums differ in the order of additions alone.
 */
export const SAME = 1e-5;

// In the mode `int8` other instruction sets round sums in `f32` in other places, which now and then moves an
// activation to the next of its 255 values: `avx2` and `portable` differ as much. Above the most that was measured
// (tools/bindings/run: 0.021 among 423 texts).
/** Of a score of a text. */
export const TEXT_SCORE = 0.03;
/** Of a score of an image: it has more layers. */
export const IMAGE_SCORE = 0.03;
/** The least cosine of two vectors of a text. */
export const COSINE = 0.995;

export const MODELS = {
  sentiment: `${ROOT}models/sentiment.centroid`,
  minilm: `${ROOT}models/minilm-l6.centroid`,
  lite0: `${ROOT}models/efficientnet-lite0.centroid`,
};

export const TEXTS = [
  "A gorgeous, witty, seductive movie.",
  "The plot is dull and the actors know it.",
  "I laughed twice, and once it was meant to be funny.",
  "",
  "ÜBER-café naïve 電影 🎬 [SEP] x",
  "An hour too long, but what an ending!",
  `It goes on and on: ${"scene after scene of rain, ".repeat(12)}and then it stops.`,
];

/** Pictures that tools/fetch-lite0 has fetched. */
export const PICTURES = readdirSync(`${ROOT}.cache/lite0/imagenet`)
  .filter((name) => name.endsWith(".jpg"))
  .sort()
  .map((name) => `${ROOT}.cache/lite0/imagenet/${name}`);

function lines(args, isa) {
  const env = isa ? { ...process.env, CENTROID_ISA: isa } : process.env;
  const output = execFileSync(PROGRAM, args, { encoding: "utf8", env, maxBuffer: 1 << 28 });
  return output.trim().split("\n").map((line) => JSON.parse(line));
}

/** What there is to compare with: options of the package, those of the program, and whether it is the same. */
export const WAYS = [
  { mode: "int8", isa: "portable", same: true },
  { mode: "exact", isa: undefined, same: true },
  { mode: "int8", isa: undefined, same: false },
];

export const native = {
  classify: (model, texts, { mode, isa }) => lines(["classify", model, "--mode", mode, "--json", "--", ...texts], isa),
  classifyImages: (model, files, { mode, isa }) =>
    lines(["classify", model, "--mode", mode, "--json", "--top-k", "1000", "--", ...files], isa),
  /** Generated weights with a plan of larger blocks, whose products go by tables of dot products. */
  generate: (path) => execFileSync(PROGRAM, ["convert", "--random", "minilm-l6", "-o", path], { stdio: "pipe" }),
  embed: (model, texts, { mode, isa }) => lines(["embed", model, "--mode", mode, "--json", "--", ...texts], isa),
};

export function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** The largest difference of the scores of each label; NaN if the labels are others. */
export function difference(scores, labels) {
  // Labels of nearly the same score may change places, and two classes of ImageNet may have one name.
  const [a, b] = [scores, labels].map((all) =>
    [...all].sort((x, y) => x.label.localeCompare(y.label) || y.score - x.score),
  );
  return Math.max(...b.map(({ label, score }, i) => (a[i]?.label === label ? Math.abs(a[i].score - score) : NaN)));
}
