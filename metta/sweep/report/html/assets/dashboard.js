"use strict";
// Watches a sweep while it runs: asks every second whether anything changed, and fetches only the changes.

const ASK_SECONDS = 1, HIDDEN_ASK_SECONDS = 10, PATIENCE_SECONDS = 10;
const byId = (id) => document.getElementById(id);

async function get(path, query) {
  let response, text;
  try {
    response = await fetch(`/api/${path}?${new URLSearchParams(query)}`,
      { signal: AbortSignal.timeout(PATIENCE_SECONDS * 1000) });
    text = await response.text();
  } catch {
    throw new Error("no answer from the server; trying again");
  }
  if (response.ok) return JSON.parse(text);
  let reason = text;
  try { reason = JSON.parse(text).error; } catch { /* it is plain text */ }
  throw new Error(reason || `the server answered ${response.status}`);
}

// Only after the table is shown and plots are requested, because plotly keeps a browser busy for half a second.
async function loadPlotly() {
  await afterPaint();
  return new Promise((resolve, reject) => document.head.append(
    element("script", { src: "/assets/plotly.js", onload: resolve, onerror: reject })));
}

class Dashboard {
  constructor(name) {
    this.name = name;
    this.rows = new Map();
    this.revision = 0;
    this.version = null;
    this.figures = null;
  }

  async update() {
    if (this.version !== null && !await this.changed()) return;
    const [overview, changed] = await Promise.all([
      get("overview", { name: this.name }),
      get("rows", { name: this.name, since: this.revision }),
    ]);
    if (!this.table) this.build(overview);
    if (changed.revision < this.revision) return location.reload();  // another sweep of the same name
    for (const row of changed.rows) this.rows.set(row[NUMBER], row);
    this.revision = changed.revision;
    const rows = [...this.rows.values()];
    setRankings(rows, overview.ranking);
    this.table.update(rows);
    byId("facts").innerHTML = overview.facts;  // both escaped by the server
    byId("findings").innerHTML = overview.findings;
    document.querySelector("#bar div").style.width = `${100 * overview.progress}%`;
    showFailures(byId("failures"), overview.failures, overview.retry);
    this.figures.list(overview.plots);
    this.figures.refresh();
    this.version = overview.version;
  }

  async changed() {
    const { version, running } = await get("version", { name: this.name });
    this.showRunning(running);
    this.refreshTrial();
    if (version !== this.version) return true;
    if (running.length) this.figures.refreshOnly("learning_curves");
    return false;
  }

  build(overview) {
    document.title = `${this.name} · Metta Sweep`;
    document.querySelector("h1").textContent = this.name;
    this.table = new TrialTable(byId("trials"), overview.columns, { index: SCORE, direction: overview.first });
    this.figures = new Figures(byId("figures"), byId("parameters"), overview.templates,
      (figure) => get("figure", { name: this.name, figure }));
    plotlyReady = loadPlotly();
    this.refreshTrial = route((number) => get("trial", { name: this.name, number }), overview.templates);
  }

  showRunning(running) {
    byId("running").hidden = !running.length;
    byId("running").replaceChildren(...running.map((trial) => {
      const parts = [trial.step === null ? "starting" : `${short(trial.step)} steps`];
      if (trial.speed) parts.push(`${short(Math.round(trial.speed))} ${trial.speed_unit}`);
      if (trial.value !== null) parts.push(`${trial.metric} ${short(trial.value)}`);
      return element("div", {}, element("a", { href: `#trial=${trial.number}`, textContent: `trial ${trial.number}` }),
        ` runs: ${parts.join(", ")}`);
    }));
  }
}

function say(state, text) {
  byId("live").className = `live ${state}`;
  byId("live").textContent = text;
}

const askedSweep = () => new URLSearchParams(location.search).get("sweep");

function showSweeps({ store, sweeps }) {
  byId("store").textContent = `Read from ${store}`;
  const name = askedSweep() ?? sweeps[0];
  const chooser = byId("sweeps");
  chooser.replaceChildren(...sweeps.map((each) => element("option", { value: each, textContent: each, selected: each === name })));
  chooser.hidden = sweeps.length < 2;
  chooser.onchange = () => { location.href = `/?${new URLSearchParams({ sweep: chooser.value })}`; };
  if (name === undefined) {
    say("on", "live");
    byId("overview").replaceChildren(element("p", { className: "notice", textContent: `There are no sweeps in ${store} yet.` }));
  }
}

async function start() {
  const listing = get("sweeps", {});
  listing.then(showSweeps).catch((error) => say("off", error.message));
  const name = askedSweep() ?? (await listing).sweeps[0];
  if (name === undefined) return;
  const dashboard = new Dashboard(name);
  for (;;) {
    try {
      await dashboard.update();
      say("on", "live");
    } catch (error) {
      say("off", error.message);
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 1000 * (document.hidden ? HIDDEN_ASK_SECONDS : ASK_SECONDS));
      document.addEventListener("visibilitychange", resolve, { once: true });
    });
  }
}

start().catch((error) => say("off", error.message));
