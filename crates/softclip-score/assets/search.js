"use strict";
const [form, text, image, k, status, results, seen, drop] =
  ["form", "text", "image", "k", "status", "results", "seen", "drop"].map((id) => document.getElementById(id));
let running = new AbortController();

function say(words, wrong = false) {
  status.textContent = words;
  status.classList.toggle("wrong", wrong);
}

function element(name, className, content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (content !== undefined) made.textContent = content;
  return made;
}

/// A picture, or words where it cannot be shown.
function frame(hit) {
  const made = element("div", "frame");
  const picture = element("img");
  picture.alt = hit.key;
  picture.loading = "lazy";
  picture.src = hit.thumb;
  picture.addEventListener("error", () => made.replaceChildren("no picture"));
  made.append(picture);
  return made;
}

function row(hit) {
  const made = element("li");
  const note = element("span", "note");
  note.append(element("b", "", hit.rank), ` ${hit.score.toFixed(3)}`);
  if (hit.text !== undefined) {
    made.append(note, element("span", "", hit.text));
  } else {
    const key = element("span", "name", hit.key);
    key.title = hit.key;
    made.append(frame(hit), note, key);
  }
  return made;
}

async function answer(url, options) {
  running.abort();
  running = new AbortController();
  const mine = running;
  say("Searching…");
  results.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(url, {...options, signal: mine.signal});
    const found = await response.json();
    if (!response.ok) throw new Error(found.error);
    results.className = found.hits.some((hit) => "text" in hit) ? "texts" : "pictures";
    results.replaceChildren(...found.hits.map(row));
    say(found.hits.length === 0 ? "Nothing is in the collection." : `${found.hits.length} nearest; numbers are cosines.`);
  } catch (error) {
    if (mine.signal.aborted) return;
    results.replaceChildren();
    say(error instanceof TypeError ? "The server does not answer. Does it still run?" : `That failed: ${error.message}.`, true);
  }
  if (running === mine) results.removeAttribute("aria-busy");
}

function showSeen(file) {
  const picture = seen.querySelector("img");
  URL.revokeObjectURL(picture.src);
  seen.hidden = !file;
  if (!file) return picture.removeAttribute("src");
  picture.src = URL.createObjectURL(file);
  seen.querySelector("figcaption").textContent = `Like ${file.name || "the pasted image"}`;
}

/// `keep`: the address becomes that of this search.
function byText(keep) {
  const asked = text.value.trim();
  if (!asked) return say("Type what to search for, or choose an image.");
  showSeen(null);
  document.title = `${asked} – Search`;
  const query = new URLSearchParams({q: asked, k: k.value});
  if (keep) history.pushState(null, "", `?${query}`);
  return answer(`/api/search?${new URLSearchParams({text: asked, k: k.value})}`);
}

let last = null;
function byImage(file) {
  if (!file) return;
  last = file;
  text.value = "";
  document.title = "Search";
  history.pushState(null, "", location.pathname);
  showSeen(file);
  return answer(`/api/search?${new URLSearchParams({k: k.value})}`, {method: "POST", body: file});
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  byText(true);
});
k.addEventListener("change", () => {
  if (text.value.trim()) byText(true);
  else if (!seen.hidden) byImage(last);
});
image.addEventListener("change", () => {
  byImage(image.files[0]);
  image.value = ""; // so that the same file can be chosen again
});
const picture = (files) => [...files].find((file) => file.type.startsWith("image/"));
document.addEventListener("paste", (event) => {
  const file = picture(event.clipboardData.files);
  if (!file) return;
  event.preventDefault();
  byImage(file);
});
document.addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  drop.hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.hidden = true;
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.hidden = true;
  const file = picture(event.dataTransfer.files);
  if (file) byImage(file);
  else say("That is no image.", true);
});

/// Chooses a number of results, which may be none of those that are offered.
function choose(wanted) {
  if (![...k.options].some((option) => Number(option.value) === wanted)) {
    k.add(new Option(wanted, wanted), [...k.options].find((option) => Number(option.value) > wanted) ?? null);
  }
  k.value = wanted;
}

/// The search that the address names.
function fromAddress() {
  const address = new URLSearchParams(location.search);
  const wanted = address.get("k") ?? "";
  if (/^\d{1,9}$/.test(wanted)) choose(Number(wanted));
  text.value = address.get("q") ?? "";
  if (text.value.trim()) return byText(false);
  running.abort();
  results.removeAttribute("aria-busy");
  results.replaceChildren();
  showSeen(null);
  say("");
}
addEventListener("popstate", fromAddress);

(async () => {
  try {
    const info = await (await fetch("/api/info")).json();
    const model = info.model ? `, embedded by ${info.model}` : "";
    document.getElementById("about").textContent = `${info.rows.toLocaleString("en")} rows of ${info.collection}${model}`;
    const choices = [...new Set([10, 20, 50, 100, 200, info.k])].sort((a, b) => a - b);
    k.replaceChildren(...choices.map((n) => new Option(n, n, n === info.k, n === info.k)));
    fromAddress();
  } catch {
    say("The server does not answer. Does it still run?", true);
  }
})();
