/** Where a model is: a URL (in node a path, too), what was fetched already, or its bytes. */
export type Source = string | URL | Request | Response | Blob | ArrayBuffer | ArrayBufferView;

/** How far a download has come, in bytes. */
export interface Progress {
  loaded: number;
  /** Unknown if the server does not say, or compresses what it sends. */
  total: number | undefined;
}

export interface LoadOptions {
  /** `"int8"` (the default) rounds activations to 8 bits, `"exact"` keeps them in f32. */
  mode?: "int8" | "exact";
  /** The most tokens of a text; the model's own limit if it is not given. Images have none. */
  maxLength?: number;
  /** Cuts longer texts, which are an error otherwise. */
  truncate?: boolean;
  /** Called while a model arrives. */
  onProgress?: (progress: Progress) => void;
  /** Gives the download up. */
  signal?: AbortSignal;
}

export interface Score {
  label: string;
  /** The softmax of the logits; the sigmoid where several labels may apply. */
  score: number;
  /** The label's number in the order of the model's logits. */
  index: number;
  logit: number;
}

export interface ImageResult {
  /** The best label. */
  label: string;
  /** Its score. */
  score: number;
  /** The best labels, the best one first. */
  scores: Score[];
}

export interface TextResult extends ImageResult {
  /** How many tokens the text has, special tokens included. */
  tokens: number;
  /** Whether it was cut. */
  truncated: boolean;
}

export interface TopK {
  /** So many of the best labels: of texts all if it is not given, of images 5. */
  topK?: number;
}

/** Decoded pixels of red, green, blue and alpha, such as `ImageData`. */
export interface Pixels {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray;
}

/** What an error is about. */
export type ErrorKind =
  | "io"
  | "format"
  | "checksum"
  | "unsupported"
  | "config"
  | "tokenizer"
  | "too-long"
  | "input"
  | "internal";

/** A model, text or image that the runtime refuses. Wrong types of arguments are a `TypeError`. */
export class CentroidError extends Error {
  readonly name: "CentroidError";
  readonly kind: ErrorKind;
  /** Which of the texts, from 0. */
  readonly text?: number;
  private constructor();
}

declare abstract class Pipeline {
  /** Gives the memory back. Nothing else may be called after that. */
  free(): void;
}

/** Classifies texts. */
export class TextClassifier extends Pipeline {
  private constructor();
  static load(source: Source, options?: LoadOptions): Promise<TextClassifier>;
  /** In the order of the model's logits. */
  readonly labels: string[];
  /** The most tokens of a text. */
  readonly maxLength: number;
  classify(text: string, options?: TopK): TextResult;
  classify(texts: readonly string[], options?: TopK): TextResult[];
  /** Two texts as one input, as for entailment. */
  classifyPairs(pairs: readonly (readonly [string, string])[], options?: TopK): TextResult[];
}

/** Makes a vector of each text. */
export class SentenceEmbedder extends Pipeline {
  private constructor();
  static load(source: Source, options?: LoadOptions): Promise<SentenceEmbedder>;
  /** Values of a vector. */
  readonly dimensions: number;
  /** The most tokens of a text. */
  readonly maxLength: number;
  encode(text: string): Float32Array;
  encode(texts: readonly string[]): Float32Array[];
}

/** Classifies images. */
export class ImageClassifier extends Pipeline {
  private constructor();
  static load(source: Source, options?: LoadOptions): Promise<ImageClassifier>;
  /** In the order of the model's logits. */
  readonly labels: string[];
  /** Height and width of what the network sees. */
  readonly size: number;
  /** Takes a file in JPEG, PNG or WebP, its bytes, or pixels. */
  classify(image: Blob | ArrayBuffer | ArrayBufferView | Pixels, options?: TopK): Promise<ImageResult>;
}

/** Loads a model of any kind; `instanceof` tells which it was. */
export function load(
  source: Source,
  options?: LoadOptions,
): Promise<TextClassifier | SentenceEmbedder | ImageClassifier>;

/**
 * Starts the runtime, which `load` does by itself. `wasm` says where `centroid_bg.wasm` is, if it does not lie
 * beside the module.
 */
export function init(
  wasm?: string | URL | Request | Response | ArrayBuffer | ArrayBufferView | WebAssembly.Module,
): Promise<void>;
