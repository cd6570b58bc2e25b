// The behaviour of compose.html. Gradio runs this once, with `element`, `trigger`, `props` and `watch`.
// From the server: props.token, props.megabytes, props.side (of a blank canvas), props.pool (the first cut-outs), and of the open picture
// props.picture, props.number and props.size.
// To the server: cut-outs by HTTP; the arrangement as props.value, by trigger("input"). Lengths are in pixels of the canvas.
const find = (selector) => element.querySelector(selector);
const [root, stage, pool, view, problem] = [".sd-compose", ".sd-stage", ".sd-pool", "canvas", ".sd-error"].map(find);
const named = (name) => find("[name=" + name + "]");
const [kind, width, height, erode, scale, angle, file] = ["canvas", "width", "height", "erode", "scale", "angle", "file"].map(named);
const pen = view.getContext("2d");
const LARGEST = 1024; // pixels of the view
const SQUARE = 8, KEPT = "strdiffusion scene";
let objects = [], chosen = null, drag = null, picture = null;

function size() {
  if (kind.value === "picture" && picture) return { w: props.size[0], h: props.size[1] };
  const side = (field) => Math.min(Math.max(Math.round(Number(field.value)) || props.side, 16), 4096);
  return { w: side(width), h: side(height) };
}

function factor() {
  const { w, h } = size();
  return Math.min(1, LARGEST / Math.max(w, h));
}

function backdrop() {
  const { w, h } = size();
  pen.fillStyle = "#eee";
  pen.fillRect(0, 0, w, h);
  pen.fillStyle = "#ccc";
  const step = SQUARE * Math.max(1, Math.round(Math.max(w, h) / 256));
  for (let y = 0; y < h; y += step) for (let x = (y / step) % 2 ? step : 0; x < w; x += 2 * step) pen.fillRect(x, y, step, step);
  if (kind.value !== "picture" || !picture) return;
  const known = document.createElement("canvas"), hole = document.querySelector("#paint .sd-paint")?.hole;
  known.width = picture.naturalWidth;
  known.height = picture.naturalHeight;
  const context = known.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.globalCompositeOperation = "destination-out";
  if (hole && hole.width) context.drawImage(hole, 0, 0, known.width, known.height);
  pen.drawImage(known, 0, 0, w, h);
}

function enter(one) {
  pen.translate(one.x, one.y);
  pen.rotate((one.angle * Math.PI) / 180);
  pen.scale(one.scale, one.scale);
}

function show() {
  const { w, h } = size(), share = factor();
  view.width = Math.max(Math.round(w * share), 1);
  view.height = Math.max(Math.round(h * share), 1);
  view.style.setProperty("--shape", w / h);
  pen.setTransform(share, 0, 0, share, 0, 0);
  backdrop();
  for (const one of objects) {
    pen.save();
    enter(one);
    pen.drawImage(one.cutout.image, -one.cutout.width / 2, -one.cutout.height / 2, one.cutout.width, one.cutout.height);
    pen.restore();
  }
  if (chosen) {
    const dot = view.width / share / Math.max(view.clientWidth, 1); // a pixel of the screen
    pen.save();
    enter(chosen);
    pen.lineWidth = (2 * dot) / chosen.scale;
    pen.strokeStyle = "#e0218a";
    pen.strokeRect(-chosen.cutout.width / 2, -chosen.cutout.height / 2, chosen.cutout.width, chosen.cutout.height);
    const side = (10 * dot) / chosen.scale;
    pen.fillStyle = "#e0218a";
    pen.fillRect(chosen.cutout.width / 2 - side / 2, chosen.cutout.height / 2 - side / 2, side, side);
    pen.restore();
  }
  root.dataset.objects = objects.length;
  for (const button of root.querySelectorAll("[data-do=front], [data-do=back], [data-do=remove]")) button.disabled = !chosen;
  find("[data-do=clear]").disabled = !objects.length;
  scale.disabled = angle.disabled = !chosen;
  find(".sd-blank").hidden = kind.value === "picture";
  kind.options[1].disabled = !picture;
  if (chosen) {
    scale.value = 100 * Math.log2(chosen.scale);
    angle.value = chosen.angle;
  }
  named("scaled").textContent = chosen ? chosen.scale.toFixed(2) : "";
  named("turned").textContent = chosen ? Math.round(chosen.angle) + "°" : "";
}

