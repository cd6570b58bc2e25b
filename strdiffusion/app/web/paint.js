// The behaviour of paint.html. Gradio runs this once, with `element`, `trigger`, `props` and `watch`.
// From the server: props.token of the session, props.megabytes, props.picture (the preview's address) and props.number (of the picture).
// To the server: an upload by HTTP, announced by trigger("upload"); strokes as props.value = {number, hole, hints}, by trigger("input");
// trigger("submit") asks for a new session after the old one was lost.
const find = (selector) => element.querySelector(selector);
const [root, stage, view, problem, outside, keys] = [".sd-paint", ".sd-stage", "canvas", ".sd-error", ".sd-outside", ".sd-keys"].map(find);
const [size, colour, file, maskFile] = ["size", "colour", "file", "mask"].map((name) => find("[name=" + name + "]"));
const pen = view.getContext("2d");
const layers = { hole: document.createElement("canvas"), hint: document.createElement("canvas"), mix: document.createElement("canvas") };
for (const layer of Object.values(layers)) layer.getContext("2d", { willReadFrequently: true });
const HOLE = "#e0218a", KEPT = "strdiffusion", LARGEST_ZOOM = 32;
root.hole = layers.hole; // compose.js shows it
let picture = null, mode = "hole", stroke = null, pointer = null;
let strokes = [], undone = []; // all that was done, and what was taken back; {mode: "clear"} and {mode: "mask"} among strokes
let zoom = 1, shift = { x: 0, y: 0 }, fingers = new Map(), panning = null, spaced = false;
let source = null, keep = false, sending = false; // what was opened, for another server; whether strokes are kept when it is loaded

// ---- layers

function clearLayer(layer) {
  layer.width = view.width;
  layer.height = view.height;
}

function draw(layer, { points, width, tint, erases }) {
  const context = layer.getContext("2d");
  context.globalCompositeOperation = erases ? "destination-out" : "source-over";
  context.strokeStyle = tint;
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(points[0].x, points[0].y);
  for (const point of points) context.lineTo(point.x, point.y);
  context.stroke();
}

function put(one) {
  if (one.mode === "clear") {
    clearLayer(layers.hole);
    return clearLayer(layers.hint);
  }
  if (one.mode === "mask") return layers.hole.getContext("2d").drawImage(one.image, 0, 0);
  if (one.mode !== "hint") draw(layers.hole, one);
  if (one.mode !== "hole") draw(layers.hint, one);
}

function mixed(how) { // the hints within the hole ("destination-in"), or outside of it ("destination-out")
  clearLayer(layers.mix);
  const mix = layers.mix.getContext("2d");
  mix.drawImage(layers.hint, 0, 0);
  mix.globalCompositeOperation = how;
  mix.drawImage(layers.hole, 0, 0);
  return layers.mix;
}

function show() {
  if (!picture) return;
  pen.clearRect(0, 0, view.width, view.height); // pictures may be transparent
  pen.drawImage(picture, 0, 0);
  pen.globalAlpha = 0.6;
  pen.drawImage(layers.hole, 0, 0);
  pen.globalAlpha = 0.4; // what has no effect is pale
  pen.drawImage(mixed("destination-out"), 0, 0);
  pen.globalAlpha = 1;
  pen.drawImage(mixed("destination-in"), 0, 0);
  if (pointer && mode !== "pick" && mode !== "pan" && !spaced) {
    const dot = view.width / Math.max(view.getBoundingClientRect().width, 1);
    for (const [tint, width] of [["white", 3], ["black", 1]]) {
      pen.strokeStyle = tint;
      pen.lineWidth = width * dot;
      pen.beginPath();
      pen.arc(pointer.x, pointer.y, brush() / 2, 0, 7);
      pen.stroke();
    }
  }
}

