// The demo in a browser: results, progress, messages, and use without a network.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { serve } from "../serve.js";
import { MODELS, PICTURES, ROOT, SAME, TEXTS, WAYS, native } from "./native.js";

const DEMO = `${ROOT}bindings/web/build/demo`;
const SCREENSHOTS = `${ROOT}bindings/web/build/screenshots`;
const [WAY] = WAYS;
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";

let browser;

before(async () => {
  assert.ok(existsSync(BROWSER), `${BROWSER} is missing: set CHROMIUM`);
  mkdirSync(SCREENSHOTS, { recursive: true });
  browser = await chromium.launch({ executablePath: BROWSER, args: ["--no-sandbox"] });
});

after(() => browser?.close());

/** Opens the page in a context of its own; `change` may change what it is sent. */
async function open(t, change = async () => {}, options = {}) {
  const server = await serve(DEMO);
  const context = await browser.newContext(options);
  t.after(async () => {
    await context.close();
    await server.close();
  });
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await change(context);
  await page.goto(server.url);
  return { server, context, page, complaints };
}

/** Waits for a line of the page to say something. */
async function says(page, id, words) {
  await page.waitForFunction(
    ([id, source]) => new RegExp(source).test(document.getElementById(id).textContent),
    [id, words.source],
    { timeout: 30_000 },
  );
  return page.textContent(`#${id}`);
}

/** Labels and shares of the bars. */
async function bars(page, name) {
  const lines = await page.$$eval(`#${name}-result .bar`, (all) => all.map((bar) => [...bar.querySelectorAll("span")].map((s) => s.textContent)));
  return lines.map(([label, share]) => ({ label, score: Number.parseFloat(share) / 100 }));
}

/** The bars are those of the program. Their shares have one digit after the point. */
function same(found, labels) {
  assert.equal(found.length, Math.min(labels.length, 5));
  for (const { label, score } of found) {
    const expected = labels.find((other) => other.label === label);
    assert.ok(expected, label);
    assert.ok(Math.abs(score - expected.score) <= SAME + 0.0005, `${label}: ${score}, ${expected.score}`);
  }
  assert.equal(found[0].label, labels[0].label);
  assert.deepEqual(found, [...found].sort((a, b) => b.score - a.score));
}

async function type(page, text, tokens) {
  await page.fill("#text", text);
  await says(page, "text-note", new RegExp(`^${tokens} tokens.* ms$`));
}

test("sentences and pictures get what the program says", async (t) => {
  const { page, complaints } = await open(t);
  await says(page, "text-status", /^Loaded in/);
  const texts = TEXTS.filter((text) => text);
  for (const [i, { tokens, labels }] of native.classify(MODELS.sentiment, texts, WAY).entries()) {
    await type(page, texts[i], tokens);
    same(await bars(page, "text"), labels);
  }
  await type(page, TEXTS[0], 10);
  await says(page, "image-status", /^Loaded in/);
  const pictures = PICTURES.slice(0, 3);
  const expected = native.classifyImages(MODELS.lite0, pictures, WAY);
  for (const [i, { labels }] of expected.entries()) {
    await page.setInputFiles("#file", pictures[i]);
    await says(page, "image-note", /decoding included$/);
    same(await bars(page, "image"), labels);
    assert.ok(await page.isVisible("#preview"));
  }
  await says(page, "offline", /^Stored/);
  await page.screenshot({ path: `${SCREENSHOTS}/wide.png`, fullPage: true });
  assert.deepEqual(complaints, []);
});

test("a picture can be dropped, and other files get a message", async (t) => {
  const { page } = await open(t, undefined, { viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  await says(page, "image-status", /^Loaded in/);
  const drop = async (bytes, name) => {
    const transfer = await page.evaluateHandle(
      ([bytes, name]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(bytes)], name));
        return transfer;
      },
      [[...bytes], name],
    );
    await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
  };
  await drop(Buffer.from("once upon a time"), "story.txt");
  assert.match(await says(page, "image-note", /picture/), /^story\.txt: .*not a picture in JPEG, PNG or WebP/);
  assert.ok(await page.evaluate(() => document.getElementById("image-note").classList.contains("wrong")));
  assert.equal((await bars(page, "image")).length, 0);
  const [{ labels }] = native.classifyImages(MODELS.lite0, [PICTURES[4]], WAY);
  await drop(readFileSync(PICTURES[4]), "picture.jpg");
  await says(page, "image-note", /decoding included$/);
  same(await bars(page, "image"), labels);
  await page.screenshot({ path: `${SCREENSHOTS}/narrow-dark.png`, fullPage: true });
});

