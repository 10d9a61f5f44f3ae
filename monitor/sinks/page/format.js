// Numbers as a trader reads them. null is "unknown", never 0.

export const UNKNOWN = "unknown";

const group = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, ",");

/** Whole dollars, exact. */
export function exactUsd(value) {
  return value == null ? UNKNOWN : `$${group(Math.round(value).toString())}`;
}

/** Dollars with three figures and a unit. */
export function usd(value) {
  if (value == null) return UNKNOWN;
  const size = Math.abs(value);
  for (const [unit, name] of [[1e9, "\u00a0B"], [1e6, "\u00a0M"], [1e3, "\u00a0k"]]) {
    if (size >= unit * 0.9995) return `$${figures(value / unit)}${name}`;
  }
  return `$${Math.round(value)}`;
}

function figures(value) {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

/** A price with the digits its size deserves. */
export function price(value) {
  if (value == null) return UNKNOWN;
  const digits = value >= 1000 ? 0 : value >= 100 ? 1 : value >= 1 ? 2 : 5;
  const [whole, part] = value.toFixed(digits).split(".");
  return part ? `${group(whole)}.${part}` : group(whole);
}

/** A ratio as percent with two figures at least; small ones are not rounded to nothing. */
export function percent(ratio) {
  if (ratio == null) return UNKNOWN;
  const value = ratio * 100;
  const size = Math.abs(value);
  if (size > 0 && size < 0.01) return "<0.01\u00a0%";
  if (ratio < 1 && size > 99.9) return ">99.9\u00a0%";
  return `${value.toFixed(size >= 9.995 ? (size >= 99.95 ? 0 : 1) : 2)}\u00a0%`;
}

/** A signed move. */
export function move(ratio, digits = Math.abs(ratio) >= 0.09995 ? 1 : 2) {
  if (ratio == null) return UNKNOWN;
  const value = ratio * 100;
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}\u00a0%`;
}

export function times(value) {
  return value == null ? UNKNOWN : `×${value.toFixed(value >= 9.95 ? 0 : 2)}`;
}

export function plain(value, digits = 2) {
  return value == null ? UNKNOWN : value.toFixed(digits).replace("-", "−");
}

export function duration(seconds) {
  if (seconds == null) return UNKNOWN;
  if (seconds < 10) return `${seconds.toFixed(1)}\u00a0s`;
  if (seconds < 120) return `${Math.round(seconds)}\u00a0s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}\u00a0min`;
  return `${(seconds / 3600).toFixed(1)}\u00a0h`;
}

const two = (n) => String(n).padStart(2, "0");

/** Time of day, UTC. */
export function clock(us, seconds = true) {
  const d = new Date(us / 1000);
  const text = `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}`;
  return seconds ? `${text}:${two(d.getUTCSeconds())}` : text;
}

/** An element with properties and children. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("aria-") || name === "role" || name.startsWith("data-")) {
      node.setAttribute(name, value);
    } else node[name] = value;
  }
  node.append(...children.filter((child) => child != null));
  return node;
}