function settle() { // after something was done or taken back
  const lately = document.activeElement;
  const has = current().length > 0;
  for (const [act, on] of [["undo", strokes.length], ["redo", undone.length], ["clear", has], ["save", has]]) button(act).disabled = !on;
  for (const act of ["load", "in", "out", "fit"]) button(act).disabled = !picture;
  if (root.contains(lately) && lately.disabled) view.focus({ preventScroll: true }); // the browser would forget where the keyboard was
  outside.hidden = !current().some((one) => one.mode === "hint") || !anything(mixed("destination-out"));
  show();
}

function anything(layer) { // whether a layer has a pixel that counts, apart from the soft rims of strokes
  const data = layer.getContext("2d").getImageData(0, 0, layer.width, layer.height).data;
  let count = 0;
  for (let i = 3; i < data.length; i += 4) if (data[i] > 200 && ++count > 8) return true;
  return false;
}

function current() { // what was done since all was cleared
  return strokes.slice(strokes.map((one) => one.mode).lastIndexOf("clear") + 1);
}

function button(act) {
  return find("[data-do=" + act + "]");
}

function brush() {
  return Math.max((size.value / 200) * Math.max(view.width, view.height), 1);
}

function place(event) {
  const box = view.getBoundingClientRect();
  return { x: ((event.clientX - box.left) / box.width) * view.width, y: ((event.clientY - box.top) / box.height) * view.height };
}

function choose(next) {
  mode = next;
  for (const one of root.querySelectorAll("[data-mode]")) one.setAttribute("aria-pressed", String(one.dataset.mode === mode));
  find(".sd-hint-tools").hidden = mode !== "hint" && mode !== "pick";
  show();
}

function pick({ x, y }) {
  clearLayer(layers.mix);
  const mix = layers.mix.getContext("2d");
  mix.drawImage(picture, 0, 0);
  const rgb = [...mix.getImageData(Math.floor(x), Math.floor(y), 1, 1).data].slice(0, 3);
  colour.value = "#" + rgb.map((level) => level.toString(16).padStart(2, "0")).join("");
  choose("hint");
}

function redraw() {
  put({ mode: "clear" });
  current().forEach(put);
  settle();
}

function send() {
  const done = current(), has = (...modes) => done.some((one) => modes.includes(one.mode));
  props.value = {
    number: props.number,
    hole: has("hole", "mask") ? layers.hole.toDataURL("image/png") : null,
    hints: has("hint") ? layers.hint.toDataURL("image/png") : null,
  };
  remember();
  trigger("input");
}

function add(one) {
  strokes.push(one);
  undone = [];
  settle();
  send();
}

// ---- zoom

function look() {
  const box = stage.getBoundingClientRect(), wide = view.offsetWidth * zoom, high = view.offsetHeight * zoom;
  const bound = (at, length, room) => Math.min(Math.max(at, -(length + room) / 2 + 40), (length + room) / 2 - 40);
  shift = zoom === 1 ? { x: 0, y: 0 } : { x: bound(shift.x, wide, box.width), y: bound(shift.y, high, box.height) };
  view.style.transform = zoom === 1 ? "" : "translate(" + shift.x + "px," + shift.y + "px) scale(" + zoom + ")";
  root.dataset.zoom = zoom.toFixed(2);
  view.classList.toggle("sd-small", view.getBoundingClientRect().width > 2 * view.width);
  show();
}

function scaleBy(factor, x, y) { // about a point of the window; the middle of the stage if there is none
  if (!picture) return;
  const box = stage.getBoundingClientRect(), before = zoom;
  const [dx, dy] = x === undefined ? [0, 0] : [x - box.left - box.width / 2, y - box.top - box.height / 2];
  zoom = Math.min(Math.max(zoom * factor, 1), LARGEST_ZOOM);
  const by = zoom / before;
  shift = { x: dx - (dx - shift.x) * by, y: dy - (dy - shift.y) * by };
  look();
}

function moveBy(dx, dy) {
  shift = { x: shift.x + dx, y: shift.y + dy };
  look();
}

// ---- what is kept when the page is loaded again

