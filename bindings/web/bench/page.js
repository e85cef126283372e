// What bench.js calls in a page: both runtimes, on the page's own thread, each loaded when it is asked for.
const WORD = "movie";
// Ids of [CLS], "movie" and [SEP] in the vocabulary of both models.
const IDS = [101, 3185, 102];
const runtimes = {};

const starts = {
  async centroid() {
    const { SentenceEmbedder } = await import("/package/index.js");
    const embedder = await SentenceEmbedder.load("/models/minilm-l6.centroid");
    return (tokens) => {
      const text = Array(tokens - 2).fill(WORD).join(" ");
      return async () => embedder.encode(text);
    };
  },

  async onnxruntime(threads) {
    const ort = await import("/ort/ort.wasm.min.mjs");
    ort.env.wasm.wasmPaths = "/ort/";
    ort.env.wasm.numThreads = threads;
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    const session = await ort.InferenceSession.create("/onnx/onnxruntime-int8.onnx", options);
    return (tokens) => {
      const ids = BigInt64Array.from({ length: tokens }, (_, i) => BigInt(IDS[i === 0 ? 0 : i === tokens - 1 ? 2 : 1]));
      const tensor = (values) => new ort.Tensor("int64", values, [1, tokens]);
      const input = { input_ids: tensor(ids), attention_mask: tensor(new BigInt64Array(tokens).fill(1n)) };
      return async () => {
        const { output } = await session.run(input);
        return output.data;
      };
    };
  },

  async images() {
    const { ImageClassifier } = await import("/package/index.js");
    const classifier = await ImageClassifier.load("/models/efficientnet-lite0.centroid");
    const size = classifier.size;
    const data = Uint8Array.from({ length: size * size * 4 }, (_, i) => (i * 31) % 251);
    return () => () => classifier.classify({ width: size, height: size, data });
  },
};

/** Milliseconds from nothing to the first result, on a text of `tokens` tokens; its vector, to compare. */
export async function start(name, tokens, threads = 1) {
  const begin = performance.now();
  runtimes[name] = await starts[name](threads);
  const vector = await runtimes[name](tokens)();
  const milliseconds = performance.now() - begin;
  return { milliseconds, vector: ArrayBuffer.isView(vector) ? [...vector] : undefined };
}

/** The times of calls, one after the other, for at least `seconds` and at least three times. */
export async function time(name, tokens, seconds) {
  const call = runtimes[name](tokens);
  await call();
  const times = [];
  const end = performance.now() + 1000 * seconds;
  while (times.length < 3 || performance.now() < end) {
    const begin = performance.now();
    await call();
    times.push(performance.now() - begin);
  }
  return times;
}
