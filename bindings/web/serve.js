// A server of files for the demo and the tests: node serve.js DIRECTORY [PORT]
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".jpg": "image/jpeg",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/**
 * Serves a directory on 127.0.0.1. `headers` go with every answer; `roots` are more directories, by the first
 * part of the path.
 */
export async function serve(directory, { port = 0, headers = {}, roots = {} } = {}) {
  const server = createServer(async (request, response) => {
    try {
      const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
      const [, first] = path.split("/");
      const [root, rest] = Object.hasOwn(roots, first) ? [roots[first], path.slice(first.length + 1)] : [directory, path];
      // After `normalize`, an absolute path has no `..` left.
      const file = join(resolve(root), rest.endsWith("/") ? `${rest}index.html` : rest);
      const found = await stat(file);
      if (!found.isFile()) {
        throw new Error("not a file");
      }
      response.writeHead(200, {
        "content-type": TYPES[extname(file)] ?? "application/octet-stream",
        "content-length": found.size,
        ...headers,
      });
      createReadStream(file).pipe(response);
    } catch {
      response.writeHead(404, { "content-type": "text/plain" }).end("not found\n");
    }
  });
  await new Promise((done, fail) => server.once("error", fail).listen(port, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    close: () => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [directory, port = "8080"] = process.argv.slice(2);
  if (!directory) {
    console.error("usage: node serve.js DIRECTORY [PORT]");
    process.exit(1);
  }
  const { url } = await serve(directory, { port: Number(port) });
  console.log(url);
}
