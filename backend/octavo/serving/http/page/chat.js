/* A conversation with one model, over the OpenAI API. */
"use strict";
let talk = [];         // the messages of this conversation
let chats = true;      // whether the model has a template for messages
let writing = null;    // what ends the answer that is being written

async function listModels() {
  const { data } = await (await ask("/v1/models")).json();
  const names = data.map((model) => model.id), chosen = $("model").value;
  $("model").replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  if ($("model").value !== chosen) await chooseModel();
}

/* Whether messages can be answered is known once some have been spelled; nothing is generated for it. */
async function chooseModel() {
  const model = $("model").value;
  let answers = true;
  if (model) {
    try {
      await ask("/v1/tokenize", { model, messages: [{ role: "user", content: "Hello" }] });
    } catch (error) {
      answers = error.status !== 400;
    }
  }
  if (model === $("model").value) {
    chats = answers;
    $("mode").hidden = answers;
  }
}

function add(kind, speaker, text = "") {
  const box = piece(kind, "");
  box.append(piece("unseen", speaker), piece("text", text));
  $("hint").hidden = true;
  document.body.classList.add("talking");
  $("log").append(box);
  $("log").scrollTop = $("log").scrollHeight;
  return box;
}

function piece(kind, text) {
  const element = document.createElement("div");
  element.className = kind;
  element.textContent = text;
  return element;
}

function question(text) {
  const common = {
    model: $("model").value, temperature: $("temperature").valueAsNumber, max_tokens: $("max-tokens").valueAsNumber,
    stream: true, stream_options: { include_usage: true, continuous_usage_stats: true },
  };
  return chats ? ["/v1/chat/completions", { ...common, messages: talk }] : ["/v1/completions", { ...common, prompt: text }];
}

/* The time to the first token and between tokens, as this page sees them. */
class Figures {
  began = performance.now();
  first = null;
  last = 0;
  counted = 0;
  usage = null;
  end = "";

  take(usage) {
    if (!usage?.completion_tokens || usage.completion_tokens === this.usage?.completion_tokens) return;
    this.usage = usage;
    this.last = performance.now();
    if (this.first === null) [this.first, this.counted] = [this.last, usage.completion_tokens];
  }

  text() {
    if (this.first === null) return this.end;
    const parts = [`TTFT ${count(this.first - this.began)} ms`], more = this.usage.completion_tokens - this.counted;
    const cached = this.usage.prompt_tokens_details?.cached_tokens ?? 0;
    if (more > 0) {
      const itl = (this.last - this.first) / more;
      parts.push(`ITL ${count(itl, 1)} ms`, `${count(1000 / itl, 1)} tokens/s`);
    }
    parts.push(`${count(this.usage.completion_tokens)} tokens`);
    parts.push(`prompt ${count(this.usage.prompt_tokens)}${cached ? `, ${count(cached)} of it cached` : ""}`);
    return [...parts, this.end].filter(Boolean).join(" · ");
  }
}

async function send(text) {
  add("user", "You", text);
  const mine = talk;
  mine.push({ role: "user", content: text });
  const box = add("answering", $("model").value), figures = new Figures(), line = piece("figures soft", ""), shown = box.lastChild;
  let thought = null;
  box.append(line);
  writing = new AbortController();
  busy(true);
  try {
    const [path, body] = question(text);
    for await (const event of events(await ask(path, body, writing.signal))) {
      if (event.error) throw new Refusal(0, event.error.message);
      const choice = event.choices[0], follow = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 40;
      const reasoning = choice?.delta?.reasoning_content;
      if (reasoning) {
        if (!thought) shown.before(thought = piece("text thought soft", ""));
        thought.append(reasoning);
      }
      shown.append(choice?.delta?.content ?? choice?.text ?? "");
      if (choice?.finish_reason === "length") figures.end = "cut at max tokens";
      figures.take(event.usage);
      line.textContent = figures.text();
      if (follow) $("log").scrollTop = $("log").scrollHeight;
    }
  } catch (error) {
    if (error.name === "AbortError") figures.end = "stopped";
    else {
      if (!shown.textContent) box.remove();
      add("bad", "Error", worded(error)).setAttribute("role", "alert");
      $("prompt").value ||= text;
    }
  }
  if (shown.textContent) mine.push({ role: "assistant", content: shown.textContent });
  else mine.pop();
  line.textContent = figures.text();
  box.classList.remove("answering");
  busy(false);
}

function busy(now) {
  if (!now) writing = null;
  $("log").setAttribute("aria-busy", now);
  $("send").hidden = now;
  $("stop").hidden = !now;
  $("prompt").focus();
}

function forget() {
  writing?.abort();
  talk = [];
  $("log").replaceChildren($("hint"));
  $("hint").hidden = false;
  document.body.classList.remove("talking");
  $("prompt").focus();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("prompt").value;
  const wrong = [$("temperature"), $("max-tokens")].find((field) => !field.value || !field.reportValidity());
  if (writing || !text.trim() || !$("model").value || wrong) return wrong?.focus();
  $("prompt").value = "";
  send(text);
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") writing?.abort(); });
$("stop").addEventListener("click", () => writing?.abort());
$("forget").addEventListener("click", forget);
$("model").addEventListener("change", chooseModel);
