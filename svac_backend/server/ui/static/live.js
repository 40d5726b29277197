// Asks for the live part of a page again, the less often the less happens; without it a reload shows the same.
"use strict";
(() => {
  const part = document.querySelector("[data-live]");
  const said = document.getElementById("said");
  if (!part) return;
  const least = 1000 * Number(part.dataset.live), most = 30000;
  const address = new URL(location.href);
  address.searchParams.set("live", "1");
  let pause = least, last = null, told = "", timer = 0;

  function show(html) {
    const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
    const at = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.innerHTML = html; // escaped by the server; the page's policy runs nothing that is in it
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (at) document.getElementById(at)?.focus({ preventScroll: true });
  }

  async function look() {
    clearTimeout(timer);
    if (document.hidden) return; // goes on when the page is seen again
    try {
      const answer = await fetch(address, { cache: "no-store", redirect: "error" });
      if (!answer.ok) throw new Error(answer.statusText);
      const found = await answer.json();
      pause = found.html === last ? Math.min(1.5 * pause, most) : least;
      if (last !== null && found.html !== last) show(found.html);
      if (found.summary !== told && last !== null) said.textContent = found.summary;
      last = found.html;
      told = found.summary;
      part.classList.remove("stale");
    } catch {
      pause = Math.min(2 * pause, most);
      part.classList.add("stale");
      said.textContent = "The backend does not answer. This page asks again.";
    }
    timer = setTimeout(look, pause);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) { pause = least; look(); } });
  timer = setTimeout(look, least);
})();
