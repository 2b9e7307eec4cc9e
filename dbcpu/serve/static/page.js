// The page: from a picture to its outlines, and the settings that can be tried on it.

import { detect, get, onKeyNeeded, Problem } from "./api.js";
import { View } from "./view.js";

const element = id => document.getElementById(id);
const progress = element("progress"), problem = element("problem"), tip = element("tip");
const view = new View(element("stage"), element("sheet"), { onHover: showTip, onZoom: scale => {
  element("zoom").value = `${Math.round(scale * 100)} %`;
} });
const state = {
  file: null, address: null, session: null, pages: [], page: 0, settings: {},
  work: null, tries: null, showing: null, // what goes on, to be aborted by what comes next
  timer: null, // of a change that was not asked about yet
};

onKeyNeeded(() => new Promise((resolve, reject) => {
  const dialog = element("key"), value = element("key-value");
  value.value = "";
  dialog.onclose = () => value.value ? resolve(value.value) : reject(new Problem(401, "this server wants an API key"));
  dialog.showModal();
}));

function showTip(hovered) {
  tip.hidden = !hovered;
  if (!hovered) return;
  tip.textContent = `${hovered.score.toFixed(3)}`;
  tip.style.left = `${hovered.x}px`;
  tip.style.top = `${element("stage").offsetTop + hovered.y - 30}px`;
}

function say(error) {
  if (error?.name === "AbortError") return;
  problem.textContent = error ? error.message : "";
  problem.hidden = !error;
}