function remember() {
  const plain = (list) => list.map((one) => (one.mode === "mask" ? { mode: "mask", url: one.image.toDataURL("image/png") } : one));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ token: props.token, number: props.number, strokes: plain(strokes), undone: plain(undone) }));
  } catch (error) {
    sessionStorage.setItem(KEPT, JSON.stringify({ token: props.token })); // too much for the browser
  }
}

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT));
  } catch (error) {
    return null;
  }
}

async function recalled() { // what was done to this picture before the page was loaded again
  const kept = stored();
  if (!kept || kept.token !== props.token || kept.number !== props.number || !kept.strokes) return { strokes: [], undone: [] };
  for (const one of [...kept.strokes, ...kept.undone]) {
    if (one.mode !== "mask") continue;
    one.image = document.createElement("canvas");
    const image = await decoded(one.url);
    [one.image.width, one.image.height] = [image.naturalWidth, image.naturalHeight];
    one.image.getContext("2d").drawImage(image, 0, 0);
  }
  return kept;
}

// ---- files

function complain(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

async function post(path, body, headers) { // to the session; whether it was taken
  complain("");
  sending = true;
  root.dataset.ready = "no";
  while (!props.token) await new Promise((resume) => setTimeout(resume, 100)); // the session is still being opened
  let taken = false;
  try {
    const answer = await fetch("session/" + props.token + "/" + path, { method: "POST", body, headers });
    taken = answer.ok;
    if (!taken) complain(await answer.text());
  } catch (error) {
    complain("The picture could not be sent: is the server still running?");
  }
  sending = false;
  if (taken) trigger("upload");
  root.dataset.ready = picture ? "yes" : "no";
  return taken;
}

async function upload(chosen) {
  if (!chosen) return;
  if (chosen.size > props.megabytes * 1e6) {
    return complain(chosen.name + " has " + (chosen.size / 1e6).toFixed(1) + " MB, and at most " + props.megabytes + " MB are allowed.");
  }
  const name = encodeURIComponent(chosen.name || "picture");
  if (await post("picture", chosen, { "X-Name": name })) source = () => post("picture", chosen, { "X-Name": name });
}

async function example(number) {
  if (await post("example/" + number)) source = () => post("example/" + number);
}

async function goOn({ address, name }) { // from a result
  try {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error();
    await upload(new File([await answer.blob()], name));
    stage.scrollIntoView({ behavior: "smooth", block: "nearest" });
    view.focus({ preventScroll: true }); // the button is gone
  } catch (error) {
    complain("The result could not be opened: is the server still running?");
  }
}

function decoded(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = reject;
    image.src = address;
  });
}

async function loadMask(chosen) {
  if (!chosen || !picture) return;
  complain("");
  const address = URL.createObjectURL(chosen);
  try {
    const image = await decoded(address), ratio = (image.naturalWidth * view.height) / (image.naturalHeight * view.width);
    if (Math.abs(ratio - 1) > 0.02) {
      throw new Error(chosen.name + " has " + image.naturalWidth + "x" + image.naturalHeight + " pixels, which is not the shape of the picture.");
    }
    const layer = document.createElement("canvas");
    clearLayer(layer);
    const context = layer.getContext("2d");
    context.drawImage(image, 0, 0, view.width, view.height);
    const data = context.getImageData(0, 0, view.width, view.height), tint = [0xe0, 0x21, 0x8a];
    let holes = 0;
    for (let i = 0; i < data.data.length; i += 4) {
      const [r, g, b, a] = data.data.subarray(i, i + 4), white = (0.299 * r + 0.587 * g + 0.114 * b) * (a / 255) >= 128;
      data.data.set(white ? [...tint, 255] : [0, 0, 0, 0], i);
      holes += white;
    }
    if (!holes) throw new Error(chosen.name + " is white nowhere, so it has no hole.");
    context.putImageData(data, 0, 0);
    const one = { mode: "mask", image: layer };
    put(one);
    add(one);
  } catch (error) {
    complain(error.message || chosen.name + " is not a picture that this browser can show: save it as PNG.");
  }
  URL.revokeObjectURL(address);
}

