// The small pictures: an asset's fuel around its mark, depth against fuel, reliability.

import { percent, usd } from "./format.js";
import { colours, css, fit } from "./palette.js";

/** USD by distance from the mark, summed outwards: [distance ratio, USD] pairs. */
export function fuelCurve(map, side) {
  const start = Math.log(map.first_price / map.mark) / map.log_step;
  const points = [[0, 0]];
  let sum = 0;
  const middle = -start;
  if (side === "long") {
    for (let j = Math.min(map.n, Math.ceil(middle)) - 1; j >= 0; j--) {
      sum += map.long_usd[j];
      points.push([1 - Math.exp((start + j) * map.log_step), sum]);
    }
  } else {
    for (let j = Math.max(0, Math.floor(middle)); j < map.n; j++) {
      sum += map.short_usd[j];
      points.push([Math.exp((start + j + 1) * map.log_step) - 1, sum]);
    }
  }
  return points;
}

/** One asset's map within 10 % of its mark; what is not known is left blank and says so. */
export function strip(canvas, map) {
  const { context: c, width, height } = fit(canvas);
  const ink = colours();
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "middle";
  if (!map) {
    c.fillStyle = ink.quiet;
    c.fillText("map unknown", 2, height / 2);
    return;
  }
  const reach = 0.1;
  const wide = (map.log_step / (2 * reach)) * width;
  const near = [];
  for (let j = 0; j < map.n; j++) {
    const d = Math.log(map.first_price / map.mark) + j * map.log_step;
    if (Math.abs(d) < reach) near.push([((d + reach) / (2 * reach)) * width, map.long_usd[j], map.short_usd[j]]);
  }
  const largest = Math.max(1, ...near.map(([, long, short]) => Math.max(long, short)));
  const floor = height - 12;
  for (const [x, long, short] of near) {
    for (const [side, value] of [["long", long], ["short", short]]) {
      const tall = (value / largest) * (floor - 2);
      c.fillStyle = css(ink[side][3]);
      c.fillRect(x, floor - tall, Math.max(1, wide - 0.6), tall);
    }
  }
  c.fillStyle = ink.mark;
  c.fillRect(width / 2 - 0.75, 0, 1.5, floor);
  c.fillStyle = ink.quiet;
  c.fillText("−10 %", 0, height - 5);
  c.textAlign = "right";
  c.fillText("+10 %", width, height - 5);
  c.textAlign = "center";
  c.fillText("mark", width / 2, height - 5);
  c.textAlign = "left";
}

/** Resting USD and USD that would be liquidated, by distance; down to the left. */
export function balance(canvas, depth, map) {
  const { context: c, width, height } = fit(canvas);
  const ink = colours();
  c.font = "12px system-ui, sans-serif";
  c.textBaseline = "middle";
  if (!depth && !map) {
    c.fillStyle = ink.quiet;
    c.fillText("Depth and fuel are unknown.", 8, height / 2);
    return "Depth and fuel are unknown.";
  }
  const reach = 0.1;
  const box = { left: 52, right: width - 8, top: 22, bottom: height - 20 };
  const middle = (box.left + box.right) / 2;
  const lines = { down: depthCurve(depth, "bid"), up: depthCurve(depth, "ask") };
  const fuels = { down: map ? fuelCurve(map, "long") : [], up: map ? fuelCurve(map, "short") : [] };
  let top = 1;
  for (const points of [...Object.values(lines), ...Object.values(fuels)]) {
    for (const [d, v] of points) if (d <= reach * 1.001) top = Math.max(top, v);
  }
  const x = (d, direction) => middle + (direction === "down" ? -1 : 1) * (d / reach) * (box.right - middle);
  const y = (v) => box.bottom - (v / top) * (box.bottom - box.top);
  c.strokeStyle = ink.grid;
  c.fillStyle = ink.quiet;
  c.textAlign = "right";
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    c.beginPath();
    c.moveTo(box.left, y(top * share));
    c.lineTo(box.right, y(top * share));
    c.stroke();
    c.fillText(usd(top * share), box.left - 4, y(top * share));
  }
  c.textAlign = "center";
  for (const d of [-0.1, -0.05, 0, 0.05, 0.1]) {
    const at = x(Math.abs(d), d < 0 ? "down" : "up");
    c.fillText(d === 0 ? "mark" : `${d < 0 ? "−" : "+"}${Math.abs(d * 100)} %`, Math.min(at, box.right - 14), height - 8);
  }
  c.save();
  c.beginPath();
  c.rect(box.left, box.top - 1, box.right - box.left, box.bottom - box.top + 2);
  c.clip();
  for (const [direction, side] of [["down", "long"], ["up", "short"]]) {
    if (fuels[direction].length) {
      c.fillStyle = css(ink[side][3]);
      c.globalAlpha = 0.75;
      c.beginPath();
      c.moveTo(x(0, direction), y(0));
      let last = 0;
      for (const [d, v] of fuels[direction]) {
        c.lineTo(x(d, direction), y(v));
        last = d;
      }
      c.lineTo(x(last, direction), y(0));
      c.fill();
      c.globalAlpha = 1;
    }
    c.lineWidth = 2;
    c.strokeStyle = ink.mark;
    let before = null;
    for (const point of lines[direction]) {
      if (before) {
        c.setLineDash(point[2] ? [] : [4, 4]);
        c.beginPath();
        c.moveTo(x(before[0], direction), y(before[1]));
        c.lineTo(x(point[0], direction), y(point[1]));
        c.stroke();
      }
      before = point;
    }
    c.setLineDash([]);
  }
  c.restore();
  c.textAlign = "left";
  const keys = [["longs", css(ink.long[3])], ["shorts", css(ink.short[3])]];
  let at = box.left;
  for (const [text, colour] of keys) {
    c.fillStyle = colour;
    c.fillRect(at, 5, 11, 11);
    c.fillStyle = ink.ink;
    c.fillText(text, at + 15, 11);
    at += 26 + c.measureText(text).width;
  }
  c.strokeStyle = ink.mark;
  c.lineWidth = 2;
  c.beginPath();
  c.moveTo(at, 11);
  c.lineTo(at + 16, 11);
  c.stroke();
  const whole = "resting orders (dashed: at least)";
  c.fillText(at + 20 + c.measureText(whole).width > width ? "resting orders" : whole, at + 20, 11);
  return told(lines, fuels, depth, map);
}

