// The map: price over time, colour is USD that would be liquidated. Orange longs, blue shorts.
//
// Buckets of all rows lie on one grid of ln price, so a cell is named by its number on that grid.

import { clock, exactUsd, move, price, usd } from "./format.js";
import { hands } from "./hands.js";
import { TABLES, colours, css, fit, ramp, theme } from "./palette.js";

const SECOND = 1e6; // everything is in microseconds
const BINS = 720; // columns at most; a picture needs no more
const HOLD = 2.6; // a row stands for so many of its intervals, then it is a hole

/** A row of the picture from a message's data; `low` is the grid number of its first bucket. */
export function rowOf(at, data, seq, run) {
  const low = Math.round(Math.log(data.first_price) / data.log_step - offsetOf(data));
  return { at, seq, run, low, step: data.log_step, offset: offsetOf(data), mark: data.mark,
    long: data.long_usd, short: data.short_usd };
}

function offsetOf(data) {
  const position = Math.log(data.first_price) / data.log_step;
  return position - Math.floor(position + 1e-6);
}

export class HeatMap {
  /** `asked(ratio)` is called while the handle is dragged. */
  constructor(canvas, readout, handle, asked) {
    Object.assign(this, { canvas, readout, handle, asked });
    this.minutes = 15;
    this.half = 0.08;
    this.shock = -0.03;
    this.reset();
    this.clear();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  clear() {
    this.rows = [];
    this.marks = [];
    this.prints = [];
    this.now = null;
    this.risk = null;
    this.answer = null;
    this.cross = null;
    this.scaleMax = 0;
  }

  reset() {
    this.panPrice = 0;
    this.panTime = 0;
    this.half = 0.08;
    this.cross = null;
    this.draw();
  }

  // ------------------------------------------------------------------------------- what came

  setRows(rows) {
    const known = new Map([...rows, ...this.rows].map((row) => [`${row.run}/${row.seq}/${row.at}`, row]));
    this.rows = [...known.values()].sort((a, b) => a.at - b.at);
    this.marks = merge(this.marks, this.rows.map(({ at, mark }) => ({ at, mark })));
    this.draw();
  }

  addRow(row) {
    if (this.rows.length && row.at < this.rows.at(-1).at) return this.setRows([row]);
    this.rows.push(row);
    if (this.rows.length > 2400) this.rows.splice(0, this.rows.length - 2200);
    this.draw();
  }

  setNow(at, data) {
    this.now = { ...rowOf(at, data), data };
    this.marks.push({ at, mark: data.mark });
    if (this.marks.length > 9000) this.marks = thin(this.marks);
    this.draw();
  }

  setPrints(prints) {
    const known = new Map([...prints, ...this.prints].map((p) => [`${p.run}/${p.seq}`, p]));
    this.prints = [...known.values()].sort((a, b) => a.at - b.at).slice(-6000);
    this.draw();
  }

  // ------------------------------------------------------------------------------- geometry

  layout(width, height) {
    const narrow = width < 560;
    const axis = narrow ? 72 : 78;
    const profile = narrow ? 46 : 110;
    const box = { left: 2, top: 6, right: width - axis - profile - 6, bottom: height - 22 };
    const mark = this.now?.mark ?? this.rows.at(-1)?.mark;
    const end = (this.now?.at ?? this.rows.at(-1)?.at ?? 0) - this.panTime;
    const begin = end - this.minutes * 60 * SECOND;
    const middle = Math.log(mark) + this.panPrice;
    this.geometry = {
      ...box, mark, begin, end, narrow, axis, width, height,
      profileLeft: box.right + 4, profileRight: box.right + 4 + profile,
      low: middle - this.half, high: middle + this.half,
      x: (at) => box.left + ((at - begin) / (end - begin)) * (box.right - box.left),
      y: (p) => box.top + ((middle + this.half - Math.log(p)) / (2 * this.half)) * (box.bottom - box.top),
      at: (x) => begin + ((x - box.left) / (box.right - box.left)) * (end - begin),
      price: (y) => Math.exp(middle + this.half - ((y - box.top) / (box.bottom - box.top)) * 2 * this.half),
    };
    return this.geometry;
  }

  /** The row that stands for a moment: the last before it, unless that is too long ago. */
  rowAt(at) {
    if (this.now && at >= (this.rows.at(-1)?.at ?? 0) && at <= this.now.at + SECOND) {
      if (this.now.at - at < this.interval() * HOLD) return this.now;
    }
    let [a, b] = [0, this.rows.length];
    while (a < b) {
      const m = (a + b) >> 1;
      if (this.rows[m].at <= at) a = m + 1;
      else b = m;
    }
    const row = this.rows[a - 1];
    return row && at - row.at <= this.interval(a) * HOLD ? row : null;
  }

  /** How far apart rows are there: ten seconds, or a minute in the thinned past. */
  interval(index = this.rows.length) {
    const near = this.rows.slice(Math.max(0, index - 4), index + 1);
    if (near.length < 2) return 10 * SECOND;
    const gaps = near.slice(1).map((row, i) => row.at - near[i].at).sort((a, b) => a - b);
    return Math.min(75 * SECOND, Math.max(10 * SECOND, gaps[gaps.length >> 1]));
  }

  // --------------------------------------------------------------------------------- drawing

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  paint() {
    const { context: c, width, height } = fit(this.canvas);
    if (!width) return;
    const ink = colours();
    c.font = "12px system-ui, sans-serif";
    c.textBaseline = "middle";
    if (!this.now && !this.rows.length) {
      c.fillStyle = ink.quiet;
      c.fillText("The map is unknown: nothing has been received yet.", 16, height / 2);
      this.handle.hidden = true;
      this.tell(null);
      return;
    }
    const g = this.layout(width, height);
    c.save();
    c.beginPath();
    c.rect(g.left, g.top, g.right - g.left, g.bottom - g.top);
    c.clip();
    this.paintHoles(c, g, ink);
    this.paintCells(c, g);
    this.paintGrid(c, g, ink);
    this.paintMark(c, g, ink);
    this.paintPrints(c, g, ink);
    c.restore();
    this.paintProfile(c, g, ink);
    this.paintLevels(c, g, ink);
    this.paintAxes(c, g, ink);
    this.paintCross(c, g, ink);
  }

  paintHoles(c, g, ink) {
    c.strokeStyle = ink.hole;
    c.lineWidth = 1;
    c.beginPath();
    for (let x = g.left - (g.bottom - g.top); x < g.right; x += 9) {
      c.moveTo(x, g.bottom);
      c.lineTo(x + (g.bottom - g.top), g.top);
    }
    c.stroke();
  }

  cells(g) {
    const { step, offset } = this.now ?? this.rows.at(-1);
    const first = Math.floor(g.low / step - offset);
    const count = Math.ceil(g.high / step - offset) - first + 1;
    const span = g.end - g.begin;
    const bin = Math.max(this.minutes <= 5 ? 1 * SECOND : 2 * SECOND, span / BINS);
    const columns = Math.ceil(span / bin);
    return { step, offset, first, count, bin, columns };
  }

  paintCells(c, g) {
    const { step, offset, first, count, bin, columns } = this.cells(g);
    if (count > 1400) return;
    const table = TABLES[theme()];
    const none = ramp([colours().none, colours().none])[0];
    const image = new ImageData(columns, count);
    const pixels = new Uint32Array(image.data.buffer);
    const held = [];
    for (let i = 0; i < columns; i++) held.push(this.rowAt(g.begin + (i + 1) * bin));
    const max = this.scale(held, first, count);
    for (let i = 0; i < columns; i++) {
      const row = held[i];
      if (!row) continue;
      const from = first - row.low;
      const size = row.long.length;
      for (let k = 0; k < count; k++) {
        const j = from + k;
        if (j < 0 || j >= size) continue;
        const long = row.long[j];
        const short = row.short[j];
        const value = long >= short ? long : short;
        const shade = value > 0 ? Math.min(255, 14 + Math.floor(241 * (value / max) ** 0.8)) : 0;
        pixels[(count - 1 - k) * columns + i] =
          value > 0 ? (long >= short ? table.long[shade] : table.short[shade]) : none;
      }
    }
    this.sheet ??= document.createElement("canvas");
    this.sheet.width = columns;
    this.sheet.height = count;
    this.sheet.getContext("2d").putImageData(image, 0, 0);
    c.imageSmoothingEnabled = false;
    const top = g.y(Math.exp((first + count + offset) * step));
    const bottom = g.y(Math.exp((first + offset) * step));
    c.drawImage(this.sheet, g.left, top, g.right - g.left, bottom - top);
  }

  /** USD of the brightest colour: nearly the largest bucket that is shown. */
  scale(held, first, count) {
    const values = [];
    const jump = Math.max(1, held.length >> 5);
    for (let i = 0; i < held.length; i += jump) {
      const row = held[i];
      if (!row) continue;
      for (let k = 0; k < count; k++) {
        const j = first - row.low + k;
        if (row.long[j] > 0) values.push(row.long[j]);
        if (row.short[j] > 0) values.push(row.short[j]);
      }
    }
    values.sort((a, b) => a - b);
    const found = values.length ? values[Math.floor(values.length * 0.985)] : 1;
    // Not so nervous that colours change their meaning with each row.
    if (!(found > this.scaleMax * 0.8 && found < this.scaleMax * 1.25)) {
      this.scaleMax = Math.max(1, found);
      this.canvas.dispatchEvent(new CustomEvent("scale", { detail: this.scaleMax }));
    }
    return this.scaleMax;
  }

  paintGrid(c, g, ink) {
    c.strokeStyle = ink.grid;
    c.lineWidth = 1;
    c.beginPath();
    for (const at of this.timeTicks(g)) {
      const x = Math.round(g.x(at)) + 0.5;
      c.moveTo(x, g.top);
      c.lineTo(x, g.bottom);
    }
    for (const p of this.priceTicks(g)) {
      const y = Math.round(g.y(p)) + 0.5;
      c.moveTo(g.left, y);
      c.lineTo(g.right, y);
    }
    c.stroke();
  }

  paintMark(c, g, ink) {
    for (const [style, wide] of [[ink.halo, 4], [ink.mark, 1.8]]) {
      c.strokeStyle = style;
      c.lineWidth = wide;
      c.lineJoin = "round";
      c.beginPath();
      let last = null;
      for (const { at, mark } of this.marks) {
        if (at < g.begin - 120 * SECOND || at > g.end) continue;
        if (last === null || at - last > 150 * SECOND) c.moveTo(g.x(at), g.y(mark));
        else c.lineTo(g.x(at), g.y(mark));
        last = at;
      }
      c.stroke();
    }
  }

  paintPrints(c, g, ink) {
    const cells = new Map();
    for (const p of this.prints) {
      if (p.at < g.begin || p.at > g.end) continue;
      const x = g.x(p.at);
      const y = g.y(markAt(this.marks, p.at) ?? p.price);
      const key = `${Math.round(x / 7)}/${Math.round(y / 7)}/${p.side}`;
      const cell = cells.get(key);
      if (cell) cell.usd += p.usd;
      else cells.set(key, { x, y, side: p.side, usd: p.usd });
    }
    this.spots = [...cells.values()].sort((a, b) => b.usd - a.usd);
    const largest = Math.max(1e5, this.spots[0]?.usd ?? 0);
    for (const spot of this.spots) {
      spot.r = 2.5 + 13 * Math.sqrt(spot.usd / largest);
      c.beginPath();
      c.arc(spot.x, spot.y, spot.r, 0, 2 * Math.PI);
      c.fillStyle = spot.side === "long" ? "rgba(255,140,26,.55)" : "rgba(40,130,235,.55)";
      c.fill();
      c.lineWidth = 3;
      c.strokeStyle = ink.halo;
      c.stroke();
      c.lineWidth = 1.5;
      c.strokeStyle = ink.mark;
      c.stroke();
    }
  }

  /** USD now, by price, beside the map. */
  paintProfile(c, g, ink) {
    const now = this.now;
    c.save();
    c.beginPath();
    c.rect(g.profileLeft, g.top, g.profileRight - g.profileLeft, g.bottom - g.top);
    c.clip();
    if (now) {
      const wide = g.profileRight - g.profileLeft;
      let largest = 1;
      for (let j = 0; j < now.long.length; j++) {
        const p = (now.low + j + now.offset) * now.step;
        if (p >= g.low - now.step && p <= g.high) largest = Math.max(largest, now.long[j], now.short[j]);
      }
      for (let j = 0; j < now.long.length; j++) {
        const bottom = g.y(Math.exp((now.low + j + now.offset) * now.step));
        const top = g.y(Math.exp((now.low + j + 1 + now.offset) * now.step));
        if (bottom < g.top || top > g.bottom) continue;
        const tall = Math.max(1, bottom - top - (bottom - top > 3 ? 1 : 0));
        for (const side of ["long", "short"]) {
          if (!(now[side][j] > 0)) continue;
          c.fillStyle = css(colours()[side][3]);
          c.fillRect(g.profileLeft, top, wide * (now[side][j] / largest), tall);
        }
      }
      c.fillStyle = ink.quiet;
    }
    c.restore();
    c.strokeStyle = ink.quiet;
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(g.profileLeft - 0.5, g.top);
    c.lineTo(g.profileLeft - 0.5, g.bottom);
    c.stroke();
  }

  /** Where a cascade would start and end, and what the what-if says. */
  paintLevels(c, g, ink) {
    const taken = [g.y(g.mark)];
    const levels = [];
    for (const d of this.risk?.directions ?? []) {
      const sign = d.direction === "down" ? -1 : 1;
      const m = d.mechanism;
      if (!m || m.critical_shock == null) continue;
      const colour = css(ink[d.direction === "down" ? "long" : "short"][3]);
      const word = d.direction === "down" ? "fall" : "rise";
      levels.push({ ratio: sign * m.critical_shock, colour, dash: [6, 4], 
        text: m.critical_shock < 0.00005 ? `critical ${word}: from here` : `critical ${word} ${move(sign * m.critical_shock)}` });
      if (m.landing != null) {
        levels.push({ ratio: sign * m.landing, colour, dash: [2, 3], text: `would end ${move(sign * m.landing)}` });
      } else {
        levels.push({ ratio: sign * m.reach, colour, dash: [1, 5], text: `would end beyond ${move(sign * m.reach)}` });
      }
    }
    const s = this.answer?.stress;
    if (s && s.landing_ratio != null) {
      levels.push({ ratio: s.landing_ratio, colour: ink.asked, dash: [], text: `what if: lands ${move(s.landing_ratio)}` });
    } else if (s?.path.length) {
      const far = s.path.at(-1).move_ratio;
      levels.push({ ratio: far, colour: ink.asked, dash: [1, 5], text: `what if: past ${move(far)}` });
    }
    if (s) this.paintPath(c, g, ink, s);
    c.lineWidth = 1.5;
    levels.sort((a, b) => Math.abs(a.ratio) - Math.abs(b.ratio));
    for (const level of levels) {
      const p = (this.risk?.mark ?? g.mark) * (1 + level.ratio);
      const y = g.y(p);
      const inside = y >= g.top && y <= g.bottom;
      c.strokeStyle = level.colour;
      c.setLineDash(level.dash);
      if (inside) {
        c.beginPath();
        c.moveTo(g.left, y);
        c.lineTo(g.profileRight, y);
        c.stroke();
      }
      c.setLineDash([]);
      const text = `${inside ? "" : y < g.top ? "▲ " : "▼ "}${level.text}${g.narrow ? "" : `, ${price(p)}`}`;
      let place = Math.min(g.bottom - 10, Math.max(g.top + 10, inside ? y - 10 : y));
      const away = level.ratio < 0 ? 1 : -1;
      const free = (at) => taken.every((other) => Math.abs(other - at) >= 18);
      for (let n = 0; n < 40 && !free(place); n++) place += away * 3;
      if (place < g.top + 8 || place > g.bottom - 8) {
        for (let n = 0; n < 200 && (!free(place) || place < g.top + 8 || place > g.bottom - 8); n++) place -= away * 3;
      }
      taken.push(place);
      const wide = c.measureText(text).width;
      c.fillStyle = ink.paper;
      c.globalAlpha = 0.86;
      c.fillRect(g.left + 6, place - 8, wide + 10, 16);
      c.globalAlpha = 1;
      c.fillStyle = level.colour;
      c.fillRect(g.left + 6, place - 8, 3, 16);
      c.fillStyle = ink.ink;
      c.fillText(text, g.left + 13, place);
    }
  }

  /** The rounds of the what-if: each further step shorter, until it stops. */
  paintPath(c, g, ink, s) {
    const x = (i) => g.profileLeft + 6 + (i / Math.max(1, s.path.length - 1)) * (g.profileRight - g.profileLeft - 14);
    c.save();
    c.beginPath();
    c.rect(g.profileLeft, g.top, g.profileRight - g.profileLeft, g.bottom - g.top);
    c.clip();
    c.strokeStyle = ink.asked;
    c.lineWidth = 2;
    c.beginPath();
    s.path.forEach((step, i) => {
      const y = g.y(g.mark * (1 + step.move_ratio));
      if (i) c.lineTo(x(i), y);
      else c.moveTo(x(i), y);
    });
    c.stroke();
    c.restore();
  }

  paintAxes(c, g, ink) {
    const left = g.profileRight + 4;
    const fixed = [];
    const label = (p, text, back, front) => {
      const y = Math.min(g.bottom - 9, Math.max(g.top + 9, g.y(p)));
      fixed.push(y);
      c.fillStyle = back;
      c.fillRect(left - 2, y - 9, g.axis, 18);
      c.fillStyle = front;
      c.fillText(text, left + 3, y);
    };
    label(g.mark, price(g.mark), ink.mark, ink.paper);
    this.placeHandle(g, fixed);
    c.fillStyle = ink.quiet;
    for (const p of this.priceTicks(g)) {
      const y = g.y(p);
      if (fixed.some((other) => Math.abs(other - y) < 20)) continue;
      c.fillText(price(p), left + 3, y);
    }
    c.textAlign = "center";
    let until = -Infinity;
    for (const at of this.timeTicks(g)) {
      const text = clock(at, this.minutes <= 5);
      const half = c.measureText(text).width / 2;
      const x = g.x(at);
      if (x - half < Math.max(g.left, until + 8) || x + half > g.right - 34) continue;
      until = x + half;
      c.fillText(text, x, g.bottom + 12);
    }
    c.textAlign = "right";
    c.fillText("UTC", g.right, g.bottom + 12);
    c.textAlign = "left";
    c.fillText(g.narrow ? "USD" : "USD now", g.profileLeft + 2, g.bottom + 12);
    c.fillText(g.narrow ? "price" : "price, USD", left + 3, g.bottom + 12);
    Object.assign(this.canvas.dataset, { mark: g.mark, prints: this.prints.length, rows: this.rows.length });
  }

  placeHandle(g, fixed) {
    const p = g.mark * (1 + this.shock);
    let y = Math.min(g.bottom - 12, Math.max(g.top + 12, g.y(p)));
    if (Math.abs(y - fixed[0]) < 21) y = fixed[0] + (this.shock < 0 ? 21 : -21);
    fixed.push(y);
    this.handle.hidden = false;
    this.handle.style.top = `${y - 11}px`;
    this.handle.style.left = `${g.profileRight + 1}px`;
    this.handle.style.width = `${g.axis + 1}px`;
    this.handle.textContent = `⇕ ${move(this.shock, 1)}`;
    this.handle.setAttribute("aria-valuenow", (this.shock * 100).toFixed(1));
    this.handle.setAttribute("aria-valuetext", `${move(this.shock)}, to ${price(p)}`);
  }

  timeTicks(g) {
    const steps = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360].map((m) => m * 60 * SECOND);
    const most = g.narrow ? 4 : 9;
    const step = steps.find((s) => (g.end - g.begin) / s <= most) ?? steps.at(-1);
    const ticks = [];
    for (let at = Math.ceil(g.begin / step) * step; at <= g.end; at += step) ticks.push(at);
    return ticks;
  }

