/* What both halves of the page share: questions to the server, with the key if there is one. */
"use strict";
const $ = (id) => document.getElementById(id);
const KEY = "octavo-key";
const count = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

class Refusal extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function ask(path, body, signal) {
  const headers = {}, key = sessionStorage.getItem(KEY);
  if (key) headers["Authorization"] = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  if (response.ok) return response;
  if (response.status === 401) {
    $("key").hidden = false;
    throw new Refusal(401, key ? "This server does not know this key." : "This server wants a key.");
  }
  const { error } = await response.json().catch(() => ({}));
  throw new Refusal(response.status, error?.message ?? error ?? `The server answers with ${response.status}.`);
}

const worded = (error) => error instanceof Refusal ? error.message : "The server does not answer.";

/* The server's events: a line of JSON each; lines that begin otherwise are signs of life. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "", part; !(part = await reader.read()).done;) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}
