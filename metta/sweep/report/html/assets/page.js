"use strict";
// What the report and the dashboard share. Data becomes text nodes only, never markup.

const NUMBER = 0, STATE = 1, RANKING = 2, SCORE = 3, COST = 4;  // columns of a trial's row
const PAGE_ROWS = 100;
const PAPER_WIDTH = 630;  // pixels of a plot on A4 or Letter, whose sheet the browser does not tell the page of
const english = new Intl.NumberFormat("en");
let plotlyReady;  // promised by the script that has plotly loaded
const dark = matchMedia("(prefers-color-scheme: dark)");

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function afterPaint() {  // promises that what the page now holds is on the screen
  return new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
    setTimeout(resolve, 200);  // nothing is painted in a tab behind others, or for a program that takes a picture
  });
}

function idle() {
  return new Promise((resolve) => window.requestIdleCallback  // which Safari lacks
    ? requestIdleCallback(resolve, { timeout: 300 }) : setTimeout(resolve, 100));
}

function short(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return english.format(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/* ---- figures */

class Figures {
  // Cards of plots, each drawn when it comes into view: `load(name)` promises a figure's data.
  // Plots of the overview and plots of single parameters have a container each.
  constructor(overview, parameters, templates, load) {
    this.overview = overview;
    this.parameters = parameters;
    this.templates = templates;
    this.load = load;
    this.cards = new Map();
    this.drawn = Promise.resolve();
    this.listed = "";
    this.watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const card = this.cards.get(entry.target.dataset.name);
        if (!card) continue;
        card.visible = entry.isIntersecting;
        if (card.visible) this.draw(card);
      }
    }, { rootMargin: "150px" });
    dark.addEventListener("change", () => this.refresh());
    addEventListener("beforeprint", () => this.cards.forEach(async (card) => {
      await this.draw(card, true);
      await this.resize(card, card.holder.parentElement === this.parameters ? PAPER_WIDTH / 2 - 40 : PAPER_WIDTH);
    }));
    addEventListener("afterprint", () => this.cards.forEach((card) => this.resize(card, null)));
  }

  list(plots) {  // which plots there are: those that are new appear, and those that are gone disappear
    const listed = plots.map((plot) => plot.name).join("\n");
    if (listed === this.listed) return;
    this.listed = listed;
    for (const [name, card] of this.cards) {
      if (plots.some((plot) => plot.name === name)) continue;
      card.holder.remove();
      this.cards.delete(name);
    }
    for (const plot of plots) {
      if (!this.cards.has(plot.name)) this.cards.set(plot.name, this.card(plot));
      (plot.parameter ? this.parameters : this.overview).append(this.cards.get(plot.name).holder);
    }
  }

  card({ name, title, caption, wide }) {
    const plot = element("div", { className: "plot" });
    const holder = element("section", { className: "card figure" + (wide ? " wide" : "") },
      element("h3", { textContent: title }), caption ? element("p", { textContent: caption }) : null,
      element("div", { className: "scroll" }, plot));
    holder.dataset.name = name;
    this.watcher.observe(holder);
    return { name, plot, holder, visible: false, stale: true, busy: false };
  }

  refresh() {  // what is shown may have changed
    for (const name of this.cards.keys()) this.refreshOnly(name);
  }

  refreshOnly(name) {
    const card = this.cards.get(name);
    if (!card) return;
    card.stale = true;
    if (card.visible) this.draw(card);
  }

  async drawAll() {  // those that never came into view too, for whoever takes a picture of the page
    for (const card of this.cards.values()) {
      await idle();
      if (card.holder.offsetParent) await this.draw(card, true);  // what is hidden has no size to draw it in
    }
  }

  async draw(card, now = false) {
    if (!card.stale || card.busy) return;
    card.stale = false;
    card.busy = true;
    try {
      const figure = await this.load(card.name);
      const work = async () => {
        await drawFigure(card.plot, figure, this.templates);
        card.holder.dataset.drawn = "yes";
      };
      await (now ? work() : this.inTurn(work));
    } catch (error) {
      card.stale = true;
      console.error(card.name, error);
    }
    card.busy = false;
    if (card.stale && card.visible && card.holder.dataset.drawn) setTimeout(() => this.draw(card), 1000);
  }

  async resize(card, width) {  // null: as wide as its card
    if (card.holder.dataset.drawn) await Plotly.relayout(card.plot, { width, autosize: width === null });
  }

  inTurn(work) {  // one after the other, so that each is seen as soon as it is there
    const done = this.drawn.then(afterPaint).then(work);
    this.drawn = done.catch(() => {});
    return done;
  }
}

