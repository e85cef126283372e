// Node: the compiled runtime and models may be files, which fetch() does not read.
import { readFile } from "node:fs/promises";

import { CentroidError } from "./error.js";
import { platform } from "./source.js";

export { CentroidError, ImageClassifier, SentenceEmbedder, TextClassifier, init, load } from "./api.js";

platform.wasm = () => readFile(new URL("centroid_bg.wasm", import.meta.url));

/** The bytes of a file, or undefined for what is to be fetched. */
platform.read = async (source) => {
  const url = source instanceof URL ? source : undefined;
  if (url ? url.protocol !== "file:" : /^(https?|data|blob):/i.test(source)) {
    return undefined;
  }
  try {
    return await readFile(url ?? (source.startsWith("file:") ? new URL(source) : source));
  } catch (error) {
    throw new CentroidError(error.message, "io");
  }
};
