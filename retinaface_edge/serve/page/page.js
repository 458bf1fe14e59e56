// The page asks for one moment after another (a line of JSON, then the JPEG it is about), so picture and boxes belong
// together, and a slow connection sees fewer pictures instead of late ones.
"use strict";

const MOST_LISTED = 5;
const RETRY_MILLISECONDS = 1000;
const COLOURS = { box: "#00e676", landmark: "#ffd600", mesh: "#78ffdc" };
const element = (id) => document.getElementById(id);
const canvas = element("picture");
const pen = canvas.getContext("2d");
let paused = false;
let last = null;

function say(kind, text) {
  element("state").className = kind;
  element("state").textContent = text;
}

function draw({ moment, picture }) {
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    canvas.width = picture.width;
    canvas.height = picture.height;
  }
  pen.drawImage(picture, 0, 0);
  const line = Math.max(2, Math.round(Math.max(picture.width, picture.height) / 320));
  pen.lineWidth = line;
  pen.font = `${8 * line}px system-ui, sans-serif`;
  for (const face of moment.faces) {
    const [x1, y1, x2, y2] = face.box;
    if (element("boxes").checked) {
      pen.strokeStyle = COLOURS.box;
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      const label = face.score.toFixed(2);
      pen.fillStyle = COLOURS.box;
      pen.fillRect(x1 - line / 2, y1 - 10 * line, pen.measureText(label).width + 4 * line, 10 * line);
      pen.fillStyle = "#000";
      pen.fillText(label, x1 + 1.5 * line, y1 - 2 * line);
    }
    if (face.vertices && element("mesh").checked) dots(face.vertices, COLOURS.mesh, line / 3);
    if (element("landmarks").checked) dots(face.landmarks, COLOURS.landmark, Math.max(line, (x2 - x1) / 40));
  }
}

function dots(points, colour, radius) {
  pen.fillStyle = colour;
  for (const [x, y] of points) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
  }
}

function tell(moment) {
  const speed = moment.speed;
  element("count").textContent = moment.faces.length;
  element("rate").textContent = speed.frames_per_second.toFixed(1);
  element("size").textContent = `${moment.width}×${moment.height}`;
  let begin = 0;
  for (const part of ["pre", "inference", "post"]) {
    element(part).textContent = `${(100 * speed[part]).toFixed(1)} %`;
    const bar = document.querySelector(`rect.${part}`);
    bar.setAttribute("x", 100 * begin);
    bar.setAttribute("width", 100 * speed[part]);
    begin += speed[part];
  }
  element("meshes").hidden = !moment.faces.some((face) => face.vertices);
  const listed = moment.faces.slice(0, MOST_LISTED).map((face) => {
    const item = document.createElement("li");
    const [x1, y1, x2, y2] = face.box.map(Math.round);
    for (const text of [`${x2 - x1}×${y2 - y1} px at ${x1}, ${y1}`, face.score.toFixed(3)]) {
      item.appendChild(document.createElement("span")).textContent = text;
    }
    return item;
  });
  const more = moment.faces.length - listed.length;
  if (more > 0) {
    const item = document.createElement("li");
    item.textContent = `and ${more} more`;
    listed.push(item);
  }
  element("faces").replaceChildren(...listed);
}

async function next(after) {
  const response = await fetch(`moment?after=${after}`);
  if (response.status === 401) throw new Error("the token is missing: open the address that the server printed");
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  const body = new Uint8Array(await response.arrayBuffer());
  const end = body.indexOf(10);
  const moment = JSON.parse(new TextDecoder().decode(body.subarray(0, end)));
  if (moment.frame === undefined) return { moment };
  return { moment, picture: await createImageBitmap(new Blob([body.subarray(end + 1)], { type: "image/jpeg" })) };
}

async function watch() {
  let after = 0;
  for (;;) {
    if (paused || document.hidden) {
      await new Promise((done) => setTimeout(done, 200));
      continue;
    }
    try {
      const { moment, picture } = await next(after);
      if (!moment.source.connected) say("lost", `no frames, reconnecting: ${moment.source.error || "waiting for the source"}`);
      if (!picture || paused) continue;
      if (moment.source.connected) say("live", "live");
      after = moment.frame;
      if (last) last.picture.close();
      last = { moment, picture };
      draw(last);
      tell(moment);
      document.body.dataset.frame = after;
    } catch (error) {
      say("lost", error instanceof TypeError ? "the server is not reachable, trying again" : error.message);
      after = 0; // a new server counts from the beginning
      await new Promise((done) => setTimeout(done, RETRY_MILLISECONDS));
    }
  }
}

for (const id of ["boxes", "landmarks", "mesh"]) {
  element(id).addEventListener("change", () => last && draw(last));
}
element("pause").addEventListener("click", () => {
  paused = !paused;
  element("pause").textContent = paused ? "Resume" : "Pause";
  element("pause").setAttribute("aria-pressed", String(paused));
  if (paused) say("waiting", "paused");
});
watch();
