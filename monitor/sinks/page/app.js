// Puts the page together: what is heard goes into `known`, what is shown is drawn from it.

import { balance, reliability, strip } from "./charts.js";
import { clock, duration, el, percent, usd } from "./format.js";
import { HeatMap, rowOf } from "./heatmap.js";
import { Live, Refused, ask, setToken } from "./live.js";
import { colours, css } from "./palette.js";
import * as panels from "./panels.js";

const OLD_MS = 10_000; // after so long without news a state is no longer shown as the present
const RANGES = [[5, "5 min"], [15, "15 min"], [60, "1 h"], [240, "4 h"], [1440, "24 h"]];
const RECORD_MS = 30_000;
const ALERTS = 60;

const $ = (id) => document.getElementById(id);
const known = { assets: {}, risk: {}, map: {}, depth: {}, alerts: null, status: null, record: null };
const view = { asset: null, venue: "", minutes: 15 };
let cutAt = null;

// ------------------------------------------------------------------------------------ theme

const prefers = matchMedia("(prefers-color-scheme: light)");
function retheme() {
  const kept = localStorage.getItem("theme") ?? "auto";
  document.documentElement.dataset.theme = kept === "auto" ? (prefers.matches ? "light" : "dark") : kept;
  $("theme").textContent = `◐ ${kept}`;
  $("theme").setAttribute("aria-label", `Theme: ${kept}`);
  redraw();
}
$("theme").addEventListener("click", () => {
  const order = ["auto", "dark", "light"];
  const kept = localStorage.getItem("theme") ?? "auto";
  localStorage.setItem("theme", order[(order.indexOf(kept) + 1) % 3]);
  retheme();
});
prefers.addEventListener("change", retheme);

// -------------------------------------------------------------------------------------- map

const map = new HeatMap($("map"), $("readout"), $("handle"), setShock);
$("map").addEventListener("scale", ({ detail }) => legend(detail));
$("map").addEventListener("range", ({ detail }) => {
  const at = RANGES.findIndex(([minutes]) => minutes === view.minutes) + detail;
  if (RANGES[at]) setRange(RANGES[at][0]);
});
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => {
    const how = button.dataset.zoom;
    if (how === "reset") map.reset();
    else map.zoom(how === "in" ? 0.75 : 1.33);
  });
}
for (const [minutes, text] of RANGES) {
  const button = el("button", { type: "button", "aria-pressed": String(minutes === view.minutes) }, text);
  button.dataset.minutes = minutes;
  button.addEventListener("click", () => setRange(minutes));
  $("ranges").append(button);
}

function setRange(minutes) {
  view.touched = true;
  showRange(minutes);
  history();
}

function showRange(minutes) {
  view.minutes = map.minutes = minutes;
  map.panTime = 0;
  for (const button of $("ranges").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.minutes) === minutes));
  }
  map.draw();
}

function legend(max) {
  const bar = (side) => {
    const canvas = el("canvas", { width: 90, height: 10, "aria-hidden": "true" });
    const c = canvas.getContext("2d");
    const fill = c.createLinearGradient(0, 0, 90, 0);
    colours()[side].forEach((colour, i, all) => fill.addColorStop(i / (all.length - 1), css(colour)));
    c.fillStyle = fill;
    c.fillRect(0, 0, 90, 10);
    return canvas;
  };
  const step = map.now?.step ?? map.rows.at(-1)?.step;
  const bucket = step ? ` in each ${percent(step)} of price` : "";
  $("legend").replaceChildren(
    el("span", {}, bar("long"), "longs, closed below"),
    el("span", {}, bar("short"), "shorts, closed above"),
    el("span", {}, max ? `$0 to ${usd(max)} and more${bucket}` : "scale unknown"),
    el("span", {}, "━ mark price"), el("span", {}, "◯ liquidations, area by USD"), el("span", {}, "▨ unknown"));
}

// ---------------------------------------------------------------------------------- history