  priceTicks(g) {
    const [low, high] = [Math.exp(g.low), Math.exp(g.high)];
    const most = Math.max(3, Math.floor((g.bottom - g.top) / 34));
    const raw = (high - low) / most;
    const ten = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((k) => k * ten).find((s) => s >= raw);
    const ticks = [];
    for (let p = Math.ceil(low / step) * step; p <= high; p += step) {
      const y = g.y(p);
      if (y > g.top + 8 && y < g.bottom - 8) ticks.push(p);
    }
    return ticks;
  }

  paintCross(c, g, ink) {
    if (!this.cross) return this.tell(null);
    const cell = this.cellAt(this.cross);
    const x = Math.min(g.right, Math.max(g.left, g.x(this.cross.at)));
    const y = g.y(this.cross.price);
    c.strokeStyle = ink.ink;
    c.lineWidth = 1;
    c.setLineDash([4, 3]);
    c.beginPath();
    c.moveTo(x, g.top);
    c.lineTo(x, g.bottom);
    c.moveTo(g.left, y);
    c.lineTo(g.profileRight, y);
    c.stroke();
    c.setLineDash([]);
    if (y > g.top && y < g.bottom) {
      c.fillStyle = ink.ink;
      c.fillRect(g.profileRight + 2, y - 9, g.axis, 18);
      c.fillStyle = ink.paper;
      c.fillText(price(this.cross.price), g.profileRight + 7, y);
    }
    this.tell(cell);
  }

