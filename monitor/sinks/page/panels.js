// Everything told in words: the risk cards, tiles, what-if, alerts, track record, feeds.

import { UNKNOWN, clock, duration, el, exactUsd, move, percent, plain, price, times, usd } from "./format.js";

const HORIZON = { 300: "5 min", 900: "15 min", 3600: "60 min" };

function fact(name, value, title = "") {
  return el("div", { title }, el("dt", {}, name), el("dd", {}, value));
}

function level(share) {
  const inner = el("i");
  inner.style.width = `${Math.round(Math.max(0, Math.min(1, share ?? 0)) * 100)}%`;
  return el("span", { class: share == null ? "level none" : "level" }, inner);
}

export function chip(phase) {
  return el("span", { class: "chip", "data-phase": phase }, phase.toUpperCase());
}

// ------------------------------------------------------------------------------------- risk

export function trust(risk) {
  if (!risk) return [fact("Inputs", UNKNOWN)];
  const day = risk.volatility?.["3600"];
  return [
    fact("Confidence in the forecast", percent(risk.confidence), "how far the forecast can be trusted; the map has a confidence of its own, which is in it"),
    fact("Inputs heard", percent(risk.quality)),
    fact("Open interest on the map", percent(risk.coverage)),
    fact("Volatility, 1 h", percent(day), "one standard deviation"),
    fact("Funding, 8 h", risk.funding_rate == null ? UNKNOWN : `${(risk.funding_rate * 100).toFixed(4)} %`),
    fact("Contagion", risk.contagion == null && risk.contagion_learnt != null ? `not learnt (${percent(risk.contagion_learnt)})` : plain(risk.contagion),
      "how large a round of moves is that the assets cause each other, to the one before; from 1 on they would not fade. Learnt from violent minutes"),
  ];
}

export function faults(risk) {
  if (!risk) return [];
  const list = [];
  if (risk.missing.length) list.push(el("p", { class: "note" }, `Unknown: ${risk.missing.join("; ")}`));
  if (risk.faults.length) list.push(el("p", { class: "note" }, `Faulty: ${risk.faults.join("; ")}`));
  return list;
}

/** A critical move below this is here already. */
const HERE = 0.00005;

/** How close the fire is, and how far it would burn. */
export function sentences(d, mark) {
  const [fall, sale, sold, side] = d.direction === "down"
    ? ["fall", "sale", "sold", "longs"] : ["rise", "purchase", "bought", "shorts"];
  const sign = d.direction === "down" ? -1 : 1;
  const m = d.mechanism;
  if (!m) return [`How close: unknown. Depth, map or volatility is not known.`, `How far: unknown.`];
  if (m.critical_shock == null) {
    const news = m.critical_requote == null ? ""
      : m.critical_requote < HERE ? `; any ${fall} by news would`
        : `; a ${fall} of ${percent(m.critical_requote)} by news would`;
    return [
      `No ${sale} within ${percent(m.reach)} sets it off by itself, as far as is seen${news}.`,
      m.liquidated_usd ? `If it ran all the same: ${usd(m.liquidated_usd.mean)} of ${side}.` : `How far it would run: not known.`,
    ];
  }
  const where = mark == null ? "" : `to ${price(mark * (1 + sign * m.critical_shock))}, `;
  const news = m.critical_requote != null && m.critical_requote < m.critical_shock
    ? `; by news, a ${fall} of ${percent(m.critical_requote)} would do` : "";
  const near = m.critical_shock < HERE
    ? `By the map any ${fall} from here runs on by itself; the chances below allow for its error.`
    : `${usd(m.critical_usd)} ${sold} would, with the closes it sets off on its way, carry it ${d.direction} ${percent(m.critical_shock)}, ${where}from where it runs by itself${news}.`;
  const end = m.landing == null
    ? `It would end farther than can be seen (${percent(m.reach)}).`
    : `It would end ${move(sign * m.landing)} from here${mark == null ? "" : `, near ${price(mark * (1 + sign * m.landing))}`}.`;
  const burnt = m.liquidated_usd
    ? ` Closing ${m.beyond ? "at least " : ""}${usd(m.liquidated_usd.mean)} of ${side} (80\u00a0%: ${usd(m.liquidated_usd.low)} to ${usd(m.liquidated_usd.high)}).`
    : "";
  return [near, end + burnt];
}