let asking = null;
/** Read the past of what is shown; rows that came meanwhile are kept. */
async function history() {
  const { asset, venue, minutes } = view;
  if (!asset) return;
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  const path = `/api/v1/assets/${encodeURIComponent(asset)}`;
  const wanted = Math.min(1440, minutes * 1.5);
  try {
    const [rows, prints] = await Promise.all([
      ask(`${path}/heatmap/log?minutes=${wanted}${venue ? `&venue=${encodeURIComponent(venue)}` : ""}`, signal),
      ask(`${path}/liquidations?minutes=${wanted}`, signal),
    ]);
    if (signal.aborted) return;
    map.setRows(rows.entries.map((m) => rowOf(m.at_us, m.data, m.seq, m.run)));
    young();
    map.setPrints(prints.entries.filter(ofVenue).map(printOf));
    $("lacks").textContent = rows.lacks ? `The picture does not reach back the whole time: ${rows.lacks}.` : "";
  } catch (error) {
    if (error.name !== "AbortError") troubled(error);
  }
}

/** A daemon that has just begun shows its minutes large, until somebody chooses otherwise. */
function young() {
  const span = (map.rows.at(-1)?.at ?? 0) - (map.rows[0]?.at ?? 0);
  if (!view.touched && span < 4 * 60e6) showRange(5);
  view.touched = true;
}

const ofVenue = (m) => !view.venue || m.data.instrument.startsWith(`${view.venue}:`);
const printOf = (m) => ({ at: m.at_us, run: m.run, seq: m.seq, side: m.data.side, usd: m.data.usd,
  price: m.data.fill_price ?? m.data.price });

async function alertHistory() {
  const found = await ask(`/api/v1/alerts?limit=${ALERTS}`);
  const merged = new Map([...found.entries, ...(known.alerts ?? [])].map((m) => [`${m.run}/${m.asset}/${m.seq}`, m]));
  known.alerts = [...merged.values()].sort((a, b) => b.at_us - a.at_us).slice(0, ALERTS);
  showAlerts();
}

async function record() {
  known.record = await ask("/api/v1/scorecard");
  showRecord();
}

async function assets() {
  known.assets = await ask("/api/v1/assets");
  const names = Object.keys(known.assets);
  const shown = [...$("tiles").children].map((button) => button.dataset.asset);
  if (names.join() !== shown.join()) {
    $("tiles").replaceChildren(...names.map((name) => {
      const button = panels.tile(name);
      button.dataset.asset = name;
      button.addEventListener("click", () => chosen(name));
      return button;
    }));
  }
  const asked = new URLSearchParams(location.search).get("asset");
  if (!names.includes(view.asset)) choose(names.includes(asked) ? asked : names[0]);
}

function troubled(error) {
  if (error instanceof Refused && error.status === 401) $("login").hidden = false;
}
const tried = (promise) => promise.catch(troubled);

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value);
  $("login").hidden = true;
  live.connect();
});

// ------------------------------------------------------------------------------ what is shown

function choose(asset, venue = "") {
  if (!asset) return;
  const changed = asset !== view.asset || venue !== view.venue;
  Object.assign(view, { asset, venue });
  for (const button of $("tiles").children) {
    button.setAttribute("aria-pressed", String(button.dataset.asset === asset));
  }
  $("venue").replaceChildren(el("option", { value: "" }, "all together"),
    ...(known.assets[asset]?.venues ?? []).map((name) => el("option", { value: name }, name)));
  $("venue").value = venue;
  if (changed) {
    map.clear();
    $("answer").replaceChildren();
    const past = known.map[`${asset}/${venue}`];
    if (past) map.setNow(past.at_us, past.data);
  }
  document.title = `${asset} · cascade-monitor`;
  subscribe();
  redraw();
}

async function chosen(asset, venue = "") {
  choose(asset, venue);
  await Promise.all([history(), stress()]);
}
$("venue").addEventListener("change", () => chosen(view.asset, $("venue").value));

function subscribe() {
  const { asset, venue } = view;
  const topics = ["status", "risk/*", "heatmap/*", "alerts/*"];
  if (asset) {
    topics.push(`depth/${asset}`, `liquidations/${asset}`, `heatmap:log/${asset}`);
    if (venue) topics.push(`heatmap/${asset}/${venue}`);
  }
  live.subscribe(topics);
}

const fresh = (state) => state && !cutAt && performance.now() - state.heard < OLD_MS;
const age = (state) => duration((performance.now() - state.heard) / 1000);