function saveMask() {
  const layer = document.createElement("canvas");
  clearLayer(layer);
  const context = layer.getContext("2d"), hole = layers.hole.getContext("2d").getImageData(0, 0, view.width, view.height);
  for (let i = 0; i < hole.data.length; i += 4) hole.data.set(hole.data[i + 3] >= 128 ? [255, 255, 255, 255] : [0, 0, 0, 255], i);
  context.putImageData(hole, 0, 0);
  layer.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "mask.png";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
}

async function load() {
  if (!props.picture) return;
  root.dataset.ready = "no";
  try {
    const next = await decoded(props.picture), same = keep && picture && next.naturalWidth === view.width && next.naturalHeight === view.height;
    keep = false;
    if (!same) ({ strokes, undone } = await recalled());
    picture = next;
    stroke = null;
    view.width = next.naturalWidth;
    view.height = next.naturalHeight;
    view.style.setProperty("--shape", view.width / view.height);
    root.classList.add("sd-open");
    zoom = 1;
    complain("");
    redraw();
    look();
    root.dataset.ready = "yes";
    if (strokes.length) send();
    else remember();
  } catch (error) {
    complain("The picture could not be shown: reload the page.");
  }
}

// ---- the connection: as long as the page listens, the server keeps the session

let alive = null;
function listen() {
  alive?.close();
  if (!props.token) return;
  alive = new EventSource("session/" + props.token + "/alive");
  alive.onopen = () => {
    if (root.dataset.lost) complain("");
    delete root.dataset.lost;
  };
  alive.onerror = () => {
    root.dataset.lost = "yes";
    complain("The connection is lost. What was painted is kept, and it is tried again.");
    if (alive.readyState === EventSource.CLOSED) setTimeout(() => trigger("submit"), 2000); // the session has ended: a new one
  };
}

function arrived() {
  const again = alive && source;
  listen();
  if (stored()?.token !== props.token) remember(); // also without a picture: the session may have cut-outs
  if (!again || (props.picture && !root.dataset.lost)) return;
  keep = true; // the same picture for the new session
  source();
}

// ---- events

const acts = {
  open: () => file.click(),
  undo: () => strokes.length && (undone.push(strokes.pop()), changed()),
  redo: () => undone.length && (strokes.push(undone.pop()), changed()),
  clear: () => current().length && (put({ mode: "clear" }), add({ mode: "clear" })),
  in: () => scaleBy(1.5),
  out: () => scaleBy(1 / 1.5),
  fit: () => {
    zoom = 1;
    look();
  },
  load: () => maskFile.click(),
  save: saveMask,
  keys: () => button("keys").setAttribute("aria-expanded", String((keys.hidden = !keys.hidden) === false)),
};

function changed() {
  redraw();
  send();
}

function begin(point) {
  stroke = { mode, points: [point], width: brush(), tint: mode === "hint" ? colour.value : HOLE, erases: mode === "erase" };
  put(stroke);
  show();
}

function extend(point) {
  stroke.points.push(point);
  put({ ...stroke, points: stroke.points.slice(-2) });
}

function end(taken = true) {
  const one = stroke;
  stroke = null;
  if (!one) return;
  if (taken) add(one);
  else redraw();
}

