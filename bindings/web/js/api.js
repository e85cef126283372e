// The classes of the package: they check arguments and hand them to the compiled runtime.
import start, { Embedder, Images, Model, Texts } from "./centroid.js";
import { bytesOf, platform } from "./source.js";

export { CentroidError } from "./error.js";

let started;

export function init(wasm) {
  // Once; after a failure, the next call tries anew.
  started ??= (async () => {
    await start({ module_or_path: wasm ?? (await platform.wasm()) });
  })().catch((error) => {
    started = undefined;
    throw error;
  });
  return started;
}

const LOAD = ["mode", "maxLength", "truncate", "onProgress", "signal"];

/** Refuses options of unknown names, so that a misspelt one is not passed over. */
function known(options, names) {
  if (typeof options !== "object" || options === null) {
    throw new TypeError("options are an object");
  }
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) {
      throw new TypeError(`unknown option ${JSON.stringify(name)}; there are: ${names.join(", ")}`);
    }
  }
  return options;
}

/** A whole number from `least` on, or undefined. */
function count(value, name, least) {
  if (value === undefined) {
    return undefined;
  }
  if (!Number.isInteger(value) || value < least || value > 0xffff_ffff) {
    throw new TypeError(`${name} is a whole number of at least ${least}`);
  }
  return value;
}

function list(texts) {
  const all = typeof texts === "string" ? [texts] : texts;
  if (!Array.isArray(all) || !all.every((text) => typeof text === "string")) {
    throw new TypeError("texts are a string or an array of strings");
  }
  return all;
}

/** The model's bytes, checked. */
async function open(source, options) {
  known(options, LOAD);
  const { mode = "int8", maxLength, truncate = false, onProgress, signal } = options;
  if (typeof truncate !== "boolean") {
    throw new TypeError("truncate is true or false");
  }
  const settings = { mode: String(mode), maxLength: count(maxLength, "maxLength", 1), truncate };
  const [bytes] = await Promise.all([bytesOf(source, { onProgress, signal }), init()]);
  signal?.throwIfAborted();
  return { model: new Model(bytes), settings };
}

const RAW = Symbol("raw");

/** What all classes have: the part of the runtime that holds the model. */
class Pipeline {
  #raw;

  constructor(raw) {
    this.#raw = raw;
  }

  get [RAW]() {
    if (!this.#raw) {
      throw new Error("the model was freed");
    }
    return this.#raw;
  }

  free() {
    this.#raw?.free();
    this.#raw = undefined;
  }
}

// Node 20 and some browsers know no `using` yet.
if (Symbol.dispose) {
  Pipeline.prototype[Symbol.dispose] = Pipeline.prototype.free;
}

export class TextClassifier extends Pipeline {
  static async load(source, options = {}) {
    const { model, settings } = await open(source, options);
    return textClassifier(model, settings);
  }

  get labels() {
    return this[RAW].labels;
  }

  get maxLength() {
    return this[RAW].maxLength;
  }

  classify(texts, options = {}) {
    const { topK } = known(options, ["topK"]);
    const results = this[RAW].classify(list(texts), count(topK, "topK", 1));
    return typeof texts === "string" ? results[0] : results;
  }

  classifyPairs(pairs, options = {}) {
    const { topK } = known(options, ["topK"]);
    const pair = (of) => Array.isArray(of) && of.length === 2 && of.every((text) => typeof text === "string");
    if (!Array.isArray(pairs) || !pairs.every(pair)) {
      throw new TypeError("pairs are an array of arrays of two strings");
    }
    const [firsts, seconds] = [0, 1].map((i) => pairs.map((of) => of[i]));
    return this[RAW].classifyPairs(firsts, seconds, count(topK, "topK", 1));
  }
}

export class SentenceEmbedder extends Pipeline {
  static async load(source, options = {}) {
    const { model, settings } = await open(source, options);
    return sentenceEmbedder(model, settings);
  }

  get dimensions() {
    return this[RAW].dimensions;
  }

  get maxLength() {
    return this[RAW].maxLength;
  }

  encode(texts) {
    const vectors = this[RAW].encode(list(texts));
    return typeof texts === "string" ? vectors[0] : vectors;
  }
}

export class ImageClassifier extends Pipeline {
  static async load(source, options = {}) {
    const { model, settings } = await open(source, options);
    return imageClassifier(model, settings);
  }

  get labels() {
    return this[RAW].labels;
  }

  get size() {
    return this[RAW].size;
  }

  async classify(image, options = {}) {
    const { topK = 5 } = known(options, ["topK"]);
    const most = count(topK, "topK", 1);
    if (image instanceof Blob) {
      image = await image.arrayBuffer();
    }
    if (image instanceof ArrayBuffer) {
      return this[RAW].classify(new Uint8Array(image), most);
    }
    if (ArrayBuffer.isView(image)) {
      const bytes = new Uint8Array(image.buffer, image.byteOffset, image.byteLength);
      return this[RAW].classify(bytes, most);
    }
    // ImageData, or anything of that shape: node has none.
    const { width, height, data } = image ?? {};
    if (Number.isInteger(width) && Number.isInteger(height) && ArrayBuffer.isView(data)) {
      const pixels = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      return this[RAW].classifyPixels(width, height, pixels, most);
    }
    throw new TypeError("an image is the bytes of a file, a Blob or ImageData");
  }
}

function textClassifier(model, { mode, maxLength, truncate }) {
  return new TextClassifier(new Texts(model, mode, maxLength, truncate));
}

function sentenceEmbedder(model, { mode, maxLength, truncate }) {
  return new SentenceEmbedder(new Embedder(model, mode, maxLength, truncate));
}

function imageClassifier(model, { mode }) {
  return new ImageClassifier(new Images(model, mode));
}

export async function load(source, options = {}) {
  const { model, settings } = await open(source, options);
  switch (model.kind) {
    case "text-classifier":
      return textClassifier(model, settings);
    case "sentence-embedder":
      return sentenceEmbedder(model, settings);
    default:
      return imageClassifier(model, settings);
  }
}
