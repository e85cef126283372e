// The package in node, as npm would install it, without a browser.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import {
  COSINE,
  IMAGE_SCORE,
  MODELS,
  PICTURES,
  ROOT,
  SAME,
  TEXTS,
  TEXT_SCORE,
  WAYS,
  cosine,
  difference,
  native,
} from "./native.js";

const PACKAGE = `${ROOT}bindings/web/build/package`;
let folder;
let generated;
let centroid;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "centroid-web-"));
  generated = join(folder, "generated.centroid");
  native.generate(generated);
  const packed = execFileSync("npm", ["pack", "--json", "--pack-destination", folder, PACKAGE], { encoding: "utf8" });
  const [{ filename, files }] = Object.values(JSON.parse(packed));
  assert.deepEqual(files.map(({ path }) => path).sort(), [
    "LICENSE",
    "README.md",
    "api.js",
    "centroid.js",
    "centroid_bg.wasm",
    "error.js",
    "index.d.ts",
    "index.js",
    "node.js",
    "package.json",
    "source.js",
  ]);
  const app = ["install", "--prefix", folder, "--offline", "--no-audit", "--no-fund", join(folder, filename)];
  execFileSync("npm", app, { stdio: "pipe" });
  const { exports } = JSON.parse(readFileSync(join(folder, "node_modules/centroid-web/package.json")));
  centroid = await import(join(folder, "node_modules/centroid-web", exports["."].node));
});

after(() => rmSync(folder, { recursive: true, force: true }));

/** The error of kind `kind` with these words. */
const refused = (kind, words) => (error) => {
  assert.ok(error instanceof centroid.CentroidError, `${error}`);
  assert.equal(error.kind, kind);
  assert.match(error.message, words);
  return true;
};

test("a classifier of texts", async () => {
  const classifier = await centroid.load(MODELS.sentiment);
  assert.ok(classifier instanceof centroid.TextClassifier);
  assert.deepEqual([...classifier.labels].sort(), ["negative", "positive"]);
  const found = classifier.classify(TEXTS);
  for (const [i, result] of found.entries()) {
    assert.equal(result.score, result.scores[0].score);
    assert.equal(result.label, result.scores[0].label);
    // The same alone as among others.
    assert.deepEqual(classifier.classify(TEXTS[i]), result);
  }
  assert.equal(classifier.classify(TEXTS[0], { topK: 1 }).scores.length, 1);
  assert.deepEqual(classifier.classify([]), []);
  classifier.free();
  classifier.free();
  assert.throws(() => classifier.classify("x"), /freed/);
});

for (const way of WAYS) {
  const { mode, isa, same } = way;
  const against = `mode ${mode}, against the program's ${isa ?? "fastest instructions"}`;

  test(`scores of texts: ${against}`, async (t) => {
    const classifier = await centroid.TextClassifier.load(MODELS.sentiment, { mode });
    const found = classifier.classify(TEXTS);
    const expected = native.classify(MODELS.sentiment, TEXTS, way);
    const apart = expected.map(({ labels }, i) => difference(found[i].scores, labels));
    t.diagnostic(`largest difference: ${Math.max(...apart)}`);
    assert.ok(apart.every((d) => d <= (same ? SAME : TEXT_SCORE)), `${apart}`);
    for (const [i, { tokens, truncated, labels }] of expected.entries()) {
      assert.equal(found[i].tokens, tokens);
      assert.equal(found[i].truncated, truncated);
      assert.equal(found[i].label, labels[0].label);
    }
  });

  test(`vectors of texts: ${against}`, async (t) => {
    for (const model of [MODELS.minilm, generated]) {
      const embedder = await centroid.SentenceEmbedder.load(readFileSync(model), { mode });
      assert.equal(embedder.dimensions, 384);
      const found = embedder.encode(TEXTS);
      assert.deepEqual(embedder.encode(TEXTS[0]), found[0]);
      for (const [i, { embedding }] of native.embed(model, TEXTS, way).entries()) {
        assert.ok(found[i] instanceof Float32Array);
        const apart = Math.max(...embedding.map((value, k) => Math.abs(value - found[i][k])));
        t.diagnostic(`cosine ${cosine(found[i], embedding)}, largest difference ${apart}`);
        assert.ok(same ? apart <= SAME : cosine(found[i], embedding) >= COSINE, TEXTS[i]);
      }
    }
  });

  test(`scores of pictures: ${against}`, async (t) => {
    const classifier = await centroid.ImageClassifier.load(new URL(`file://${MODELS.lite0}`), { mode });
    assert.equal(classifier.size, 224);
    assert.equal(classifier.labels.length, 1000);
    const apart = [];
    for (const [i, { labels }] of native.classifyImages(MODELS.lite0, PICTURES, way).entries()) {
      const found = await classifier.classify(readFileSync(PICTURES[i]), { topK: 1000 });
      apart.push(difference(found.scores, labels));
      if (same) {
        assert.equal(found.label, labels[0].label, PICTURES[i]);
      }
    }
    assert.equal(apart.length, 20);
    t.diagnostic(`largest difference: ${Math.max(...apart)}`);
    assert.ok(apart.every((d) => d <= (same ? SAME : IMAGE_SCORE)), `${apart}`);
  });
}