/** Where a node of the solver is at its cap the mean is a bound, which the reason says. */
function gain(d, value) {
  const least = value >= 99.5 || d.reasons.some((r) => r.code === "loop_gain" && / or more\b/.test(r.text));
  return `${plain(value, value >= 9.95 ? 0 : 2)}${least ? " or more" : ""}`;
}

function critical(m) {
  if (m.critical_shock != null) return percent(m.critical_shock);
  return `none to ${percent(m.reach)}${m.critical_requote == null ? "" : `; by news ${percent(m.critical_requote)}`}`;
}

/** What keeps a phase although all is heard; anything else held is a missing input. */
const BY_RULE = /^(hysteresis|hold|cascade|exhausted): /;

export function card(d, mark, old) {
  const title = d.direction === "down" ? "▼ Down: longs burn" : "▲ Up: shorts burn";
  const m = d.mechanism;
  const [near, far] = sentences(d, mark);
  const notes = [];
  if (old) notes.push(`Old: heard ${old} ago. What holds now is unknown.`);
  if (d.abstaining) notes.push(`Abstains: ${d.abstaining}`);
  if (d.held) notes.push(`${BY_RULE.test(d.held) ? "Stands" : "Held"}: ${d.held}`);
  if (d.using === "baseline") notes.push("The baseline without the map is published: it has been the better one.");
  if (d.silent) notes.push("Observing: alerts are recorded and not sent.");
  const within = ["cascading", "exhausted"].includes(d.phase) && !old ? "another cascade within" : "cascade within";
  const rows = d.probabilities.map((p) => el("tr", {},
    el("th", { scope: "row" }, HORIZON[p.horizon_s] ?? `${p.horizon_s} s`),
    el("td", {}, level(p.ratio)),
    el("td", { class: "n" }, el("b", {}, percent(p.ratio))),
    el("td", { class: "n quiet" }, percent(p.baseline))));
  return [
    el("div", { class: "head" }, el("h3", {}, title), chip(old ? "unknown" : d.phase),
      el("span", { class: "quiet small" }, `for ${duration(d.phase_age_s)}`)),
    ...notes.map((text) => el("p", { class: "note" }, text)),
    el("p", { class: "say" }, near, " ", far),
    el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, within), el("th", { scope: "col" }, ""),
        el("th", { scope: "col", class: "n" }, "chance"), el("th", { scope: "col", class: "n" }, "without map"))),
      el("tbody", {}, ...rows)),
    el("dl", { class: "facts" },
      fact("Score, 0 to 1", d.score == null ? UNKNOWN : d.score.toFixed(2)),
      fact("Critical shock", m ? critical(m) : UNKNOWN, "where it starts to run by itself after the smallest order that brings it there, closes on the way counted, in what survives of the displayed depth"),
      fact("Amplification", m ? (m.amplification == null ? "beyond what is seen" : times(m.amplification)) : UNKNOWN, "of a move of two standard deviations in 15 minutes; of one past the critical shock, how far it runs"),
      fact("Loop gain", m ? gain(d, m.loop_gain) : UNKNOWN, "forced dollars set off by each forced dollar; above 1 it runs"),
      fact(`Fuel within ${percent(d.normal_move)}`, usd(d.fuel_usd)),
      fact(`Book within ${percent(d.normal_move)}`, usd(d.depth_usd))),
    el("ul", { class: "reasons", "aria-label": "Reasons" }, ...d.reasons.map((r) =>
      el("li", {}, level(r.code === "unknown" ? null : r.weight), el("span", {}, r.text)))),
  ];
}

export function noCard(direction, why) {
  return [
    el("div", { class: "head" }, el("h3", {}, direction === "down" ? "▼ Down: longs burn" : "▲ Up: shorts burn"), chip("unknown")),
    el("p", { class: "note" }, why),
  ];
}

