// Plays a task's masks over its frames. Without it the page shows one frame at a time. Few pictures are held at once.
"use strict";
(() => {
  const player = document.querySelector(".player");
  if (!player) return;
  const { frame, mask } = player.dataset;
  const first = Number(player.dataset.first), step = Number(player.dataset.step), count = Number(player.dataset.count);
  const fps = Math.min(60, Math.max(1, Number(player.dataset.fps) / step || 10));
  const AHEAD = 8, MOST = 24; // pairs of pictures asked for early, and held
  const held = new Map();
  let at = Math.round((Number(player.dataset.at) - first) / step), playing = false, wanted = 0;

  const stage = player.querySelector(".stage"), canvas = document.createElement("canvas");
  const brush = canvas.getContext("2d");
  canvas.setAttribute("role", "img");
  const controls = document.createElement("div");
  controls.className = "controls";
  const button = (words, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.addEventListener("click", act);
    controls.append(made);
    return made;
  };
  const play = button("Play", () => (playing ? stop() : start()));
  button("Previous", () => { stop(); go(at - 1); });
  button("Next", () => { stop(); go(at + 1); });
  const masks = button("Hide masks", () => {
    const on = masks.getAttribute("aria-pressed") !== "true";
    masks.setAttribute("aria-pressed", String(on));
    go(at);
  });
  masks.setAttribute("aria-pressed", "false");
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: count - 1, value: at });
  slider.setAttribute("aria-label", "frame");
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
  const said = document.createElement("output");
  controls.append(slider, said);
  player.append(controls);

  const number = (item) => first + item * step;
  const address = (base, item) => base.replace(/\/0\.(jpg|png)$/, `/${number(item)}.$1`);
  function picture(url) {
    const made = new Image();
    made.src = url;
    return made.decode().then(() => made);
  }
  function pair(item) {
    if (!held.has(item)) {
      held.set(item, Promise.all([picture(address(frame, item)), picture(address(mask, item))]));
      for (const old of held.keys()) {
        if (held.size <= MOST) break;
        if (old !== item) held.delete(old);
      }
    }
    return held.get(item);
  }
  async function go(item) {
    item = Math.min(count - 1, Math.max(0, item));
    const mine = ++wanted;
    try {
      const [below, above] = await pair(item);
      if (mine !== wanted) return;
      if (!canvas.isConnected) {
        canvas.width = below.naturalWidth;
        canvas.height = below.naturalHeight;
        stage.replaceChildren(canvas);
      }
      brush.drawImage(below, 0, 0, canvas.width, canvas.height);
      if (masks.getAttribute("aria-pressed") !== "true") brush.drawImage(above, 0, 0, canvas.width, canvas.height);
      at = item;
      slider.value = at;
      slider.setAttribute("aria-valuetext", `frame ${number(at)}`);
      said.textContent = `frame ${number(at)}, ${at + 1} of ${count}`;
      canvas.setAttribute("aria-label", `frame ${number(at)} with its masks`);
    } catch {
      held.delete(item);
      stop();
      said.textContent = `Frame ${number(item)} cannot be shown: its video is not here, or still being fetched.`;
    }
  }
  async function run() {
    let due = performance.now();
    while (playing && at < count - 1) {
      for (let item = at + 1; item <= Math.min(count - 1, at + AHEAD); item++) pair(item).catch(() => {});
      await go(at + 1);
      due = Math.max(due + 1000 / fps, performance.now());
      await new Promise((later) => setTimeout(later, Math.max(0, due - performance.now())));
    }
    stop();
  }
  function start() {
    if (at === count - 1) at = -1;
    playing = true;
    play.textContent = "Pause";
    run();
  }
  function stop() {
    playing = false;
    play.textContent = "Play";
  }
  for (const link of document.querySelectorAll("[data-go]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      stop();
      go(Math.round((Number(link.dataset.go) - first) / step));
      player.scrollIntoView({ block: "nearest" });
    });
  }
  go(at);
})();
