// Where a model's bytes come from.
import { CentroidError } from "./error.js";

/** What a platform does differently; index.js and node.js fill it in. */
export const platform = {
  /** Where the compiled runtime is, or its bytes. */
  wasm: () => undefined,
  /** Reads what is not to be fetched. */
  read: async () => undefined,
};

/** The bytes of whatever `load` takes. */
export async function bytesOf(source, { onProgress, signal }) {
  if (source instanceof Uint8Array) {
    return source;
  }
  if (ArrayBuffer.isView(source)) {
    return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  }
  if (source instanceof ArrayBuffer) {
    return new Uint8Array(source);
  }
  if (source instanceof Blob) {
    return new Uint8Array(await source.arrayBuffer());
  }
  if (source instanceof Response) {
    return download(source, onProgress);
  }
  if (typeof source === "string" || source instanceof URL) {
    const read = await platform.read(source);
    if (read) {
      onProgress?.({ loaded: read.byteLength, total: read.byteLength });
      return read;
    }
  } else if (!(source instanceof Request)) {
    throw new TypeError("a model is a URL, a Request, a Response, a Blob, an ArrayBuffer or an array of bytes");
  }
  let response;
  try {
    response = await fetch(source, { signal });
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    throw new CentroidError(`${address(source)}: ${error.cause?.message ?? error.message}`, "io");
  }
  return download(response, onProgress);
}

function address(source) {
  return source instanceof Request ? source.url : String(source);
}

async function download(response, onProgress) {
  if (!response.ok) {
    const status = `${response.status} ${response.statusText}`.trim();
    throw new CentroidError(`${response.url || "the response"}: ${status}`, "io");
  }
  // The length is that of what was sent, which is not what arrives if it was compressed on the way.
  const length = Number(response.headers.get("content-length"));
  const total = length > 0 && !response.headers.get("content-encoding") ? length : undefined;
  const parts = [];
  let loaded = 0;
  const reader = response.body?.getReader();
  while (reader) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    parts.push(value);
    loaded += value.byteLength;
    onProgress?.({ loaded, total });
  }
  const bytes = new Uint8Array(loaded);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}
