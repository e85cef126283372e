// The side of WebAssembly of tools/bindings/run, in node: what program.rs does.
import { readFileSync } from "node:fs";

import { TextClassifier } from "../../bindings/web/build/package/node.js";

const [model, file] = process.argv.slice(2);
const classifier = await TextClassifier.load(model);
classifier.classify(["a film that moves"]);
console.log("first");
const texts = readFileSync(file, "utf8").split("\n").slice(0, -1);
const scores = [];
const start = performance.now();
for (let at = 0; at < texts.length; at += 32) {
  for (const result of classifier.classify(texts.slice(at, at + 32))) {
    scores.push(result.scores.find(({ label }) => label === "positive").score);
  }
}
console.log(texts.length, (performance.now() - start) / 1e3, JSON.stringify(scores));