async function drawFigure(plot, figure, templates) {
  await plotlyReady;
  const narrow = innerWidth < 760;
  const layout = { ...figure.layout, template: templates[dark.matches ? "dark" : "light"], autosize: true };
  const data = structuredClone(figure.data);
  if (narrow) {
    layout.height = Math.min(layout.height, 380);
    layout.dragmode = false;  // a finger scrolls
    for (const trace of data) if (trace.mode === "lines+markers+text") trace.mode = "lines+markers";  // too near to each other
  }
  const previous = plot.figureText;
  plot.figureText = JSON.stringify([figure, dark.matches]);
  if (plot.figureText === previous) return;
  await Plotly.react(plot, data, layout, { responsive: true, displayModeBar: false });
  if (previous !== undefined) return;
  plot.on("plotly_click", (event) => {
    const data = event.points[0].customdata;
    const number = Array.isArray(data) ? data[0] : data;
    if (Number.isInteger(number)) location.hash = `trial=${number}`;
  });
  if (layout.dragmode === "select") makeBrush(plot);
}

// Parallel coordinates: boxes over axes keep only the trials that pass through all of them.
function makeBrush(plot) {
  let working = false;
  plot.on("plotly_relayout", async (change) => {
    if (working || !Object.keys(change).some((key) => key.startsWith("selections"))) return;
    working = true;
    const boxes = plot.layout.selections || [];
    const original = JSON.parse(plot.figureText)[0].data;
    const axes = plot.layout.xaxis.tickvals.length, length = axes + 1;
    const passes = (trace, start) => boxes.every((box) => {
      const [left, right] = [Math.min(box.x0, box.x1), Math.max(box.x0, box.x1)];
      const [low, high] = [Math.min(box.y0, box.y1), Math.max(box.y0, box.y1)];
      for (let axis = 0; axis < axes; axis++) {
        const y = trace.y[start + axis];
        if (axis >= left && axis <= right && (y === null || y < low || y > high)) return false;
      }
      return true;
    });
    const ys = original.map((trace) => {
      const y = [];
      for (let start = 0; start < trace.y.length; start += length) {
        const kept = passes(trace, start);
        for (let i = 0; i < length; i++) y.push(kept ? trace.y[start + i] : null);
      }
      return y;
    });
    const opacity = boxes.length ? [0.6, 0.9, 1] : original.map((trace) => trace.opacity);
    await Plotly.restyle(plot, { y: ys, opacity });
    working = false;
  });
  plot.on("plotly_doubleclick", () => Plotly.relayout(plot, { selections: [] }));
}

/* ---- the table of trials */

class TrialTable {
  // columns: [{label, title, text}]; rows: arrays of values in their order.
  constructor(container, columns, sort) {
    this.columns = columns;
    this.sort = sort;
    this.page = 0;
    this.rows = [];
    this.search = element("input", { type: "search", placeholder: "search: failed   learning_rate>0.001   score>2" });
    this.search.setAttribute("aria-label", "search trials");
    this.search.addEventListener("input", () => { this.page = 0; this.show(); });
    this.count = element("span", { className: "hint" });
    this.previous = element("button", { textContent: "‹ previous", onclick: () => { this.page--; this.show(); } });
    this.next = element("button", { textContent: "next ›", onclick: () => { this.page++; this.show(); } });
    this.head = element("tr");
    this.body = element("tbody");
    columns.forEach((column, index) => {
      const button = element("button", { textContent: column.label, title: column.title, onclick: () => this.sortBy(index) });
      this.head.append(element("th", { className: column.text ? "text" : "", scope: "col" }, button));
    });
    const table = element("table", { className: "trials" }, element("thead", {}, this.head), this.body);
    container.replaceChildren(
      element("div", { className: "tools" }, this.search, this.count, this.previous, this.next),
      element("div", { className: "scroll" }, table));
  }

