// Where models run, so that the page goes on while they do.
import { ImageClassifier, TextClassifier } from "./centroid/index.js";

const CACHE = "centroid-demo-@VERSION@";
const MODELS = {
  text: [TextClassifier, "models/sentiment.centroid", { truncate: true }],
  image: [ImageClassifier, "models/efficientnet-lite0.centroid", {}],
};
const loaded = {};
/** Whether each model lies in the cache, once that is known. */
const kept = {};

/** From the cache, else from the network and into the cache, where there is one. */
async function stored(name, url) {
  const cache = await self.caches?.open(CACHE).catch(() => undefined);
  const found = await cache?.match(url);
  if (found) {
    kept[name] = true;
    return found;
  }
  const response = await fetch(url);
  if (cache && response.ok) {
    // A full disk is no reason not to run.
    kept[name] = cache.put(url, response.clone()).then(
      () => true,
      () => false,
    );
  }
  return response;
}

async function load(name) {
  const [kind, url, options] = MODELS[name];
  const start = performance.now();
  const onProgress = (progress) => postMessage({ type: "progress", name, ...progress });
  loaded[name] = await kind.load(await stored(name, url), { ...options, onProgress });
  return { milliseconds: performance.now() - start };
}

async function run(name, input) {
  const start = performance.now();
  const result = await loaded[name].classify(input);
  return { result, milliseconds: performance.now() - start };
}

const ACTIONS = { load, run, kept: async (name) => ({ kept: (await kept[name]) ?? false }) };

addEventListener("message", async ({ data: { id, action, name, input } }) => {
  try {
    postMessage({ type: "done", id, ...(await ACTIONS[action](name, input)) });
  } catch (error) {
    postMessage({ type: "failed", id, message: error.message });
  }
});
