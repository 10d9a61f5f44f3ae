// One websocket with the reader's rule of docs/messages.md, and the questions over HTTP.
//
// A connection that falls silent is closed and made anew, first after half a second, then more and
// more patiently, up to ten. Nothing here decides what is shown.

const SILENT_MS = 12_000; // the daemon tells its health every five seconds
const FIRST_MS = 500;
const LAST_MS = 10_000;
const KEY = "cascade.token";

/** The bearer token: from the address (#token=...), which is cleaned, or from this tab's memory. */
export function token() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

export function setToken(text) {
  sessionStorage.setItem(KEY, text);
}

export class Refused extends Error {
  constructor(status, body) {
    super(body?.error ?? `HTTP ${status}`);
    this.status = status;
    this.body = body;
  }
}

/** Ask the JSON API. Throws Refused with the daemon's own words, or what fetch throws. */
export async function ask(path, signal) {
  const own = token();
  const headers = own ? { Authorization: `Bearer ${own}` } : {};
  const response = await fetch(path, { headers, signal, cache: "no-store" });
  let body = null;
  try {
    body = await response.json();
  } catch {
    // Something between us and the daemon answered; the status says enough.
  }
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

export class Live {
  /**
   * @param {object} handlers
   *   message(envelope), state(text): "connecting" | "live" | "cut",
   *   begun(): connected to a daemon, the same or another; what came meanwhile is to be read,
   *   hole(kind): messages of it were lost.
   */
  constructor(handlers) {
    this.handlers = handlers;
    this.topics = [];
    this.run = null;
    this.sequences = new Map();
    this.missed = 0;
    this.wait = FIRST_MS;
    this.socket = null;
    this.heardAt = 0;
    setInterval(() => this.watch(), 1000);
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  subscribe(topics) {
    this.topics = topics;
    if (this.socket?.readyState === WebSocket.OPEN) this.send();
  }

  connect() {
    clearTimeout(this.timer);
    this.handlers.state("connecting");
    const url = new URL("/api/v1/live", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = ["cascade.v1"];
    const own = token();
    if (own) {
      const bytes = String.fromCharCode(...new TextEncoder().encode(own));
      const coded = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
      protocols.push(`bearer.${coded}`);
    }
    const socket = new WebSocket(url, protocols);
    this.socket = socket;
    this.heardAt = performance.now();
    socket.onopen = () => {
      if (socket !== this.socket) return;
      this.send();
      this.handlers.state("live");
      this.handlers.begun();
    };
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.heardAt = performance.now();
      this.wait = FIRST_MS;
      this.take(JSON.parse(event.data));
    };
    socket.onclose = () => socket === this.socket && this.again();
  }

  send() {
    this.socket.send(JSON.stringify({ subscribe: this.topics }));
  }

  /** Drop a silent connection without waiting for a goodbye that may never come. */
  watch() {
    if (this.socket && performance.now() - this.heardAt > SILENT_MS) {
      const socket = this.socket;
      this.again();
      socket.close();
    }
  }

  hurry() {
    if (!this.socket) this.connect();
  }

  again() {
    this.socket = null;
    this.handlers.state("cut");
    const wait = this.wait * (0.75 + 0.5 * Math.random());
    this.wait = Math.min(LAST_MS, this.wait * 2);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  take(envelope) {
    if (envelope.v !== 1) return;
    const { run, kind, asset, seq, venue = "" } = envelope;
    if (run !== this.run) {
      this.run = run;
      this.sequences.clear();
    }
    const key = `${kind}/${asset}/${venue}`;
    const last = this.sequences.get(key);
    if (last !== undefined && seq <= last) return;
    this.sequences.set(key, seq);
    if (last !== undefined && seq > last + 1) {
      this.missed += seq - last - 1;
      this.handlers.hole(kind);
    }
    this.handlers.message(envelope);
  }
}