// ------------------------------------------------------------------------------------ tiles

export function tile(name) {
  const button = el("button", { type: "button", class: "tile" });
  button.parts = {
    name: el("b", {}, name),
    mark: el("span", { class: "num quiet" }, UNKNOWN),
    down: el("span"),
    up: el("span"),
    strip: el("canvas", { "aria-hidden": "true" }),
  };
  const { parts } = button;
  button.append(el("span", { class: "spread" }, parts.name, parts.mark),
    el("span", { class: "spread" }, parts.down, parts.up), parts.strip);
  return button;
}

export function tileTold(button, risk, old) {
  button.parts.mark.textContent = risk && !old ? price(risk.mark) : UNKNOWN;
  for (const direction of ["down", "up"]) {
    const d = risk?.directions.find((row) => row.direction === direction);
    const score = d && !old && d.score != null ? d.score.toFixed(2) : "";
    button.parts[direction].replaceChildren(direction === "down" ? "▼ " : "▲ ", chip(d && !old ? d.phase : "unknown"), el("span", { class: "score" }, score));
  }
}

// ---------------------------------------------------------------------------------- what if

export function stressed({ stress: s, at_us: at }) {
  const side = s.side === "long" ? "longs" : "shorts";
  const least = (row, value) => (row.beyond && value != null ? `at least ${usd(value)}` : usd(value));
  const beyond = s.venues.filter((v) => v.beyond).map((v) => v.name);
  const seen = s.seen_ratio == null
    ? `: past ${move(s.path.at(-1)?.move_ratio ?? null)}`
    : ` on ${beyond.join(", ")}; the others land at ${price(s.seen_price)} (${move(s.seen_ratio)})`;
  const landing = s.landing_ratio == null
    ? `Beyond what can be seen${seen}.`
    : `Lands at ${price(s.landing_price)} (${move(s.landing_ratio)}), ${times(s.amplification)} the shock.`;
  const say = el("p", { class: "say" }, el("b", {}, landing),
    ` Closed: ${least(s, s.liquidated_usd)} of ${side}; insurance funds lose ${least(s, s.shortfall_usd)}.`);
  Object.assign(say.dataset, { landing: s.landing_price, ratio: s.landing_ratio, usd: s.liquidated_usd, at });
  const table = el("table", {},
    el("caption", {}, `At ${clock(at)} UTC; depth survives as in the median event`),
    el("thead", {}, el("tr", {}, ...["venue", "lands", "closed", "fund loses"].map((t, i) =>
      el("th", { scope: "col", class: i ? "n" : "" }, t)))),
    el("tbody", {}, ...s.venues.map((v) => el("tr", {},
      el("th", { scope: "row" }, v.name),
      el("td", { class: "n" }, v.landing_ratio == null ? "beyond" : move(v.landing_ratio)),
      el("td", { class: "n", title: exactUsd(v.liquidated_usd) }, least(v, v.liquidated_usd)),
      el("td", { class: "n" }, least(v, v.shortfall_usd))))));
  const missing = s.missing.length
    ? [el("p", { class: "note" }, `Not counted, unknown: ${s.missing.map((m) => `${m.name} (${m.unknown.join(", ")})`).join("; ")}`)]
    : [];
  const unheard = s.unheard.length
    ? [el("p", { class: "note" }, `Counted though not heard: ${s.unheard.map((h) => `${h.name} (${h.unheard.join(", ")})`).join("; ")}`)]
    : [];
  const capped = s.psi_capped ? [el("p", { class: "note" }, "Psi is estimated at its cap: read this as an upper bound")] : [];
  const near = s.nearby.length
    ? [el("p", { class: "note" }, `Nearby: ${s.nearby.map((n) => `${move(n.shock_ratio)} ${
      n.landing_ratio == null ? `runs beyond what can be seen (at least ${usd(n.liquidated_usd)} closed)` : `lands at ${move(n.landing_ratio)}`}`).join(", ")}`)]
    : [];
  const shown = s.path.length > 9 ? [...s.path.slice(0, 5), null, ...s.path.slice(-3)] : s.path;
  const path = el("p", { class: "quiet small" }, `Path in ${s.path.length} rounds: ` +
    shown.map((step) => (step ? move(step.move_ratio) : "…")).join(" → "));
  return [say, ...near, ...capped, ...missing, ...unheard, path, table];
}