  update(rows) {
    this.rows = rows;
    this.show();
  }

  sortBy(index) {
    const first = index === NUMBER || this.columns[index].text ? 1 : -1;
    this.sort = { index, direction: this.sort.index === index ? -this.sort.direction : first };
    this.page = 0;
    this.show();
  }

  show() {
    const { index, direction } = this.sort;
    const empty = (value) => value === null || value === "" || value === undefined;
    const { matches, unknown } = matcher(this.search.value, this.columns);
    const found = this.rows.filter(matches).sort((one, other) => {
      const [a, b] = [one[index], other[index]];
      if (empty(a) || empty(b)) return empty(a) - empty(b) || one[NUMBER] - other[NUMBER];
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return direction * order || one[NUMBER] - other[NUMBER];
    });
    const pages = Math.max(1, Math.ceil(found.length / PAGE_ROWS));
    this.page = Math.min(Math.max(this.page, 0), pages - 1);
    const start = this.page * PAGE_ROWS, shown = found.slice(start, start + PAGE_ROWS);
    this.count.textContent = this.rows.length === 0 ? "no trials yet" : unknown ? `there is no column ${unknown}` : found.length === 0 ? "no trial matches"
      : pages === 1 ? `${found.length} of ${this.rows.length} trials`
      : `${start + 1}–${start + shown.length} of ${found.length} trials`;
    this.previous.disabled = this.page === 0;
    this.next.disabled = this.page === pages - 1;
    this.previous.hidden = this.next.hidden = pages === 1;
    [...this.head.children].forEach((cell, i) =>
      cell.setAttribute("aria-sort", i !== index ? "none" : direction > 0 ? "ascending" : "descending"));
    this.body.replaceChildren(...shown.map((row) => this.rowElement(row)));
  }

  rowElement(row) {
    const cells = this.columns.map((column, i) => {
      const cell = element("td", { textContent: short(row[i]) });
      if (column.text) cell.classList.add("text");
      if (i === STATE && row[i] === "failed") cell.classList.add("failed");
      if (i === RANKING) cell.classList.add(row[i] === "Pareto" ? "front" : row[i] ? "best" : "quiet");
      return cell;
    });
    const link = element("a", { href: `#trial=${row[NUMBER]}`, textContent: row[NUMBER] });
    cells[NUMBER].replaceChildren(link);
    return element("tr", { onclick: () => { location.hash = `trial=${row[NUMBER]}`; } }, ...cells);
  }
}

// A word is a comparison such as score>2, or text to find anywhere in the row. Returns the rows that match, and the
// first compared name that no column has.
function matcher(query, columns) {
  let unknown = "";
  const tests = query.trim().toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const parts = word.match(/^(.+?)(<=|>=|<|>|=)(.+)$/);
    const index = parts ? columns.findIndex((column) =>
      [column.label, column.title, column.title.split(".").pop()].some((name) => name.toLowerCase() === parts[1])) : -1;
    if (parts && index < 0) unknown = parts[1];
    if (index < 0) return (row) => row.some((value) => short(value).toLowerCase().includes(word));
    const wanted = Number(parts[3]);
    const compare = {
      "<": (value) => value < wanted, ">": (value) => value > wanted,
      "<=": (value) => value <= wanted, ">=": (value) => value >= wanted,
      "=": (value) => value === wanted || String(value).toLowerCase() === parts[3],
    }[parts[2]];
    return (row) => row[index] !== null && row[index] !== "" && compare(row[index]);
  });
  return { matches: (row) => tests.every((test) => test(row)), unknown };
}

/* ---- failures, and a trial's page */

// `retry` has the command that queues all of them again.
function showFailures(container, groups, retry) {
  const details = groups.map((group) => element("details", {},
    element("summary", {}, element("b", { textContent: group.reason }),
      ` — ${group.numbers.length} trial${group.numbers.length === 1 ? "" : "s"}`),
    trialLinks(group.numbers), element("pre", { textContent: group.error })));
  container.replaceChildren(...details, ...retry.map(([reason, command]) => commandElement(reason, command)));
  if (!groups.length) container.replaceChildren(element("p", { className: "hint", textContent: "No trial has failed." }));
}

