/* The engines as they are now, polled while somebody looks. */
"use strict";
const EVERY = 1000, RETRY = 4000, ROWS = 12, HISTORY = 120;
const cards = new Map();
const tone = (style, number) => `hsl(${(30 + number * 137.5) % 360} ${style.getPropertyValue("--owner-tone")})`;

function canvasOf(canvas, height) {
  const scale = devicePixelRatio, width = canvas.clientWidth;
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const draw = canvas.getContext("2d");
  draw.scale(scale, scale);
  return [draw, width, height];
}

class Card {
  rates = [];
  before = null;
  model = null;

  constructor() {
    this.root = $("engine").content.firstElementChild.cloneNode(true);
    this.$ = (selector) => this.root.querySelector(selector);
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  show(model) {
    this.model = model;
    this.$("h2").textContent = model.name;
    const { picture } = model;
    this.$(".shown").hidden = !picture;
    this.$(".about").textContent = `Version ${model.version}` + (picture ? ` · ${model.device} · ${model.dtype}` : " · no engine at the moment");
    if (!picture) return;
    const { stats } = picture, [generated, prompted] = this.rate(model);
    const values = {
      running: count(stats.running), waiting: count(stats.waiting), preempted: count(stats.preemptions),
      generated: count(generated, 1), prompted: count(prompted, 1),
      hits: stats.prefix_queries ? `${count((100 * stats.prefix_hits) / stats.prefix_queries)} %` : "–",
    };
    for (const [name, value] of Object.entries(values)) this.$(`.${name}`).textContent = value;
    const pages = `${count(stats.pages_used)} of ${count(stats.pages_total)} pages in use, ${count(picture.pages_cached)} cached`;
    this.$(".size").textContent = pages;
    const tokens = `${count(model.page_size)} tokens`;
    this.$(".scale").textContent = picture.pages_per_cell > 1 ? `${count(picture.pages_per_cell)} pages a square` : `${tokens} a page`;
    this.$(".pool").setAttribute("aria-label", `Page pool: ${pages}`);
    this.$(".rate").setAttribute("aria-label", `Tokens per second: ${values.generated} now`);
    this.list(picture.requests);
    this.draw();
  }

  /* Tokens per second between two pictures, by the engine's own clock. */
  rate(model) {
    const now = model.picture, { before } = this;
    if (before?.engine === model.engine && before.picture.taken_at === now.taken_at) return this.rates.at(-1) ?? [0, 0];
    const seconds = before?.engine === model.engine ? now.taken_at - before.picture.taken_at : Infinity;
    const since = (name) => (now.stats[name] - (before?.picture.stats[name] ?? 0)) / seconds;
    this.before = model;
    this.rates = [...this.rates, [since("generation_tokens"), since("prompt_tokens")]].slice(-HISTORY);
    return this.rates.at(-1);
  }

  list(requests) {
    const style = getComputedStyle(document.body);
    const rows = requests.slice(0, ROWS).map(([number, prompt, tokens, pages, seconds]) => {
      const row = document.createElement("tr"), mark = document.createElement("i");
      mark.style.background = tone(style, number);
      const cells = [`#${number}`, count(prompt), count(tokens - prompt), count(pages), count(seconds, 1)].map((text) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        return cell;
      });
      cells[0].prepend(mark);
      row.append(...cells);
      return row;
    });
    this.$("tbody").replaceChildren(...rows);
    this.$("table").hidden = !rows.length;
    this.$(".more").textContent = requests.length > ROWS ? `and ${count(requests.length - ROWS)} more` : "";
  }

  draw() {
    if (!this.model?.picture || !this.root.isConnected) return;
    const style = getComputedStyle(document.body);
    this.drawPool(this.model.picture, style);
    this.drawRate(style);
  }

  drawPool({ cells, requests }, style) {
    const bytes = Uint8Array.from(atob(cells), (letter) => letter.charCodeAt(0)), { length } = bytes;
    const width = this.$(".pool").clientWidth, total = length / 2;
    const size = Math.max(3, Math.min(14, Math.floor(Math.sqrt((width * width * 0.6) / total))));
    const columns = Math.max(1, Math.floor(width / size)), gap = size > 4 ? 2 : 1;
    const [draw] = canvasOf(this.$(".pool"), Math.ceil(total / columns) * size);
    const kinds = ["--free", "--cached", "--shared"].map((name) => style.getPropertyValue(name));
    const owners = requests.map(([number]) => tone(style, number));
    for (let cell = 0; cell < total; cell++) {
      const state = bytes[2 * cell] + 256 * bytes[2 * cell + 1];
      draw.fillStyle = kinds[state] ?? owners[state - kinds.length];
      draw.fillRect((cell % columns) * size, Math.floor(cell / columns) * size, size - gap, size - gap);
    }
    this.$(".pool").style.height = `${Math.ceil(total / columns) * size}px`;
  }

  drawRate(style) {
    const rates = this.rates.map(([generated]) => generated), peak = Math.max(...rates);
    const [draw, width, height] = canvasOf(this.$(".rate"), 48);
    this.$(".peak").textContent = peak > 0 ? `at most ${count(peak, 1)}` : "";
    draw.strokeStyle = style.getPropertyValue("--accent");
    draw.lineWidth = 1.5;
    rates.forEach((rate, place) => {
      const x = width - ((rates.length - 1 - place) * width) / (HISTORY - 1), y = height - 1 - (rate / (peak || 1)) * (height - 4);
      draw.lineTo(x, y);
    });
    draw.stroke();
  }
}

function showEngines(models) {
  const names = models.map((model) => `${model.name}/${model.version}`);
  for (const [name, card] of cards) {
    if (!names.includes(name)) {
      card.root.remove();
      cards.delete(name);
    }
  }
  models.forEach((model, place) => {
    if (!cards.has(names[place])) {
      cards.set(names[place], new Card());
      $("watch").append(cards.get(names[place]).root);
    }
    cards.get(names[place]).show(model);
  });
  $("news").textContent = models.length ? "" : "No model is loaded.";
}

/* One look after the other while the page is seen, and none while it is not. */
let wake = () => {};
async function watch() {
  for (let served = null;;) {
    let pause = EVERY, listed = false;
    try {
      if (served === null) await listModels();
      listed = true;
      const { models } = await (await ask("/page/live")).json();
      const now = models.map((model) => [model.name, model.version, model.engine]).join();
      if (served !== null && served !== now) await listModels();
      served = now;
      showEngines(models);
      [$("state").textContent, $("state").className] = ["live", "soft"];
    } catch (error) {
      served = null;
      pause = error.status === 401 || error.status === 403 ? Infinity : RETRY;
      const unseen = listed && error.status === 403;
      $("state").textContent = unseen ? "" : worded(error);
      $("news").textContent = unseen ? `With this key the engines cannot be watched. ${error.message}` : "";
      $("state").className = "bad";
    }
    await new Promise((go) => {
      wake = go;
      if (pause < Infinity) setTimeout(() => document.hidden || go(), pause);
    });
  }
}

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key-text").value.trim());
  $("key-text").value = "";
  $("key").hidden = true;
  $("state").textContent = "";
  wake();
});
document.addEventListener("visibilitychange", () => document.hidden || wake());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => cards.forEach((card) => card.model && card.show(card.model)));
watch();