  // -------------------------------------------------------------------------------- readout

  /** What is known of one cell; `row` is null where none was kept. */
  cellAt({ at, price: p }) {
    const row = this.rowAt(at);
    const grid = this.now ?? this.rows.at(-1);
    const number = Math.floor(Math.log(p) / grid.step - grid.offset + 1e-9);
    const cell = {
      at, number,
      from: Math.exp((number + grid.offset) * grid.step),
      to: Math.exp((number + 1 + grid.offset) * grid.step),
      row,
    };
    if (!row) return cell;
    const j = number - row.low;
    const inside = j >= 0 && j < row.long.length;
    cell.long = inside ? row.long[j] : null;
    cell.short = inside ? row.short[j] : null;
    cell.distance = Math.sqrt(cell.from * cell.to) / row.mark - 1;
    if (inside && row.data) {
      cell.interval = Object.fromEntries(
        ["long", "short"].map((s) => [s, [row.data[`${s}_low`][j], row.data[`${s}_high`][j]]]));
    }
    if (inside) {
      const side = cell.distance < 0 ? "long" : "short";
      const start = Math.floor(Math.log(row.mark) / row.step - row.offset) - row.low;
      let sum = 0;
      for (let k = Math.min(start, j); k <= Math.max(start, j); k++) sum += row[side][k] ?? 0;
      cell.way = { side, sum };
    }
    return cell;
  }