function spread() { // of two fingers: their middle, and how far apart they are
  const [a, b] = [...fingers.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
}

view.addEventListener("pointerdown", (event) => {
  if (!picture || event.button > 1) return;
  event.preventDefault();
  view.focus({ preventScroll: true });
  view.setPointerCapture(event.pointerId);
  if (event.pointerType === "touch") fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (fingers.size === 2) {
    end(false);
    panning = spread();
  } else if (mode === "pan" || spaced || event.button === 1) panning = { x: event.clientX, y: event.clientY, apart: 0 };
  else if (mode === "pick") pick(place(event));
  else begin((pointer = place(event)));
});
view.addEventListener("pointermove", (event) => {
  pointer = place(event);
  if (fingers.has(event.pointerId)) fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (panning) {
    const now = fingers.size === 2 ? spread() : { x: event.clientX, y: event.clientY, apart: 0 };
    if (panning.apart && now.apart) scaleBy(now.apart / panning.apart, now.x, now.y);
    moveBy(now.x - panning.x, now.y - panning.y);
    panning = now;
  } else if (stroke) extend(pointer);
  show();
});
for (const name of ["pointerup", "pointercancel"]) {
  view.addEventListener(name, (event) => {
    fingers.delete(event.pointerId);
    panning = null;
    end();
  });
}
view.addEventListener("pointerleave", () => {
  pointer = null;
  show();
});
stage.addEventListener("wheel", (event) => {
  if (!picture) return;
  event.preventDefault();
  scaleBy(1.2 ** -Math.sign(event.deltaY), event.clientX, event.clientY);
}, { passive: false });
view.addEventListener("keydown", (event) => { // painting without a mouse
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!picture || event.ctrlKey || event.metaKey || !(way || event.key === "Enter")) return;
  event.preventDefault();
  event.stopPropagation();
  pointer ??= { x: view.width / 2, y: view.height / 2 };
  if (way) {
    const step = event.shiftKey ? 1 : Math.max(brush() / 2, 1), within = (at, most) => Math.min(Math.max(at, 0), most);
    pointer = { x: within(pointer.x + step * way[0], view.width), y: within(pointer.y + step * way[1], view.height) };
    if (stroke) extend(pointer);
    show();
  } else if (stroke) end();
  else if (mode === "pick") pick(pointer);
  else if (mode !== "pan") begin({ ...pointer });
});
view.addEventListener("blur", () => end());
root.addEventListener("click", (event) => {
  const clicked = event.target.closest("button");
  if (!clicked) return;
  end();
  if (clicked.dataset.mode) choose(clicked.dataset.mode);
  acts[clicked.dataset.do]?.();
});
size.addEventListener("input", show);

const byKey = {
  b: () => choose("hole"), h: () => choose("hint"), e: () => choose("erase"), o: acts.open, 0: acts.fit, "+": acts.in, "=": acts.in, "-": acts.out,
  "?": acts.keys, n: () => document.querySelector("#new-seed")?.click(), c: () => document.querySelector("#result [data-continue]")?.click(),
  "[": () => resize(-2), "]": () => resize(2),
};

function resize(by) {
  size.value = Number(size.value) + by;
  show();
}

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    end();
    return document.querySelector("#run:not([disabled])")?.click();
  }
  if (event.key === "Escape") return stroke ? end(false) : document.querySelector("#cancel:not([disabled])")?.click();
  if (!root.offsetParent) return; // another mode is shown
  const typing = event.target.closest("textarea, select, [contenteditable], input:not([type=range]):not([type=radio]):not([type=checkbox]):not([type=color])");
  if (typing || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    const act = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    end();
    return acts[act]();
  }
  if (event.key === " " && !event.target.closest("button, input, label, a")) {
    event.preventDefault();
    spaced = true;
    root.dataset.spaced = "yes";
  } else byKey[event.key.length === 1 ? event.key.toLowerCase() : event.key]?.();
});
document.addEventListener("keyup", (event) => {
  if (event.key !== " ") return;
  spaced = false;
  delete root.dataset.spaced;
});
file.addEventListener("change", () => {
  upload(file.files[0]);
  file.value = "";
});
maskFile.addEventListener("change", () => {
  loadMask(maskFile.files[0]);
  maskFile.value = "";
});
for (const name of ["dragover", "drop"]) {
  stage.addEventListener(name, (event) => {
    event.preventDefault();
    if (name === "drop") upload(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  if (!root.offsetParent) return; // another mode is shown
  const image = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (image) upload(image);
});
document.addEventListener("sd-example", (event) => example(event.detail));
document.addEventListener("sd-continue", (event) => goOn(event.detail));
addEventListener("resize", () => picture && look());
watch("token", arrived);
watch("picture", load);
listen();
load();
