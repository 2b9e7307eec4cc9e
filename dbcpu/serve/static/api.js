// Requests to the API. Every failure becomes a Problem with the server's words.

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

const KEY = "dbcpu-key";
let askForKey = () => Promise.reject(new Problem(401, "this server wants an API key"));

// `ask` shows the user a question and gives a promise of the key.
export function onKeyNeeded(ask) {
  askForKey = ask;
}

function problemOf(status, body) {
  try {
    return new Problem(status, JSON.parse(body).detail);
  } catch {
    return new Problem(status, status ? `the server answered ${status}` : "the server cannot be reached");
  }
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function withKey(attempt) {
  for (;;) {
    try {
      return await attempt();
    } catch (problem) {
      if (problem.status !== 401) throw problem;
      sessionStorage.setItem(KEY, await askForKey());
    }
  }
}

// Fetches from the API: a response that is fine.
export function get(path, parameters = {}, options = {}) {
  return withKey(async () => {
    let response;
    try {
      response = await fetch(`${path}?${new URLSearchParams(parameters)}`, { ...options, headers: headers() });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw problemOf(0, "");
    }
    if (!response.ok) throw problemOf(response.status, await response.text());
    return response;
  });
}

// Sends a picture, and tells the share of it that has arrived. XMLHttpRequest, since fetch does not tell.
export function detect(file, parameters, { onProgress, signal }) {
  return withKey(() => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file, file.name || "picture");
    request.open("POST", `v1/detect?${new URLSearchParams(parameters)}`);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = event => onProgress(event.loaded / event.total);
    request.onload = () => request.status === 200
      ? resolve(JSON.parse(request.responseText))
      : reject(problemOf(request.status, request.responseText));
    request.onerror = () => reject(problemOf(0, ""));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  }));
}
