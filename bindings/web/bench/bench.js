// Times the package in a browser beside onnxruntime-web in the same page and the program outside, by turns:
// see tools/bench-web.
import { execFileSync } from "node:child_process";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";

import { chromium } from "playwright-core";

import { serve } from "../serve.js";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const PROGRAM = process.env.CENTROID;
const BROWSER = process.env.CHROMIUM;
const ORT = `${ROOT}bindings/web/bench/node_modules/onnxruntime-web/dist/`;
const PACKAGE = `${ROOT}bindings/web/build/package/`;
const ONNX = `${ROOT}.cache/peers/minilm-l6/`;
const TEXTS = `${ROOT}models/minilm-l6.centroid`;
const IMAGES = `${ROOT}models/efficientnet-lite0.centroid`;
const TOKENS = [3, 8, 32, 128, 256];

const { values } = parseArgs({ options: { rounds: { type: "string", default: "9" }, output: { type: "string" } } });
const rounds = Number(values.rounds);
const SECONDS = 0.3;

const median = (of) => [...of].sort((a, b) => a - b)[Math.floor(of.length / 2)];
const quantile = (of, q) => [...of].sort((a, b) => a - b)[Math.round(q * (of.length - 1))];
const say = (text) => process.stderr.write(`${text}\n`);

function native(model, tokens) {
  const sizes = tokens ? ["--seq", String(tokens)] : [];
  const args = ["bench", model, ...sizes, "--batch", "1", "--threads", "1", "--seconds", String(SECONDS), "--runs", "3", "-o", "json"];
  return JSON.parse(execFileSync(PROGRAM, args, { encoding: "utf8" }))[0];
}