// ----------------------------------------------------------------------------------- alerts

export function alertItem({ at_us: at, data: a }) {
  const what = a.kind === "risk" ? chip(a.phase ?? "unknown") : el("span", { class: "chip", "data-phase": "unknown" }, "DATA");
  const reasons = a.reasons.filter((r) => r.text);
  return el("li", {},
    el("span", { class: "num quiet" }, clock(at)), " ", what, " ",
    el("b", {}, a.action), " ", a.text,
    reasons.length ? el("details", {}, el("summary", {}, `${reasons.length} reasons`),
      el("ul", {}, ...reasons.map((r) => el("li", {}, r.text)))) : null);
}

// ----------------------------------------------------------------------------- track record

export function skills(rows, reasons) {
  const head = ["within", "graded", "onsets", "vs climate", "vs no map", "published"];
  return [
    el("caption", {}, "Brier skill against climatology and against the baseline without a map: 1 is perfect, 0 no better, below 0 worse"),
    el("thead", {}, el("tr", {}, ...head.map((t, i) => el("th", { scope: "col", class: i && i < 5 ? "n" : "" }, t)))),
    el("tbody", {}, ...rows.map((s) => el("tr", {},
      el("th", { scope: "row" }, HORIZON[s.horizon_s] ?? `${s.horizon_s} s`),
      el("td", { class: "n", title: ungraded(s, reasons) }, `${s.matured} (+${s.pending})`),
      el("td", { class: "n" }, String(s.onsets)),
      el("td", { class: "n" }, plain(s.brier_skill)),
      el("td", { class: "n" }, plain(s.brier_skill_baseline)),
      el("td", { class: "wide" }, `${s.using}${s.unproven ? ", unproven" : ""}${s.abstaining ? `, abstains: ${s.abstaining}` : ""}`)))),
  ];
}

function ungraded(s, reasons) {
  const lines = Object.entries(s.ungraded).filter(([, count]) => count)
    .map(([why, count]) => `${count}: ${reasons[why]}`);
  return lines.length ? `Not graded:\n${lines.join("\n")}` : "";
}

export function alarmsTold(own, rival) {
  if (!own) return "";
  const tell = (a) => `${a.alarms_total} alarms, ${a.false_alarms_total} false` +
    ` (${a.false_alarms_per_day == null ? "rate unknown" : `${a.false_alarms_per_day.toFixed(2)} a day`});` +
    ` caught ${a.recall == null ? UNKNOWN : percent(a.recall)} of ${a.onsets_total} onsets,` +
    ` median lead ${duration(a.lead_median_s)}`;
  return `Alarms: ${tell(own)}. Without the map: ${tell(rival)}.`;
}

// ------------------------------------------------------------------------------------ feeds

export function sockets(status) {
  return Object.entries(status.feeds).map(([name, open]) =>
    el("span", { class: open ? "" : "bad" }, `${open ? "●" : "✕ not connected:"} ${name}`));
}

export function books(status) {
  const head = ["instrument", "book", "mark", "open interest", "silent"];
  return [
    el("caption", {}, "Ages of what was last heard"),
    el("thead", {}, el("tr", {}, ...head.map((t) => el("th", { scope: "col" }, t)))),
    el("tbody", {}, ...status.instruments.map((i) => el("tr", {},
      el("th", { scope: "row" }, i.instrument),
      el("td", { class: i.book === "synced" ? "" : "bad" }, i.book === "synced" ? `synced, ${duration(i.book_age_s)}` : `${i.book}: not believed`),
      el("td", {}, i.mark_age_s == null ? "never" : duration(i.mark_age_s)),
      el("td", {}, i.open_interest_age_s == null ? "never" : duration(i.open_interest_age_s)),
      el("td", { class: i.silent.length ? "bad" : "" }, i.silent.join(", ") || "none")))),
  ];
}