function told(lines, fuels, depth, map) {
  const at = (points, d) => {
    let last = points[0];
    for (const p of points) {
      if (p[0] > d) return last[1] + ((p[1] - last[1]) * (d - last[0])) / (p[0] - last[0] || 1);
      last = p;
    }
    return last?.[1] ?? null;
  };
  return [["down", "bids", "longs"], ["up", "asks", "shorts"]].map(([direction, book, side]) => {
    const rests = depth ? at(lines[direction], 0.05) : null;
    const burns = map ? at(fuels[direction], 0.05) : null;
    const ratio = rests && burns != null ? ` (${(burns / rests).toFixed(2)} for each dollar resting)` : "";
    return `Within 5 % ${direction}: ${usd(burns)} of ${side} against at least ${usd(rests)} of ${book}${ratio}.`;
  }).join(" ");
}

function depthCurve(depth, side) {
  if (!depth) return [];
  const points = depth.bands.map((b) => [b.distance, b[`${side}_usd`], b[`${side}_complete`]]);
  return [[0, 0, true], ...points];
}

/** What was said against what happened, each dot sized by how often it was said. */
export function reliability(canvas, skill) {
  const bins = (skill?.reliability ?? []).filter((b) => b.count > 0 && b.forecast != null);
  canvas.hidden = !bins.length;
  if (!bins.length) return "No forecast over 15 minutes has been graded yet: /api/v1/scorecard says when, and why not.";
  const { context: c, width, height } = fit(canvas);
  const ink = colours();
  c.font = "12px system-ui, sans-serif";
  c.textBaseline = "middle";
  const size = Math.min(width - 70, height - 38);
  const box = { left: 52, top: 8, right: 52 + size, bottom: 8 + size };
  // The square root spreads the small probabilities, where nearly all of them are.
  const x = (p) => box.left + Math.sqrt(p) * size;
  const y = (p) => box.bottom - Math.sqrt(p) * size;
  c.strokeStyle = ink.grid;
  c.fillStyle = ink.quiet;
  for (const p of [0, 0.05, 0.25, 0.5, 1]) {
    c.beginPath();
    c.moveTo(box.left, y(p));
    c.lineTo(box.right, y(p));
    c.moveTo(x(p), box.top);
    c.lineTo(x(p), box.bottom);
    c.stroke();
    c.textAlign = "right";
    c.fillText(`${p * 100} %`, box.left - 4, y(p));
    c.textAlign = "center";
    c.fillText(`${p * 100}`, x(p), box.bottom + 10);
  }
  c.textAlign = "left";
  c.fillText("% said", box.right + 8, box.bottom + 10);
  c.fillText("happened ↑", box.right + 8, box.top + 6);
  c.strokeStyle = ink.quiet;
  c.setLineDash([4, 4]);
  c.beginPath();
  c.moveTo(x(0), y(0));
  c.lineTo(x(1), y(1));
  c.stroke();
  c.setLineDash([]);
  const most = Math.max(...bins.map((b) => b.count));
  c.fillStyle = css(ink.short[3]);
  for (const b of bins) {
    c.beginPath();
    c.arc(x(b.forecast), y(b.observed ?? 0), 3 + 6 * Math.sqrt(b.count / most), 0, 2 * Math.PI);
    c.fill();
  }
  canvas.setAttribute("aria-label", "Reliability: " + bins.map((b) =>
    `said ${percent(b.forecast)}, happened ${percent(b.observed)}`).join("; "));
  return "Over 15 minutes: what was said against what happened; on the dashed line they agree.";
}