function send() {
  const { w, h } = size();
  props.value = {
    canvas: kind.value, number: props.number || 0, width: w, height: h, erode: Math.max(Math.round(Number(erode.value)) || 0, 0),
    objects: objects.map((one) => ({ cutout: one.cutout.number, x: one.x, y: one.y, scale: one.scale, angle: one.angle })),
  };
  sessionStorage.setItem(KEPT, JSON.stringify({ token: props.token, ...props.value }));
  trigger("input");
}

function recall(cutouts) { // what was arranged before the page was loaded again
  const kept = JSON.parse(sessionStorage.getItem(KEPT));
  if (!kept || kept.token !== props.token || objects.length) return;
  [width.value, height.value, erode.value] = [kept.width, kept.height, kept.erode];
  for (const { cutout, ...where } of kept.objects) {
    const one = cutouts.find(({ number }) => number === cutout);
    if (one) objects.push({ cutout: one, ...where });
  }
  if (objects.length) change();
}

function change() {
  show();
  send();
}

function place(event) {
  const box = view.getBoundingClientRect(), { w, h } = size();
  return { x: ((event.clientX - box.left) / box.width) * w, y: ((event.clientY - box.top) / box.height) * h };
}

function within(one, { x, y }) { // a point of the canvas, in pixels of the cut-out from its upper left corner
  const turn = (-one.angle * Math.PI) / 180, dx = (x - one.x) / one.scale, dy = (y - one.y) / one.scale;
  return {
    u: Math.cos(turn) * dx - Math.sin(turn) * dy + one.cutout.width / 2,
    v: Math.sin(turn) * dx + Math.cos(turn) * dy + one.cutout.height / 2,
  };
}

function hit(point) { // the topmost object that shows something there; else the topmost around it, for cut-outs with gaps
  const around = [...objects].reverse().filter((one) => {
    const { u, v } = within(one, point);
    return u >= 0 && v >= 0 && u < one.cutout.width && v < one.cutout.height;
  });
  const shows = (one) => {
    const { u, v } = within(one, point), { width: w, height: h, pixels } = one.cutout, context = pixels.getContext("2d");
    return context.getImageData(Math.floor((u / w) * pixels.width), Math.floor((v / h) * pixels.height), 1, 1).data[3] > 16;
  };
  return around.find(shows) || around[0] || null;
}

function onHandle(point) {
  if (!chosen) return false;
  const { u, v } = within(chosen, point), reach = (12 * size().w) / Math.max(view.clientWidth, 1) / chosen.scale;
  return Math.abs(u - chosen.cutout.width) < reach && Math.abs(v - chosen.cutout.height) < reach;
}

function rescale(one, wanted) {
  one.scale = Math.min(Math.max(wanted, 2 ** -8), 2 ** 6);
}

function add(cutout) {
  const { w, h } = size();
  chosen = { cutout, x: w / 2, y: h / 2, scale: 1, angle: 0 };
  rescale(chosen, 0.5 * Math.min(w / cutout.width, h / cutout.height));
  objects.push(chosen);
  change();
}

function complain(text) {
  problem.textContent = text;
  problem.hidden = !text;
}

function offer(cutout) { // returns when its picture is there
  const image = (cutout.image = new Image());
  let there;
  const shown = new Promise((resume) => (there = resume));
  const button = document.createElement("button");
  button.type = "button";
  button.title = cutout.name + ", " + cutout.width + "x" + cutout.height;
  button.disabled = true; // until its picture is there
  image.alt = cutout.name;
  image.onload = () => {
    cutout.pixels = document.createElement("canvas");
    cutout.pixels.width = image.naturalWidth;
    cutout.pixels.height = image.naturalHeight;
    cutout.pixels.getContext("2d").drawImage(image, 0, 0);
    button.disabled = false;
    there();
  };
  button.addEventListener("click", () => add(cutout));
  button.append(image);
  pool.append(button);
  find(".sd-empty").hidden = true;
  image.src = cutout.address;
  return shown;
}

async function arrived() { // with the cut-outs of the session; after it was lost, of a new one
  const cutouts = props.pool;
  for (const button of pool.querySelectorAll("button")) button.remove();
  await Promise.all(cutouts.map(offer));
  recall(cutouts);
  if (sessionStorage.getItem("strdiffusion mode") === "compose") document.querySelector("#mode input[value=compose]:not(:checked)")?.click();
}

