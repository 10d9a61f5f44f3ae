// Colours of the map in dark and light, and canvases at the screen's own resolution.
//
// Orange and blue differ for every kind of colour blindness; brightness (darkness on light) is USD.

const RAMPS = {
  dark: {
    none: [13, 18, 24],
    long: [[13, 18, 24], [96, 46, 8], [214, 104, 10], [255, 176, 77], [255, 244, 214]],
    short: [[13, 18, 24], [12, 52, 104], [28, 110, 200], [108, 182, 255], [226, 243, 255]],
    ink: "#e8eef5", paper: "#0d1218", quiet: "#a3b1c0", grid: "rgba(163,177,192,.16)",
    mark: "#ffffff", halo: "#000000", asked: "#ffd866", hole: "#38434f",
  },
  light: {
    none: [255, 255, 255],
    long: [[255, 255, 255], [255, 224, 184], [246, 152, 50], [188, 82, 0], [84, 32, 0]],
    short: [[255, 255, 255], [204, 228, 255], [84, 156, 238], [18, 84, 174], [2, 30, 78]],
    ink: "#17202a", paper: "#ffffff", quiet: "#505d6b", grid: "rgba(60,75,92,.16)",
    mark: "#000000", halo: "#ffffff", asked: "#6b4300", hole: "#c9d1da",
  },
};

const lerp = (a, b, t) => a + (b - a) * t;

export function ramp(stops) {
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const x = (i / 255) * (stops.length - 1);
    const k = Math.min(stops.length - 2, Math.floor(x));
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(lerp(stops[k][c], stops[k + 1][c], x - k)));
    table[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

export const TABLES = Object.fromEntries(
  Object.entries(RAMPS).map(([name, c]) => [name, { long: ramp(c.long), short: ramp(c.short) }]),
);

export const theme = () => (document.documentElement.dataset.theme === "light" ? "light" : "dark");
export const colours = () => RAMPS[theme()];
export const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

/** A canvas at the screen's own resolution; returns its context and size in CSS pixels. */
export function fit(canvas) {
  const ratio = Math.min(3, devicePixelRatio || 1);
  const { clientWidth: width, clientHeight: height } = canvas;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