test("an empty text asks for one, a long one is cut", async (t) => {
  const { page } = await open(t);
  await says(page, "text-status", /^Loaded in/);
  await page.fill("#text", "  ");
  await says(page, "text-note", /^Type a sentence\.$/);
  assert.equal((await bars(page, "text")).length, 0);
  await page.fill("#text", "word ".repeat(600));
  await says(page, "text-note", /tokens, the rest was left out/);
  await page.click("#examples button >> nth=0");
  await says(page, "text-note", /^12 tokens/);
  assert.equal((await bars(page, "text"))[0].label, "negative");
});

test("progress is shown while a model arrives, and the page does not freeze", async (t) => {
  const seen = [];
  const { page } = await open(t, async (context) => {
    await context.exposeFunction("seen", (value) => seen.push(value));
    await context.addInitScript(() => {
      addEventListener("DOMContentLoaded", () => {
        const bar = document.getElementById("text-progress");
        new MutationObserver(() => window.seen(bar.value)).observe(bar, { attributeFilter: ["value"] });
      });
    });
  });
  await says(page, "text-status", /^Loaded in/);
  assert.ok(seen.length > 1, `${seen}`);
  assert.deepEqual(seen, [...seen].sort((a, b) => a - b));
  assert.equal(seen.at(-1), 1);
  assert.ok(await page.isHidden("#text-progress"));
  // Frames go on while a picture is looked at.
  await says(page, "image-status", /^Loaded in/);
  await page.setInputFiles("#file", PICTURES[0]);
  const longest = page.evaluate(async () => {
    let longest = 0;
    let last = performance.now();
    while (!/included$/.test(document.getElementById("image-note").textContent)) {
      await new Promise((done) => setTimeout(done, 1));
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }
    return longest;
  });
  t.diagnostic(`the page's longest pause: ${Math.round(await longest)} ms`);
});

for (const how of ["the browser is offline", "the server is gone"]) {
  test(`after the first load it works while ${how}`, async (t) => {
    const { server, context, page, complaints } = await open(t);
    await says(page, "offline", /^Stored/);
    if (how === "the server is gone") {
      await server.close();
      await assert.rejects(fetch(server.url));
    } else {
      await context.setOffline(true);
    }
    await page.reload();
    await says(page, "text-status", /^Loaded in/);
    await type(page, TEXTS[1], 12);
    assert.equal((await bars(page, "text"))[0].label, "negative");
    await says(page, "image-status", /^Loaded in/);
    await page.setInputFiles("#file", PICTURES[0]);
    await says(page, "image-note", /decoding included$/);
    assert.deepEqual(complaints, []);
  });
}

const bytes = readFileSync(MODELS.sentiment);
const answers = {
  "is missing": [{ status: 404, body: "" }, /404/],
  "is cut short": [{ body: bytes.subarray(0, 100_000) }, /100000 bytes where its preamble says 4947304/],
  "is no model": [{ body: "<!doctype html><title>Sign in</title>".repeat(10) }, /not a \.centroid file|magic|artifact/],
  "is of another kind": [{ body: readFileSync(MODELS.minilm) }, /embedding model and not a classifier/],
};
for (const [what, [answer, words]] of Object.entries(answers)) {
  test(`a text model that ${what} is said to be so, and pictures go on`, async (t) => {
    const { page } = await open(t, (context) => context.route("**/sentiment.centroid", (route) => route.fulfill(answer)));
    const said = await says(page, "text-status", /could not be loaded/);
    assert.match(said, words);
    assert.ok(await page.isDisabled("#text"));
    await says(page, "image-status", /^Loaded in/);
    await page.setInputFiles("#file", PICTURES[0]);
    await says(page, "image-note", /decoding included$/);
  });
}