async function upload(files) {
  complain("");
  const problems = [];
  for (const one of files) {
    if (one.size > props.megabytes * 1e6) {
      problems.push(one.name + " has " + (one.size / 1e6).toFixed(1) + " MB, and at most " + props.megabytes + " MB are allowed.");
      continue;
    }
    while (!props.token) await new Promise((resume) => setTimeout(resume, 100)); // the session is still being opened
    try {
      const answer = await fetch("session/" + props.token + "/cutout", {
        method: "POST", body: one, headers: { "X-Name": encodeURIComponent(one.name || "cut-out") },
      });
      if (answer.ok) offer(await answer.json());
      else problems.push(await answer.text());
    } catch (error) {
      problems.push(one.name + " could not be sent: is the server still running?");
    }
  }
  complain(problems.join(" "));
}

function load() {
  if (!props.picture) return;
  const next = new Image();
  next.onload = () => {
    picture = next;
    show();
  };
  next.src = props.picture;
}

const acts = {
  open: () => file.click(),
  clear: () => ([objects, chosen] = [[], null]),
  remove: () => ([objects, chosen] = [objects.filter((one) => one !== chosen), null]),
  front: () => move(1),
  back: () => move(-1),
};

function move(by) {
  const from = objects.indexOf(chosen), to = Math.min(Math.max(from + by, 0), objects.length - 1);
  objects.splice(to, 0, ...objects.splice(from, 1));
}

root.addEventListener("click", (event) => {
  const act = event.target.closest("button")?.dataset.do;
  if (!act) return;
  acts[act]();
  if (act !== "open") change();
});
view.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  event.preventDefault();
  view.focus({ preventScroll: true });
  view.setPointerCapture(event.pointerId);
  const point = place(event);
  if (onHandle(point)) drag = { scales: chosen.scale / Math.hypot(point.x - chosen.x, point.y - chosen.y) };
  else if ((chosen = hit(point))) drag = { dx: chosen.x - point.x, dy: chosen.y - point.y };
  show();
});
view.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const point = place(event);
  if (drag.scales) rescale(chosen, drag.scales * Math.hypot(point.x - chosen.x, point.y - chosen.y));
  else [chosen.x, chosen.y] = [point.x + drag.dx, point.y + drag.dy];
  show();
});
for (const name of ["pointerup", "pointercancel"]) {
  view.addEventListener(name, () => {
    if (drag) change();
    drag = null;
  });
}
view.addEventListener("wheel", (event) => {
  if (!chosen) return;
  event.preventDefault();
  if (event.shiftKey) chosen.angle = (chosen.angle + 360 + Math.sign(event.deltaY || event.deltaX) * 5) % 360;
  else rescale(chosen, chosen.scale * 1.05 ** -Math.sign(event.deltaY));
  change();
}, { passive: false });
view.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Enter" && objects.length && !event.ctrlKey && !event.metaKey) { // the next object
    event.preventDefault();
    chosen = objects[(objects.indexOf(chosen) + 1) % objects.length];
    return show();
  }
  if (!chosen || !(way || ["Delete", "Backspace"].includes(event.key))) return;
  event.preventDefault();
  if (way) [chosen.x, chosen.y] = [chosen.x + way[0], chosen.y + way[1]];
  else acts.remove();
  change();
});
scale.addEventListener("input", () => {
  rescale(chosen, 2 ** (scale.value / 100));
  show();
});
angle.addEventListener("input", () => {
  chosen.angle = Number(angle.value);
  show();
});
for (const field of [scale, angle, kind, width, height, erode]) field.addEventListener("change", change);
file.addEventListener("change", () => {
  upload([...file.files]);
  file.value = "";
});
for (const name of ["dragover", "drop"]) {
  root.addEventListener(name, (event) => {
    event.preventDefault();
    if (name === "drop") upload([...event.dataTransfer.files]);
  });
}
document.addEventListener("paste", (event) => {
  if (root.offsetParent) upload([...event.clipboardData.files].filter((one) => one.type.startsWith("image/")));
});
document.addEventListener("sd-mode", () => requestAnimationFrame(show));
watch("picture", load);
watch("pool", arrived);
width.value = height.value = props.side;
show();
load();