function showProgress(text, share) {
  progress.hidden = !text;
  progress.querySelector("span").textContent = text || "";
  const bar = progress.querySelector("progress");
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

async function open(file) {
  if (!file) return;
  stopTimer();
  state.tries?.abort();
  state.showing?.abort();
  forget();
  Object.assign(state, { file, page: 0, settings: {}, session: null, pages: [] });
  await send();
}

// Sends the picture of the state, with its settings.
async function send() {
  state.work?.abort();
  const work = state.work = new AbortController();
  say(null);
  showProgress("sending", 0);
  try {
    const onProgress = share => share < 1 ? showProgress("sending", share) : showProgress("looking for text");
    const answer = await detect(state.file, { ...state.settings, keep: true }, { onProgress, signal: work.signal });
    if (work.signal.aborted) return; // while a key was asked for
    state.session = answer.session;
    state.pages = answer.pages;
    await showPage();
  } catch (error) {
    if (state.work === work) {
      element("result").hidden = true;
      say(error);
    }
  } finally {
    if (state.work === work) showProgress(null);
  }
}

function forget() {
  if (state.session) get(`v1/sessions/${state.session}`, {}, { method: "DELETE" }).catch(() => {});
}

async function showPage() {
  state.showing?.abort();
  const { signal } = state.showing = new AbortController();
  const { width, height, image } = state.pages[state.page];
  document.body.classList.add("loaded");
  element("result").hidden = false;
  element("name").textContent = image;
  element("pages").hidden = state.pages.length === 1;
  element("page").value = `${state.page + 1} of ${state.pages.length}`;
  element("previous").disabled = state.page === 0;
  element("next").disabled = state.page === state.pages.length - 1;
  const address = await picture(width, height, signal).catch(error => {
    if (!signal.aborted) throw error;
  });
  if (signal.aborted) return URL.revokeObjectURL(address);
  if (state.address) URL.revokeObjectURL(state.address);
  state.address = address;
  view.show(address, width, height);
  showInstances();
}

// The file itself where the browser shows it as the server sees it, else the server's rendition.
async function picture(width, height, signal) {
  if (state.pages.length === 1) {
    const address = URL.createObjectURL(state.file), image = new Image();
    image.src = address;
    const isShown = await image.decode().then(() => true, () => false);
    if (isShown && image.naturalWidth === width && image.naturalHeight === height) return address;
    URL.revokeObjectURL(address);
  }
  if (!state.session) throw new Problem(0, "too large to be kept by the server, and of a kind that this browser cannot show");
  const longest = matchMedia("(any-pointer: fine)").matches ? 8192 : 4096; // what phones have memory for
  const response = await get(`v1/sessions/${state.session}/pages/${state.pages[state.page].page}`, { longest }, { signal });
  return URL.createObjectURL(await response.blob());
}

function showInstances() {
  const { instances, settings, truncated } = state.pages[state.page];
  view.draw(instances);
  element("count").value = `${instances.length} instances${truncated ? ", cut at the limit of candidates" : ""}`;
  if (state.timer) return; // the controls are ahead
  element("score").value = settings.score_threshold;
  element("unclip").value = settings.unclip_ratio;
  showValues();
  document.querySelector(`input[name=shape][value=${settings.shape}]`).checked = true;
}

function showValues() {
  element("score-value").value = Number(element("score").value).toFixed(2);
  element("unclip-value").value = Number(element("unclip").value).toFixed(2);
}

// Asks for what the kept picture gives with the settings of the state; the last question counts.
async function tryAgain() {
  stopTimer();
  state.tries?.abort();
  if (!state.session) return send();
  const tries = state.tries = new AbortController();
  try {
    const response = await get(`v1/sessions/${state.session}`, state.settings, { signal: tries.signal });
    state.pages = (await response.json()).pages;
    say(null);
    showInstances();
  } catch (error) {
    if (error.status === 404) await send();
    else say(error);
  }
}

function change(settings) {
  state.tries?.abort(); // its answer would set the controls back
  Object.assign(state.settings, settings);
  stopTimer();
  state.timer = setTimeout(tryAgain, 60);
}

function stopTimer() {
  clearTimeout(state.timer);
  state.timer = null;
}

function turnPage(steps) {
  const page = state.page + steps;
  if (!state.pages[page]) return;
  state.page = page;
  showPage().catch(say);
}

async function download(form) {
  const stem = state.file.name.replace(/\.[^.]*$/, "") || "picture";
  const { page } = state.pages[state.page];
  const one = state.pages.length > 1 && form === "overlay-png" ? { page } : {};
  const names = { json: `${stem}.json`, icdar: `res_${stem}.txt`, "overlay-png": `${stem}.overlay.png` };
  if (!state.session) throw new Problem(0, "too large to be kept by the server: ask the API for this format");
  const response = await get(`v1/sessions/${state.session}`, { ...state.settings, ...one, format: form });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = names[form];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

for (const id of ["choose", "photograph"]) element(id).addEventListener("change", event => {
  open(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
for (const button of document.querySelectorAll("[data-sample]")) button.addEventListener("click", async () => {
  const name = button.dataset.sample, response = await fetch(`static/samples/${name}`);
  open(new File([await response.blob()], name));
});
document.addEventListener("paste", event => open(event.clipboardData.files[0]));
document.addEventListener("dragover", event => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", event => event.relatedTarget || document.body.classList.remove("dropping"));
document.addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  open(event.dataTransfer.files[0]);
});
element("cancel").addEventListener("click", () => state.work?.abort());
element("score").addEventListener("input", event => {
  showValues();
  change({ score_threshold: event.target.value });
});
element("unclip").addEventListener("input", event => {
  showValues();
  change({ unclip_ratio: event.target.value });
});
for (const radio of document.querySelectorAll("input[name=shape]")) {
  radio.addEventListener("change", () => change({ shape: radio.value }));
}
element("reset").addEventListener("click", () => {
  state.settings = {};
  tryAgain();
});
for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => download(button.dataset.download).catch(say));
}
element("in").addEventListener("click", () => view.key("+"));
element("out").addEventListener("click", () => view.key("-"));
element("fit").addEventListener("click", () => view.fit());
element("previous").addEventListener("click", () => turnPage(-1));
element("next").addEventListener("click", () => turnPage(1));
element("stage").addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const more = {
    "[": () => turnPage(-1), "]": () => turnPage(1),
    b: () => document.querySelector("input[name=shape]:not(:checked)").click(),
  };
  if (more[event.key]) more[event.key]();
  else if (!view.key(event.key)) return;
  event.preventDefault();
});
get("v1/models").then(response => response.json()).then(({ models: [model] }) => {
  element("model").textContent = `with ${model.name}, ${model.description}`;
}).catch(say);