  tell(cell) {
    const out = this.readout;
    for (const key of Object.keys(out.dataset)) delete out.dataset[key];
    let text = "Point at the map, or focus it and use the arrow keys, for the exact figures.";
    if (cell && !cell.row) {
      text = `${clock(cell.at)} UTC · ${price(cell.from)} to ${price(cell.to)} · unknown: no row was kept for this time`;
    } else if (cell) {
      const told = (side) => {
        if (cell[side] == null) return `${side}s unknown (outside the row)`;
        const range = cell.interval ? ` (80\u00a0%: ${usd(cell.interval[side][0])} to ${usd(cell.interval[side][1])})` : "";
        return `${side}s ${exactUsd(cell[side])}${cell[side] > 0 ? range : ""}`;
      };
      text = `${clock(cell.at)} UTC · ${price(cell.from)} to ${price(cell.to)} (${move(cell.distance)} from the mark) · ` +
        `${told("long")} · ${told("short")}` +
        (cell.way ? ` · ${cell.way.side}s from the mark to here ${usd(cell.way.sum)}` : "");
      Object.assign(out.dataset, { number: cell.number, from: cell.from, long: cell.long, short: cell.short,
        at: cell.row.at, live: Boolean(cell.row.data) });
    }
    if (out.textContent !== text) out.textContent = text;
  }
}

Object.assign(HeatMap.prototype, hands);

function markAt(marks, at) {
  let [a, b] = [0, marks.length];
  while (a < b) {
    const m = (a + b) >> 1;
    if (marks[m].at <= at) a = m + 1;
    else b = m;
  }
  return (marks[a - 1] ?? marks[a])?.mark;
}

function merge(one, other) {
  const known = new Map([...other, ...one].map((m) => [m.at, m]));
  return [...known.values()].sort((a, b) => a.at - b.at);
}

/** Every second of the older half; a day of seconds is more than a screen shows. */
function thin(marks) {
  const half = marks.length >> 1;
  return [...marks.slice(0, half).filter((_, i) => i % 2 === 0), ...marks.slice(half)];
}

