"use strict";
// Shows what is under way without loading the page anew: its live part is fetched every two seconds, and replaced where
// it has changed. Without this script the page reloads itself.
const SECONDS = 2;

async function refresh() {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (answer.ok) replace(live, new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // The backend may be starting again: the next attempt tells.
  }
  setTimeout(refresh, 1000 * SECONDS);
}

function replace(live, fresh) {
  const next = fresh.getElementById(live.id);
  if (!next || next.innerHTML === live.innerHTML) return;
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  live.replaceWith(document.adoptNode(next));
  if (focused) document.getElementById(focused)?.focus();
}

setTimeout(refresh, 1000 * SECONDS);
