// What an app would write. It is compiled with --strict, not run.
import { CentroidError, ImageClassifier, SentenceEmbedder, TextClassifier, load, type Progress } from "centroid-web";

export async function texts(url: URL, signal: AbortSignal): Promise<string> {
  const onProgress = ({ loaded, total }: Progress): void => console.log(loaded, total ?? "?");
  const classifier: TextClassifier = await TextClassifier.load(url, { onProgress, signal, truncate: true });
  const one: { label: string; score: number; tokens: number } = classifier.classify("a text");
  const many: string[] = classifier.classify(["a", "b"] as const, { topK: 1 }).map((result) => result.scores[0]!.label);
  classifier.classifyPairs([["premise", "hypothesis"]]);
  classifier.free();
  return [one.label, ...many].join();
}

export async function vectors(bytes: ArrayBuffer): Promise<number> {
  const embedder = await SentenceEmbedder.load(bytes, { mode: "exact", maxLength: 64 });
  const [a, b]: Float32Array[] = embedder.encode(["a", "b"]);
  const c: Float32Array = embedder.encode("c");
  return (a?.[0] ?? 0) + (b?.[0] ?? 0) + c[0]! + embedder.dimensions;
}

export async function pictures(file: File, canvas: CanvasRenderingContext2D): Promise<string | undefined> {
  try {
    const model = await load("model.centroid");
    if (model instanceof ImageClassifier) {
      await model.classify(canvas.getImageData(0, 0, 10, 10));
      return (await model.classify(file, { topK: 3 })).scores.map(({ label }) => label).join();
    }
  } catch (error) {
    if (error instanceof CentroidError && error.kind === "checksum") {
      return error.message;
    }
    throw error;
  }
  return undefined;
}

export async function mistakes(classifier: TextClassifier): Promise<void> {
  // @ts-expect-error: texts are strings
  classifier.classify(3);
  // @ts-expect-error: there is no such option
  await TextClassifier.load("x", { maxlength: 3 });
  // @ts-expect-error: models are loaded
  new TextClassifier();
}
