"use strict";
// A report contains its data and plotly, compressed; it loads nothing else.

async function inflated(id) {
  const packed = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function loadPlotly() {
  const url = URL.createObjectURL(new Blob([await inflated("plotly")], { type: "text/javascript" }));
  await new Promise((resolve, reject) =>
    document.head.append(element("script", { src: url, onload: resolve, onerror: reject })));
  URL.revokeObjectURL(url);
}

async function start() {
  const data = JSON.parse(await inflated("data"));
  document.querySelector("#bar div").style.width = `${100 * data.progress}%`;
  const byNumber = new Map(data.details.map((trial) => [trial.number, trial]));
  const table = new TrialTable(document.getElementById("trials"), data.columns, { index: SCORE, direction: data.first });
  setRankings(data.rows, data.ranking);
  table.update(data.rows);
  showFailures(document.getElementById("failures"), data.failures, data.retry);
  plotlyReady = loadPlotly();
  route((number) => byNumber.get(number), data.templates);
  await plotlyReady;
  const [overview, parameters] = ["figures", "parameters"].map((id) => document.getElementById(id));
  const figures = new Figures(overview, parameters, data.templates, async (name) => data.figures[name]);
  figures.list(data.plots);
  await figures.drawAll();
}

start().catch((error) => {
  document.getElementById("figures").append(
    element("p", { className: "notice", textContent: `The plots cannot be drawn in this browser: ${error}` }));
});
