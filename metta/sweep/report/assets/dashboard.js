"use strict";
// Follows a sweep while it runs: asks every second whether anything changed, and fetches only what did.

const ASK_SECONDS = 1, HIDDEN_ASK_SECONDS = 10, PATIENCE_SECONDS = 10;
const byId = (id) => document.getElementById(id);

async function get(path, query) {
  const response = await fetch(`/api/${path}?${new URLSearchParams(query)}`,
    { signal: AbortSignal.timeout(PATIENCE_SECONDS * 1000) });
  if (response.ok) return response.json();
  const text = await response.text();
  let reason = text;
  try { reason = JSON.parse(text).error; } catch { /* it is plain text */ }
  throw new Error(reason || `the server answered ${response.status}`);
}

const plotlyLoaded = new Promise((resolve) => {
  if (window.Plotly) resolve();
  else byId("plotly").addEventListener("load", resolve);
});

class Dashboard {
  constructor(name, templates) {
    this.name = name;
    this.templates = templates;
    this.rows = new Map();
    this.revision = 0;
    this.version = null;
    this.figures = null;
  }

  async update() {
    const { version, running } = await get("version", { name: this.name });
    this.showRunning(running);
    if (version === this.version) {
      if (running.length) this.figures.refreshOnly("learning_curves");
      return;
    }
    const [overview, changed] = await Promise.all([
      get("overview", { name: this.name }),
      get("rows", { name: this.name, since: this.revision }),
    ]);
    if (!this.table) this.build(overview);
    if (changed.revision < this.revision) return location.reload();  // another sweep of the same name
    for (const row of changed.rows) this.rows.set(row[NUMBER], row);
    this.revision = changed.revision;
    const rows = [...this.rows.values()];
    setStandings(rows, overview.standing);
    this.table.update(rows);
    byId("facts").innerHTML = overview.facts;  // both escaped by the server
    byId("findings").innerHTML = overview.findings;
    document.querySelector("#bar div").style.width = `${100 * overview.progress}%`;
    showFailures(byId("failures"), overview.failures);
    this.figures.list(overview.plots);
    this.figures.refresh();
    this.version = version;
  }

  build(overview) {
    document.title = `${this.name} · Metta Sweep`;
    document.querySelector("h1").textContent = this.name;
    this.table = new TrialTable(byId("trials"), overview.columns, { index: SCORE, direction: overview.first });
    this.figures = new Figures(byId("figures"), byId("parameters"), this.templates, async (figure) => {
      await plotlyLoaded;
      return get("figure", { name: this.name, figure });
    });
    route((number) => get("trial", { name: this.name, number }), this.templates);
  }

  showRunning(running) {
    byId("running").hidden = !running.length;
    byId("running").replaceChildren(...running.map((trial) => {
      const parts = [trial.step === null ? "starting" : `${short(trial.step)} steps`];
      if (trial.speed) parts.push(`${short(Math.round(trial.speed))} steps/s`);
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

async function start() {
  const { store, sweeps, templates } = await get("sweeps", {});
  byId("store").textContent = `Read from ${store}`;
  const asked = new URLSearchParams(location.search).get("sweep");
  const name = asked ?? sweeps[0];
  const chooser = byId("sweeps");
  chooser.replaceChildren(...sweeps.map((each) => element("option", { value: each, textContent: each, selected: each === name })));
  chooser.hidden = sweeps.length < 2;
  chooser.onchange = () => { location.href = `/?${new URLSearchParams({ sweep: chooser.value })}`; };
  if (name === undefined) {
    say("on", "live");
    byId("overview").replaceChildren(element("p", { className: "notice", textContent: `There are no sweeps in ${store} yet.` }));
    return;
  }
  const dashboard = new Dashboard(name, templates);
  for (;;) {
    try {
      await dashboard.update();
      say("on", "live");
    } catch (error) {
      say("off", error.name === "TimeoutError" || error instanceof TypeError ? "no answer from the server; trying again" : error.message);
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 1000 * (document.hidden ? HIDDEN_ASK_SECONDS : ASK_SECONDS));
      document.addEventListener("visibilitychange", resolve, { once: true });
    });
  }
}

start().catch((error) => say("off", error.message));