function trialLinks(numbers) {
  const shown = numbers.slice(0, 60);
  const links = shown.map((number) => element("a", { href: `#trial=${number}`, textContent: `trial ${number}` }));
  return element("div", { className: "links" }, ...links, numbers.length > shown.length ? "…" : null);
}

function settingsTable(rows) {
  return element("table", { className: "settings" }, element("tbody", {}, ...rows.map((row) =>
    element("tr", {}, ...row.map((text) => element("td", { textContent: text }))))));
}

function commandElement(reason, command) {
  return element("div", { className: "command" }, element("p", { textContent: reason }),
    element("div", {}, element("pre", { textContent: command }),
      element("button", { className: "copy", textContent: "copy", type: "button" })));
}

// `trial` is a trial's detail; its learning curve is drawn if there is one.
async function showTrial(container, trial, templates) {
  const card = (title, ...content) => element("section", { className: "card" }, element("h3", { textContent: title }), ...content);
  const grid = element("div", { className: "trial-grid" },
    card("What happened", settingsTable(trial.facts)),
    card("Hyperparameters", settingsTable(trial.params)));
  const wide = (made) => { made.classList.add("wide"); grid.append(made); return made; };
  if (trial.error) wide(card("Error", element("pre", { textContent: trial.error })));
  const plot = trial.curve ? container.querySelector(".plot") ?? element("div", { className: "plot" }) : null;
  if (plot) wide(card("Learning curve", plot));
  wide(card("Commands", ...trial.commands.map(([reason, command]) => commandElement(reason, command))));
  if (trial.metrics.length) {
    wide(card("Everything measured", element("div", { className: "metrics" }, ...trial.metrics.map(([name, value]) =>
      element("div", {}, element("span", { textContent: name }), short(value))))));
  }
  container.replaceChildren(element("h2", { textContent: `Trial ${trial.number}` }), grid);
  if (plot) await drawFigure(plot, trial.curve, templates);
}

function chosenTrial() {
  const found = location.hash.match(/^#trial=(\d+)$/);
  return found ? Number(found[1]) : null;
}

addEventListener("click", async (event) => {
  if (!event.target.classList.contains("copy")) return;
  const text = event.target.parentElement.querySelector("pre").textContent;
  try {
    await navigator.clipboard.writeText(text);
    event.target.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(event.target.parentElement.querySelector("pre"));
    event.target.textContent = "selected";
  }
  setTimeout(() => { event.target.textContent = "copy"; }, 1500);
});

function rankingOf(number, ranking, front) {
  const held = ["best", "top"].filter((title) => ranking[title] === number);
  return held.join(", ") || (front.has(number) ? "Pareto" : "");
}

function setRankings(rows, ranking) {
  const front = new Set(ranking.front);
  for (const row of rows) {
    row[RANKING] = rankingOf(row[NUMBER], ranking, front);
  }
}

// Shows the trial that the address names, or the overview. `find` gives a trial's detail, now or later.
// Returns a function that shows what has changed of that trial.
function route(find, templates) {
  const overview = document.getElementById("overview"), page = document.getElementById("trial");
  const content = element("div");
  page.append(element("a", { className: "back", href: "#", textContent: "‹ all trials" }), content);
  let left = 0, focused = null;  // where the overview was scrolled to, and what had the focus there
  let shown = "";
  const fill = async () => {
    const number = chosenTrial();
    if (number === null) return;
    try {
      const trial = await find(number), text = JSON.stringify(trial);
      if (trial === undefined) throw new Error(`there is no trial ${number}`);
      if (chosenTrial() !== number || text === shown) return;
      shown = text;
      await showTrial(content, trial, templates);
    } catch (error) {
      shown = "";
      content.replaceChildren(element("p", { className: "notice", textContent: error.message }));
    }
  };
  const show = () => {
    const number = chosenTrial();
    if (number !== null && page.hidden) [left, focused] = [scrollY, document.activeElement];
    overview.hidden = number !== null;
    page.hidden = number === null;
    content.replaceChildren();
    shown = "";
    (number === null ? focused : page)?.focus({ preventScroll: true });
    scrollTo(0, number === null ? left : 0);
    fill();
  };
  addEventListener("hashchange", show);
  if (chosenTrial() !== null) show();
  return fill;
}
