// Mouse, touch and keys of the map: methods of HeatMap.

const SECOND = 1e6;

export const hands = {
  listen() {
    const canvas = this.canvas;
    const spot = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.geometry) return;
      this.drag = { from: spot(event), price: this.panPrice, time: this.panTime };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const g = this.geometry;
      if (!g) return;
      const [x, y] = spot(event);
      if (this.drag && Math.hypot(x - this.drag.from[0], y - this.drag.from[1]) > 4) {
        const { from, price: p, time } = this.drag;
        this.panPrice = p + ((y - from[1]) / (g.bottom - g.top)) * 2 * this.half;
        this.panTime = Math.max(0, time + ((x - from[0]) / (g.right - g.left)) * (g.end - g.begin));
        this.cross = null;
      } else {
        this.cross = { at: Math.min(g.end, g.at(Math.max(g.left, Math.min(x, g.right)))), price: g.price(Math.max(g.top + 1, Math.min(y, g.bottom - 1))) };
      }
      this.draw();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => { this.drag = null; });
    }
    canvas.addEventListener("pointerleave", () => {
      if (document.activeElement !== canvas) this.cross = null;
      this.draw();
    });
    canvas.addEventListener("wheel", (event) => {
      if (!this.geometry) return;
      event.preventDefault();
      const turn = event.deltaY || event.deltaX;
      if (event.shiftKey) this.canvas.dispatchEvent(new CustomEvent("range", { detail: Math.sign(turn) }));
      else this.zoom(Math.exp(Math.max(-120, Math.min(120, turn)) * 0.002), spot(event)[1]);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cross = null; this.draw(); });
    this.listenHandle();
  },

  zoom(factor, y) {
    const g = this.geometry;
    const half = Math.min(0.3, Math.max(0.006, this.half * factor));
    if (y !== undefined && g) {
      const share = 1 - (2 * (y - g.top)) / (g.bottom - g.top);
      this.panPrice += share * (this.half - half);
    }
    this.half = half;
    this.draw();
  },

  key(event) {
    const g = this.geometry;
    if (!g) return;
    const grid = this.now ?? this.rows.at(-1);
    const at = this.cross?.at ?? g.end;
    const p = this.cross?.price ?? Math.exp((Math.floor(Math.log(g.mark) / grid.step - grid.offset) + 0.5 + grid.offset) * grid.step);
    const far = event.shiftKey ? 10 : 1;
    const bin = Math.max(10 * SECOND, (g.end - g.begin) / 180);
    const keys = {
      ArrowUp: () => { this.cross = { at, price: p * Math.exp(grid.step * far) }; },
      ArrowDown: () => { this.cross = { at, price: p * Math.exp(-grid.step * far) }; },
      ArrowLeft: () => { this.cross = { at: Math.max(g.begin, at - bin * far), price: p }; },
      ArrowRight: () => { this.cross = { at: Math.min(g.end, at + bin * far), price: p }; },
      Home: () => { this.panTime = 0; this.panPrice = 0; this.cross = { at: g.end, price: g.mark }; },
      Escape: () => { this.cross = null; },
      "+": () => this.zoom(0.8), "=": () => this.zoom(0.8), "-": () => this.zoom(1.25), 0: () => this.reset(),
      "[": () => this.canvas.dispatchEvent(new CustomEvent("range", { detail: 1 })),
      "]": () => this.canvas.dispatchEvent(new CustomEvent("range", { detail: -1 })),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
    if (this.cross) {
      const ln = Math.log(this.cross.price);
      if (ln > g.high) this.panPrice += ln - g.high + grid.step;
      if (ln < g.low) this.panPrice -= g.low - ln + grid.step;
    }
    this.draw();
  },

  listenHandle() {
    const handle = this.handle;
    const set = (ratio) => {
      const kept = Math.max(-0.3, Math.min(0.3, Math.round(ratio * 1000) / 1000));
      this.asked(kept === 0 ? (this.shock < 0 ? -0.001 : 0.001) : kept);
    };
    handle.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      handle.focus();
      handle.setPointerCapture(event.pointerId);
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const y = event.clientY - this.canvas.getBoundingClientRect().top;
      set(this.geometry.price(y) / this.geometry.mark - 1);
    });
    handle.addEventListener("keydown", (event) => {
      const by = { ArrowUp: 0.001, ArrowRight: 0.001, ArrowDown: -0.001, ArrowLeft: -0.001, PageUp: 0.01, PageDown: -0.01 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      const next = this.shock + by;
      set(Math.abs(next) < 1e-9 ? by : next);
    });
  },
};
