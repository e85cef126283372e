// Keeps the page for use without a network. The worker puts models into the same cache.
const CACHE = "centroid-demo-@VERSION@";
const FILES = [
  "./",
  "app.js",
  "icon.svg",
  "style.css",
  "worker.js",
  "centroid/api.js",
  "centroid/centroid.js",
  "centroid/centroid_bg.wasm",
  "centroid/error.js",
  "centroid/index.js",
  "centroid/source.js",
];

addEventListener("install", (event) => {
  skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
});

addEventListener("activate", (event) => {
  const drop = async () => {
    const names = await caches.keys();
    const old = names.filter((name) => name.startsWith("centroid-demo-") && name !== CACHE);
    await Promise.all(old.map((name) => caches.delete(name)));
    await clients.claim();
  };
  event.waitUntil(drop());
});

addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && new URL(event.request.url).origin === location.origin) {
    const stored = async () => {
      const cache = await caches.open(CACHE);
      return (await cache.match(event.request)) ?? fetch(event.request);
    };
    event.respondWith(stored());
  }
});