function showRisk() {
  const state = known.risk[view.asset];
  const risk = state?.data;
  const old = state && !fresh(state) ? age(state) : "";
  map.risk = old ? null : risk;
  $("trust").replaceChildren(...panels.trust(old ? null : risk));
  $("faults").replaceChildren(...panels.faults(risk));
  for (const direction of ["down", "up"]) {
    const d = risk?.directions.find((row) => row.direction === direction);
    const open = $(`card-${direction}`);
    open.replaceChildren(...(d ? panels.card(d, risk.mark, old) : panels.noCard(direction, "Nothing is known of the risk yet.")));
  }
  map.draw();
}

function showTiles() {
  for (const button of $("tiles").children) {
    const { asset } = button.dataset;
    const state = known.risk[asset];
    panels.tileTold(button, state?.data, !fresh(state));
    const near = known.map[`${asset}/`];
    strip(button.parts.strip, fresh(near) ? near.data : null);
  }
}

function showBalance() {
  const [depth, near] = [known.depth[view.asset], known.map[`${view.asset}/`]];
  $("balance-text").textContent = balance($("balance"),
    fresh(depth) ? depth.data : null, fresh(near) ? near.data : null);
}

function showAlerts() {
  if (!known.alerts?.length) {
    const text = known.alerts ? "None in the last day, as far as is kept." : "Unknown: not read yet.";
    $("alerts").replaceChildren(el("li", { class: "quiet" }, text));
    return;
  }
  const open = new Set([...$("alerts").querySelectorAll("details[open]")].map((d) => d.closest("li").dataset.key));
  $("alerts").replaceChildren(...known.alerts.map((m) => {
    const item = panels.alertItem(m);
    item.dataset.key = `${m.run}/${m.asset}/${m.seq}`;
    if (open.has(item.dataset.key)) item.querySelector("details").open = true;
    return item;
  }));
}

function showRecord() {
  const direction = $("record-direction").value;
  const mine = (row) => row.asset === view.asset && row.direction === direction;
  const rows = known.record?.skills.filter(mine) ?? [];
  $("skills").replaceChildren(...panels.skills(rows, known.record?.reasons ?? {}));
  $("graded").textContent = reliability($("reliability"), rows.find((row) => row.horizon_s === 900));
  $("alarms").textContent = panels.alarmsTold(known.record?.alarms.find(mine), known.record?.rivals.find(mine));
}
$("record-direction").addEventListener("change", showRecord);

function showStatus() {
  const state = known.status;
  if (!state) return;
  $("sockets").replaceChildren(...panels.sockets(state.data));
  const mine = { instruments: state.data.instruments.filter((i) => known.assets[view.asset]?.instruments.includes(i.instrument)) };
  $("books").replaceChildren(...panels.books(mine));
  $("missed").textContent = `Messages missed by this page: ${live.missed}.`;
}

function redraw() {
  showTiles();
  showRisk();
  showBalance();
  showRecord();
  showStatus();
  legend(map.scaleMax);
  map.draw();
}

// ---------------------------------------------------------------------------------- what if

let stressing = false;
let stale = false;

function setShock(ratio) {
  map.shock = ratio;
  const text = (ratio * 100).toFixed(1);
  for (const input of [$("shock"), $("slide")]) if (document.activeElement !== input) input.value = text;
  map.draw();
  stress();
}
for (const input of [$("shock"), $("slide")]) {
  input.addEventListener("input", () => {
    const value = Number(input.value);
    if (input.value !== "" && Number.isFinite(value) && value !== 0 && Math.abs(value) <= 30) setShock(value / 100);
  });
}
$("shock-form").addEventListener("submit", (event) => event.preventDefault());

/** Ask what the shock would do: one question at a time, the newest last. */
async function stress() {
  if (!view.asset) return;
  if (!fresh(known.map[`${view.asset}/`])) {
    noStress("the map or the books are not known now");
    return;
  }
  if (stressing) {
    stale = true;
    return;
  }
  stressing = true;
  const { asset } = view;
  const began = performance.now();
  try {
    const found = await ask(`/api/v1/assets/${encodeURIComponent(asset)}/stress?shock=${map.shock}`);
    if (asset === view.asset) {
      map.answer = found;
      $("answer").replaceChildren(...panels.stressed(found));
      $("answer").dataset.shock = found.stress.shock_ratio;
      $("answer").dataset.took = Math.round(performance.now() - began);
      map.draw();
    }
  } catch (error) {
    troubled(error);
    noStress(error instanceof Refused ? error.message : "the daemon does not answer");
  } finally {
    stressing = false;
    if (stale) {
      stale = false;
      stress();
    }
  }
}