const server = await serve(`${ROOT}bindings/web/bench`, {
  roots: { package: PACKAGE, models: `${ROOT}models`, ort: ORT, onnx: ONNX },
  // Without these a page gets no threads.
  headers: { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" },
});
const browser = await chromium.launch({ executablePath: BROWSER, args: ["--no-sandbox"] });

/** A page in a context of its own: nothing is in a cache. */
async function fresh() {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${server.url}bench.html`);
  const call = (what, ...args) => page.evaluate(async ([what, args]) => (await import("./page.js"))[what](...args), [what, args]);
  return { call, close: () => context.close() };
}

const add = (table, key, value) => {
  table[key] ??= [];
  table[key].push(value);
};

// From nothing to the first result
const loads = {};
let vectors = {};
for (let round = 0; round < rounds; round += 1) {
  for (const name of ["centroid", "onnxruntime"]) {
    const page = await fresh();
    const { milliseconds, vector } = await page.call("start", name, 8);
    vectors[name] = vector;
    await page.close();
    add(loads, name, milliseconds);
  }
  say(`load, round ${round + 1}: ${Object.entries(loads).map(([name, all]) => `${name} ${all.at(-1).toFixed(0)} ms`)}`);
}
const dot = vectors.centroid.reduce((sum, value, i) => sum + value * vectors.onnxruntime[i], 0);
if (!(dot > 0.5)) {
  throw new Error(`the models do not answer alike: cosine ${dot}`);
}

// Calls: one page with both runtimes, another with threads for onnxruntime
const both = await fresh();
const threaded = await fresh();
await both.call("start", "centroid", 8);
await both.call("start", "onnxruntime", 8);
await both.call("start", "images", 0);
const threads = Math.min(4, cpus().length);
await threaded.call("start", "onnxruntime", 8, threads);
const calls = {};
const ratios = {};
let kernel;
for (let round = 0; round < rounds; round += 1) {
  for (const tokens of TOKENS) {
    const times = {
      centroid: median(await both.call("time", "centroid", tokens, SECONDS)),
      onnxruntime: median(await both.call("time", "onnxruntime", tokens, SECONDS)),
      threaded: median(await threaded.call("time", "onnxruntime", tokens, SECONDS)),
    };
    const { p50_ms, kernel: name } = native(TEXTS, tokens);
    times.native = p50_ms;
    kernel = name;
    for (const [name, value] of Object.entries(times)) {
      add(calls, `${name} ${tokens}`, value);
      add(ratios, `${name} ${tokens}`, value / times.centroid);
    }
    say(`round ${round + 1}, ${tokens} tokens: ${Object.entries(times).map(([name, of]) => `${name} ${of.toFixed(2)}`).join(", ")} ms`);
  }
  const image = median(await both.call("time", "images", 0, SECONDS));
  const { p50_ms } = native(IMAGES);
  add(calls, "centroid image", image);
  add(calls, "native image", p50_ms);
  add(ratios, "native image", p50_ms / image);
}
const version = browser.version();
await browser.close();
await server.close();

// The report
const size = (path) => statSync(path).size;
const zipped = (path) => gzipSync(readFileSync(path), { level: 9 }).length;
const million = (bytes) => (bytes / 1e6).toFixed(2);
const number = (value) => (value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0));
const spread = (of) => `${number(median(of))} (${number(quantile(of, 0.1))} to ${number(quantile(of, 0.9))})`;
const cell = (key) => `${spread(calls[key])}<br>**${median(ratios[key]).toFixed(2)}x** (${quantile(ratios[key], 0.1).toFixed(2)} to ${quantile(ratios[key], 0.9).toFixed(2)})`;
const ort = JSON.parse(readFileSync(`${ROOT}bindings/web/bench/node_modules/onnxruntime-web/package.json`)).version;
const script = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs"].reduce((sum, name) => sum + size(ORT + name), 0);
const scripts = ["index.js", "api.js", "centroid.js", "error.js", "source.js"].reduce((sum, name) => sum + size(PACKAGE + name), 0);
const wasm = [`${PACKAGE}centroid_bg.wasm`, `${ORT}ort-wasm-simd-threaded.wasm`];
const report = `# In a browser: centroid and onnxruntime-web

Measured ${new Date().toISOString().slice(0, 10)} by \`tools/bench-web\` on ${cpus()[0].model}, ${cpus().length} processors; Chromium ${version} without a window, files from a server on the same machine. MiniLM-L6: \`models/minilm-l6.centroid\` and the int8 ONNX of \`tools/peers/run\` (fused for onnxruntime, quantized dynamically), whose vectors of a text have a cosine of ${dot.toFixed(3)}; onnxruntime-web ${ort}, its build for WebAssembly (\`ort.wasm.min.mjs\`). Both run on the page's own thread. Outside the browser: the program, one thread, kernel \`${kernel}\`.

## Size

| MB | centroid | onnxruntime-web |
| --- | --- | --- |
| WebAssembly | ${million(size(wasm[0]))} | ${million(size(wasm[1]))} |
| the same with gzip | ${million(zipped(wasm[0]))} | ${million(zipped(wasm[1]))} |
| JavaScript | ${million(scripts)} | ${million(script)} |
| model | ${million(size(TEXTS))}, tokenizer included | ${million(size(`${ONNX}onnxruntime-int8.onnx`))}, without one |

## From nothing to the first result

Of a text of 8 tokens: fetching the runtime and the model, compiling, opening, one call; in ${rounds} pages each, without anything in a cache. Median (10th to 90th percentile) in ms: centroid ${spread(loads.centroid)}, onnxruntime-web ${spread(loads.onnxruntime)}; it takes **${median(loads.onnxruntime.map((value, i) => value / loads.centroid[i])).toFixed(1)}x** as long.

## Time of a text, ms

Medians over ${rounds} rounds (10th to 90th percentile), all by turns in one run; in bold how many times as long as centroid in the browser, the median of the ratios of each round. centroid's times include the tokenizer, the program's and onnxruntime-web's do not.

| tokens | centroid in the browser | onnxruntime-web, 1 thread | onnxruntime-web, ${threads} threads | centroid outside, 1 thread |
| --- | --- | --- | --- | --- |
${TOKENS.map((tokens) => `| ${tokens} | ${spread(calls[`centroid ${tokens}`])} | ${["onnxruntime", "threaded", "native"].map((name) => cell(`${name} ${tokens}`)).join(" | ")} |`).join("\n")}

An image in \`models/efficientnet-lite0.centroid\`, 224 x 224 pixels that need no decoding: ${spread(calls["centroid image"])} in the browser, ${spread(calls["native image"])} outside.
`;
if (values.output) {
  writeFileSync(values.output, report);
}
process.stdout.write(report);