test("pairs and the mode exact work as in the library", async () => {
  const classifier = await centroid.TextClassifier.load(MODELS.sentiment, { mode: "exact", maxLength: 8, truncate: true });
  assert.equal(classifier.maxLength, 8);
  const [pair] = classifier.classifyPairs([["one two three four five", "six"]]);
  assert.equal(pair.tokens, 8);
  assert.equal(pair.truncated, true);
  const exact = await centroid.TextClassifier.load(MODELS.sentiment, { mode: "exact" });
  const int8 = await centroid.TextClassifier.load(MODELS.sentiment);
  const [a, b] = [exact, int8].map((of) => of.classify(TEXTS[0]).scores[0].logit);
  assert.notEqual(a, b);
  assert.ok(Math.abs(a - b) < 0.3);
});

test("pixels, blobs and bytes of a picture are one picture", async () => {
  const classifier = await centroid.ImageClassifier.load(MODELS.lite0);
  const bytes = readFileSync(PICTURES[0]);
  const found = await classifier.classify(bytes);
  assert.equal(found.scores.length, 5);
  assert.deepEqual(await classifier.classify(new Blob([bytes])), found);
  assert.deepEqual(await classifier.classify(Uint8Array.from(bytes).buffer), found);
  const size = { width: 300, height: 200 };
  const grey = await classifier.classify({ ...size, data: new Uint8ClampedArray(300 * 200 * 4).fill(128) });
  assert.equal(grey.scores.length, 5);
  await assert.rejects(classifier.classify({ ...size, data: new Uint8Array(7) }), refused("input", /7 bytes where 300 x 200/));
  await assert.rejects(classifier.classify({ width: 0, height: 0, data: new Uint8Array(0) }), refused("input", /0 pixels/));
  await assert.rejects(classifier.classify(new TextEncoder().encode("once upon a time")), refused("input", /not a picture/));
  await assert.rejects(classifier.classify(bytes.subarray(0, 100)), refused("input", /damaged/));
  await assert.rejects(classifier.classify("cat.jpg"), TypeError);
});

test("what is no model is refused with the library's words", async () => {
  const bytes = readFileSync(MODELS.lite0);
  await assert.rejects(centroid.load(new Uint8Array(0)), refused("format", /./));
  await assert.rejects(centroid.load(new TextEncoder().encode("{}".repeat(100))), refused("format", /./));
  await assert.rejects(centroid.load(bytes.subarray(0, 100_000)), refused("format", /100000 bytes where its preamble says/));
  const flipped = Uint8Array.from(bytes);
  flipped[1_000_000] ^= 1;
  await assert.rejects(centroid.load(flipped), refused("checksum", /./));
  await assert.rejects(centroid.load(new Blob([flipped])), refused("checksum", /./));
  await assert.rejects(centroid.TextClassifier.load(bytes), refused("unsupported", /./));
  await assert.rejects(centroid.SentenceEmbedder.load(MODELS.sentiment), refused("unsupported", /classifier/));
  await assert.rejects(centroid.load("no/such.centroid"), refused("io", /no\/such\.centroid/));
  await assert.rejects(centroid.load(new Response("", { status: 404 })), refused("io", /404/));
  await assert.rejects(centroid.load(7), TypeError);
});

test("options and texts are checked", async () => {
  await assert.rejects(centroid.load(MODELS.sentiment, { maxlength: 3 }), /unknown option "maxlength"/);
  await assert.rejects(centroid.load(MODELS.sentiment, { maxLength: 0 }), TypeError);
  await assert.rejects(centroid.load(MODELS.sentiment, { maxLength: 1000 }), refused("config", /1000/));
  await assert.rejects(centroid.load(MODELS.sentiment, { mode: "int4" }), refused("config", /int4/));
  await assert.rejects(centroid.load(MODELS.sentiment, { signal: AbortSignal.abort() }), { name: "AbortError" });
  const classifier = await centroid.TextClassifier.load(MODELS.sentiment);
  const long = "word ".repeat(600);
  assert.throws(() => classifier.classify(["short", long]), (error) => error.text === 1 && refused("too-long", /602/)(error));
  assert.throws(() => classifier.classify(undefined), TypeError);
  assert.throws(() => classifier.classify(["x", 3]), TypeError);
  assert.throws(() => classifier.classify("x", { topK: 0 }), TypeError);
  assert.throws(() => classifier.classifyPairs([["x"]]), TypeError);
  // None of that has done any harm.
  assert.equal(classifier.classify(TEXTS[0]).label, "positive");
});

test("an example compiles with the package's types", () => {
  execFileSync(process.execPath, [join(import.meta.dirname, "node_modules/typescript/bin/tsc"), "--project", import.meta.dirname], {
    stdio: "pipe",
  });
});
