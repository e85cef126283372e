// Runs a program for wasm32-wasip1: the runner of tools/wasm-cargo.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [program, ...args] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...args], env: process.env });
const module = await WebAssembly.compile(await readFile(program));
const imports = wasi.getImportObject();
// What the C library lacks, as tools/wasm-cargo says: there are no threads.
const ENOSYS = 52;
imports.env = {};
for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    if (from === "env" && name.startsWith("pthread_")) {
        imports.env[name] = () => (name === "pthread_create" ? ENOSYS : 0);
    }
}
process.exit(wasi.start(await WebAssembly.instantiate(module, imports)));
