// Browsers and their workers: the compiled runtime lies beside this file and is fetched.
import { platform } from "./source.js";

export { CentroidError, ImageClassifier, SentenceEmbedder, TextClassifier, init, load } from "./api.js";

platform.wasm = () => new URL("centroid_bg.wasm", import.meta.url);
