// Loads the parts of pages that take long or change, and asks before what cannot be taken back. Pages work without it.
"use strict";

const RETRY_SECONDS = 5;

async function load(part, signal) {
  let answer;
  try {
    answer = await fetch(part.dataset.load, { credentials: "same-origin", signal, headers: { Accept: "text/html" } });
    const text = await answer.text();
    part.innerHTML = text;
  } catch (error) {
    if (part.querySelector("[data-unreachable]") === null) {
      const notice = document.createElement("p");
      notice.className = "error";
      notice.setAttribute("role", "alert");
      notice.dataset.unreachable = "";
      notice.textContent = "The service does not answer. Trying again …";
      part.prepend(notice);
    }
    return { ok: false, again: true };
  } finally {
    part.removeAttribute("aria-busy");
  }
  return { ok: answer.ok, again: answer.ok || answer.status >= 500 };
}

async function keepLoading(part) {
  const live = Number(part.dataset.live || 0);
  const button = document.querySelector("[data-pause]");
  const refreshed = document.querySelector("[data-refreshed]");
  let paused = false;
  let timer = null;

  const next = (seconds) => {
    clearTimeout(timer);
    timer = setTimeout(run, seconds * 1000);
  };
  async function run() {
    if (paused || document.hidden) {
      return;
    }
    const focused = document.activeElement && part.contains(document.activeElement);
    if (focused && part.dataset.loaded) {
      next(live || RETRY_SECONDS); // what somebody stands in is not pulled away
      return;
    }
    const found = await load(part);
    part.dataset.loaded = "1";
    if (refreshed && found.ok) {
      refreshed.textContent = "Refreshed every " + live + " seconds.";
    }
    const ended = part.querySelector("[data-ended]") !== null;
    if (ended && button && refreshed) {
      button.hidden = true;
      refreshed.textContent = "";
    }
    if (found.again && (live ? !ended : !found.ok && part.querySelector("[data-unreachable]") !== null)) {
      next(found.ok ? live : RETRY_SECONDS);
    }
  }
  if (button && live) {
    button.addEventListener("click", () => {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? "Go on" : "Pause";
      if (refreshed) {
        refreshed.textContent = paused ? "Paused." : "";
      }
      run();
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (live && !document.hidden) {
      run();
    }
  });
  run();
}

document.addEventListener("submit", (event) => {
  const asked = event.submitter && event.submitter.dataset.confirm;
  if (asked && !window.confirm(asked)) {
    event.preventDefault();
  }
});

document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.dataset && box.dataset.selectAll !== undefined) {
    for (const other of box.closest("table").querySelectorAll("tbody input[type=checkbox]")) {
      other.checked = box.checked;
    }
  }
});

for (const part of document.querySelectorAll("[data-load]")) {
  keepLoading(part);
}
