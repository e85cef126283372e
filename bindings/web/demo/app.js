const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const calls = new Map();
let next = 0;

function call(action, name, input) {
  return new Promise((done, failed) => {
    calls.set(next, { done, failed });
    worker.postMessage({ id: next, action, name, input });
    next += 1;
  });
}

worker.addEventListener("message", ({ data }) => {
  if (data.type === "progress") {
    progress(data);
    return;
  }
  const { done, failed } = calls.get(data.id);
  calls.delete(data.id);
  if (data.type === "done") {
    done(data);
  } else {
    failed(new Error(data.message));
  }
});

worker.addEventListener("error", (event) => {
  // A module that is not found has no message.
  const error = new Error(event.message || "the program could not be loaded");
  for (const { failed } of calls.values()) {
    failed(error);
  }
  calls.clear();
});

const element = (id) => document.getElementById(id);
const milliseconds = (time) => `${time < 10 ? time.toFixed(1) : Math.round(time)} ms`;
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

function progress({ name, loaded, total }) {
  const bar = element(`${name}-progress`);
  if (bar.hidden) {
    // It has failed before all of it was there.
    return;
  }
  if (total === undefined) {
    bar.removeAttribute("value");
  } else {
    bar.value = loaded / total;
  }
  const of = total === undefined ? "" : ` of ${megabytes(total)}`;
  element(`${name}-status`).textContent = `Loading the ${name} model: ${megabytes(loaded)}${of} MB`;
}

/** Says what happened, in the way of an error if it is one. */
function say(line, text, wrong = false) {
  line.textContent = text;
  line.classList.toggle("wrong", wrong);
}

function bars(place, scores) {
  place.replaceChildren(
    ...scores.map(({ label, score }) => {
      const bar = document.createElement("div");
      bar.className = "bar";
      const [name, share, line] = ["span", "span", "i"].map((tag) => document.createElement(tag));
      name.textContent = label;
      share.textContent = `${(100 * score).toFixed(1)} %`;
      line.style.setProperty("--share", `${100 * score}%`);
      bar.append(name, share, line);
      return bar;
    }),
  );
}

async function load(name, inputs) {
  try {
    const { milliseconds: time } = await call("load", name);
    element(`${name}-progress`).hidden = true;
    say(element(`${name}-status`), `Loaded in ${milliseconds(time)}.`);
    for (const input of inputs) {
      input.disabled = false;
    }
    return true;
  } catch (error) {
    element(`${name}-progress`).hidden = true;
    say(element(`${name}-status`), `The ${name} model could not be loaded: ${error.message}`, true);
    return false;
  }
}

// Texts: the latest one, as soon as the one before it is done.
const text = element("text");
let waiting = false;
let busy = false;

async function classifyText() {
  waiting = true;
  if (busy) {
    return;
  }
  busy = true;
  while (waiting) {
    waiting = false;
    const input = text.value.trim();
    if (!input) {
      element("text-result").replaceChildren();
      say(element("text-note"), "Type a sentence.");
      continue;
    }
    try {
      const { result, milliseconds: time } = await call("run", "text", input);
      bars(element("text-result"), result.scores);
      const cut = result.truncated ? ", the rest was left out" : "";
      say(element("text-note"), `${result.tokens} tokens${cut}, ${milliseconds(time)}`);
    } catch (error) {
      element("text-result").replaceChildren();
      say(element("text-note"), error.message, true);
    }
  }
  busy = false;
}

text.addEventListener("input", classifyText);
const examples = [...element("examples").querySelectorAll("button")];
for (const example of examples) {
  example.addEventListener("click", () => {
    text.value = example.textContent;
    classifyText();
  });
}

// Pictures
const drop = element("drop");
const file = element("file");
const preview = element("preview");
let shown;

async function classifyImage(picture) {
  const note = element("image-note");
  element("image-result").replaceChildren();
  say(note, "Looking…");
  URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(picture);
  preview.hidden = true;
  element("drop-hint").hidden = false;
  try {
    const { result, milliseconds: time } = await call("run", "image", picture);
    preview.src = shown;
    preview.alt = `The picture that was looked at: ${picture.name ?? ""}`;
    preview.hidden = false;
    element("drop-hint").hidden = true;
    bars(element("image-result"), result.scores);
    say(note, `${milliseconds(time)}, decoding included`);
  } catch (error) {
    say(note, `${picture.name ?? "This"}: ${error.message}`, true);
  }
}

file.addEventListener("change", () => {
  if (file.files.length > 0) {
    classifyImage(file.files[0]);
    // The same file may be chosen again.
    file.value = "";
  }
});
for (const type of ["dragenter", "dragover"]) {
  drop.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const [picture] = event.dataTransfer.files;
  if (file.disabled) {
    say(element("image-note"), "The image model is not loaded yet.");
  } else if (picture) {
    classifyImage(picture);
  } else {
    say(element("image-note"), "That was no file.", true);
  }
});

// What is needed to start again without a network
async function keep() {
  const offline = element("offline");
  if (!navigator.serviceWorker) {
    say(offline, "This page cannot be stored here: browsers do that for https and localhost alone.");
    return;
  }
  try {
    await navigator.serviceWorker.register("service-worker.js");
    await navigator.serviceWorker.ready;
    if (!(await Promise.all(models)).every(Boolean)) {
      say(offline, "Not stored for use without a network: a model could not be loaded.");
      return;
    }
    const kept = await Promise.all(["text", "image"].map((name) => call("kept", name)));
    const all = kept.every((model) => model.kept);
    say(offline, all ? "Stored: this page works without a network now." : "A model could not be stored.");
  } catch (error) {
    say(offline, `This page could not be stored: ${error.message}`);
  }
}

const models = [load("text", [text, ...examples]), load("image", [file])];
models[0].then((ready) => ready && classifyText());
keep();