function noStress(why) {
  map.answer = null;
  $("answer").replaceChildren(el("p", { class: "note" }, `Unknown: ${why}.`));
  delete $("answer").dataset.shock;
}

// ------------------------------------------------------------------------------------- live

function take(message) {
  const { kind, asset, venue = "", at_us: at, data } = message;
  const state = { at_us: at, data, heard: performance.now() };
  switch (kind) {
    case "risk":
      known.risk[asset] = state;
      later(asset === view.asset ? "risk" : "tiles");
      break;
    case "heatmap": {
      const first = !fresh(known.map[`${asset}/${venue}`]);
      known.map[`${asset}/${venue}`] = state;
      if (first && asset === view.asset) stress();
      if (asset === view.asset && venue === view.venue) map.setNow(at, data);
      later("tiles");
      break;
    }
    case "depth":
      known.depth[asset] = state;
      later("balance");
      break;
    case "heatmap:log":
      if (asset === view.asset && !view.venue) map.addRow(rowOf(at, data, message.seq, message.run));
      break;
    case "liquidations":
      if (asset === view.asset && ofVenue(message)) map.setPrints([printOf(message)]);
      break;
    case "alerts":
      known.alerts = [message, ...(known.alerts ?? [])].slice(0, ALERTS);
      later("alerts");
      break;
    case "status":
      known.status = state;
      later("status");
      break;
  }
  $("time").textContent = `${clock(at)} UTC`;
}

// What came in one frame is shown once, four times a second at most.
const waiting = new Set();
let timer = 0;
function later(what) {
  waiting.add(what);
  timer ||= setTimeout(() => {
    timer = 0;
    const due = new Set(waiting);
    waiting.clear();
    if (due.has("risk")) showRisk();
    if (due.has("risk") || due.has("tiles")) showTiles();
    if (due.has("balance") || due.has("tiles")) showBalance();
    if (due.has("alerts")) showAlerts();
    if (due.has("status")) showStatus();
  }, 250);
}

const WORDS = { connecting: "connecting", live: "live", cut: "no connection" };
const live = new Live({
  message: take,
  state(text) {
    const pill = $("link");
    if (text === "live") cutAt = null;
    else cutAt ??= Date.now();
    if (pill.dataset.state === text) return;
    pill.dataset.state = text;
    pill.textContent = WORDS[text];
    if (text === "live") $("cut").hidden = true;
    if (text === "cut" && live.run === null) tried(assets()); // is it the token?
    showCut();
    redraw();
  },
  begun() {
    tried(begin());
  },
  hole(kind) {
    if (kind === "liquidations" || kind === "heatmap:log") history();
    if (kind === "alerts") tried(alertHistory());
    $("missed").textContent = `Messages missed by this page: ${live.missed}.`;
  },
});

function showCut() {
  if (!cutAt || live.run === null) return;
  const seconds = (Date.now() - cutAt) / 1000;
  $("cut").hidden = false;
  const text = `Not connected for ${duration(Math.floor(seconds))}: what holds now is unknown. Trying again.`;
  if ($("cut").textContent !== text) $("cut").textContent = text;
}

/** What is asked at the start, of every new daemon process, and after a cut. */
async function begin() {
  await assets();
  const status = ask("/api/v1/status").then((s) => { $("build").textContent = `Version ${s.version}, run ${s.run}.`; });
  await Promise.all([history(), alertHistory(), record(), status, stress()]);
}

setInterval(() => {
  showCut();
  // What has become old must stop looking like the present.
  const state = known.risk[view.asset];
  if (!fresh(state)) redraw();
}, 1000);
setInterval(() => !cutAt && tried(record()), RECORD_MS);
setInterval(() => document.hidden || stress(), 2000);
addEventListener("resize", () => redraw());

retheme();
showAlerts();
live.subscribe(["status", "risk/*", "heatmap/*", "alerts/*"]);
live.connect();
