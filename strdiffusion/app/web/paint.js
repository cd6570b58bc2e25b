// The behaviour of paint.html. Gradio runs this once, with `element`, `trigger`, `props` and `watch`.
// From the server: props.token of the session, props.megabytes, props.picture (the preview's address) and props.number (of the picture).
// To the server: an upload by HTTP, announced by trigger("upload"); strokes as props.value = {number, hole, hints}, by trigger("input").
const find = (selector) => element.querySelector(selector);
const [root, stage, view, problem] = [".sd-paint", ".sd-stage", "canvas", ".sd-error"].map(find);
const [size, colour, file] = ["size", "colour", "file"].map((name) => find("[name=" + name + "]"));
const pen = view.getContext("2d");
const layers = { hole: document.createElement("canvas"), hint: document.createElement("canvas"), mix: document.createElement("canvas") };
const HOLE = "#e0218a";
root.hole = layers.hole; // compose.js shows it
let picture = null, mode = "hole", strokes = [], stroke = null, pointer = null;

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
  if (one.mode !== "hint") draw(layers.hole, one);
  if (one.mode !== "hole") draw(layers.hint, one);
}

function show() {
  if (!picture) return;
  pen.clearRect(0, 0, view.width, view.height); // pictures may be transparent
  pen.drawImage(picture, 0, 0);
  pen.globalAlpha = 0.6;
  pen.drawImage(layers.hole, 0, 0);
  pen.globalAlpha = 1;
  clearLayer(layers.mix); // hints are shown only in the hole
  const mix = layers.mix.getContext("2d");
  mix.drawImage(layers.hint, 0, 0);
  mix.globalCompositeOperation = "destination-in";
  mix.drawImage(layers.hole, 0, 0);
  pen.drawImage(layers.mix, 0, 0);
  if (pointer && mode !== "pick") {
    const dot = view.width / Math.max(view.clientWidth, 1);
    for (const [tint, width] of [["white", 3], ["black", 1]]) {
      pen.strokeStyle = tint;
      pen.lineWidth = width * dot;
      pen.beginPath();
      pen.arc(pointer.x, pointer.y, brush() / 2, 0, 7);
      pen.stroke();
    }
  }
  for (const button of root.querySelectorAll("[data-do=undo], [data-do=clear]")) button.disabled = !strokes.length;
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
  for (const button of root.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  find(".sd-hint-tools").hidden = mode !== "hint" && mode !== "pick";
}

function pick({ x, y }) {
  clearLayer(layers.mix);
  const mix = layers.mix.getContext("2d");
  mix.drawImage(picture, 0, 0);
  const rgb = [...mix.getImageData(Math.floor(x), Math.floor(y), 1, 1).data].slice(0, 3);
  colour.value = "#" + rgb.map((level) => level.toString(16).padStart(2, "0")).join("");
  choose("hint");
}

function redo() {
  clearLayer(layers.hole);
  clearLayer(layers.hint);
  strokes.forEach(put);
  show();
}

function send() {
  const has = (name) => strokes.some((one) => one.mode === name);
  props.value = {
    number: props.number,
    hole: has("hole") ? layers.hole.toDataURL("image/png") : null,
    hints: has("hint") ? layers.hint.toDataURL("image/png") : null,
  };
  trigger("input");
}

function complain(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

async function upload(chosen) {
  if (!chosen) return;
  complain("");
  if (chosen.size > props.megabytes * 1e6) {
    return complain(chosen.name + " has " + (chosen.size / 1e6).toFixed(1) + " MB, and at most " + props.megabytes + " MB are allowed.");
  }
  root.dataset.ready = "no";
  while (!props.token) await new Promise((resume) => setTimeout(resume, 100)); // the session is still being opened
  try {
    const answer = await fetch("session/" + props.token + "/picture", {
      method: "POST", body: chosen, headers: { "X-Name": encodeURIComponent(chosen.name || "picture") },
    });
    if (answer.ok) trigger("upload");
    else complain(await answer.text());
  } catch (error) {
    complain("The picture could not be sent: is the server still running?");
  }
  root.dataset.ready = picture ? "yes" : "no";
}

function load() {
  if (!props.picture) return;
  const next = new Image();
  root.dataset.ready = "no";
  next.onload = () => {
    picture = next;
    view.width = next.naturalWidth;
    view.height = next.naturalHeight;
    view.style.setProperty("--shape", view.width / view.height);
    view.classList.toggle("sd-small", Math.max(view.width, view.height) < 200);
    root.classList.add("sd-open");
    strokes = [];
    complain("");
    redo();
    root.dataset.ready = "yes";
  };
  next.onerror = () => complain("The picture could not be shown: reload the page.");
  next.src = props.picture;
}

view.addEventListener("pointerdown", (event) => {
  if (!picture || event.button) return;
  event.preventDefault();
  if (mode === "pick") return pick(place(event));
  view.setPointerCapture(event.pointerId);
  stroke = { mode, points: [place(event)], width: brush(), tint: mode === "hint" ? colour.value : HOLE, erases: mode === "erase" };
  put(stroke);
  show();
});
view.addEventListener("pointermove", (event) => {
  pointer = place(event);
  if (stroke) {
    stroke.points.push(pointer);
    put({ ...stroke, points: stroke.points.slice(-2) });
  }
  show();
});
for (const name of ["pointerup", "pointercancel"]) {
  view.addEventListener(name, () => {
    if (!stroke) return;
    strokes.push(stroke);
    stroke = null;
    show();
    send();
  });
}
view.addEventListener("pointerleave", () => {
  pointer = null;
  show();
});
root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.mode) choose(button.dataset.mode);
  if (button.dataset.do === "open") file.click();
  if (button.dataset.do === "undo") strokes.pop();
  if (button.dataset.do === "clear") strokes = [];
  if (["undo", "clear"].includes(button.dataset.do)) {
    redo();
    send();
  }
});
file.addEventListener("change", () => {
  upload(file.files[0]);
  file.value = "";
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
async function example(number) {
  complain("");
  const answer = await fetch("session/" + props.token + "/example/" + number, { method: "POST" });
  if (answer.ok) trigger("upload");
  else complain(await answer.text());
}

let alive = null; // while it is open, the server keeps the session
function listen() {
  alive?.close();
  alive = props.token ? new EventSource("session/" + props.token + "/alive") : null;
}

document.addEventListener("sd-example", (event) => example(event.detail));
watch("token", listen);
listen();
watch("picture", load);
load();
