"use strict";
/* Charts, drawn by uPlot. A chart is made anew when its series change, and otherwise only given data. */

Fedpg.Chart = class {
  /** `place` holds the chart; `height` in pixels; `axis` names what runs along x. */
  constructor(place, height, name) {
    this.place = place;
    this.height = height;
    this.plot = null;
    this.shape = "";
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", name);
    new ResizeObserver(() => this.fit()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.shape = ""; this.again(); });
  }

  fit() {
    const width = this.place.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
  }

  again() { if (this.last) this.draw(...this.last); }

  /** `series`: [{label, values, colour, width, dash, points}], `bands`: [[upper, lower, colour]] by place. */
  draw(axis, x, series, bands = [], spans = []) {
    this.last = [axis, x, series, bands, spans];
    this.spans = spans;
    const data = [x, ...series.map((one) => one.values)];
    const shape = JSON.stringify([axis, series.map((one) => [one.label, one.dash, one.marks]), bands.length, x.length === 1]);
    if (shape === this.shape) { this.plot.setData(data); return; }
    this.shape = shape;
    if (this.plot) this.plot.destroy();
    const lines = { stroke: Fedpg.colour("faint"), grid: { stroke: Fedpg.colour("line"), width: 1 },
      ticks: { stroke: Fedpg.colour("line") }, font: "12px system-ui, sans-serif" };
    const options = {
      width: this.place.clientWidth || 600, height: this.height,
      scales: { x: { time: false } },
      axes: [{ ...lines, label: axis, labelSize: 20, labelFont: "12px system-ui, sans-serif" }, { ...lines, size: 64 }],
      cursor: { drag: { x: true, y: false } },
      series: [{ label: axis, value: (_, value) => Fedpg.brief(value) },
        ...series.map((one) => this.line(one, x.length))],
      hooks: { drawClear: [(plot) => this.shade(plot)] },
      bands: bands.map(([upper, lower, fill]) => ({ series: [upper + 1, lower + 1], fill })),
    };
    this.plot = new uPlot(options, data, this.place);
  }

  /** Shade behind the curves: `spans` are [from, to, kind] along x; lines where both are the same. */
  shade(plot) {
    const { ctx, bbox } = plot;
    for (const [from, to, kind] of this.spans) {
      const [left, right] = [from, to].map((value) => Math.max(bbox.left, Math.min(bbox.left + bbox.width, plot.valToPos(value, "x", true))));
      ctx.save();
      ctx.fillStyle = Fedpg.colour(`span-${kind}`);
      if (kind === "restart" || kind === "extension") {
        ctx.strokeStyle = ctx.fillStyle;
        ctx.lineWidth = 2 * devicePixelRatio;
        ctx.setLineDash(kind === "restart" ? [] : [6, 4]);
        ctx.beginPath(); ctx.moveTo(left, bbox.top); ctx.lineTo(left, bbox.top + bbox.height); ctx.stroke();
      } else ctx.fillRect(left, bbox.top, Math.max(2, right - left), bbox.height);
      ctx.restore();
    }
  }

  line(one, count) {
    const stroke = Fedpg.colour(one.colour);
    return {
      label: one.label, auto: !one.quiet, stroke: one.marks ? "transparent" : stroke, width: one.width ?? 1.5, dash: one.dash,
      class: one.quiet ? "quiet" : null, spanGaps: true, value: (_, value) => Fedpg.brief(value),
      points: one.marks ? { show: true, size: 10, stroke, fill: Fedpg.colour("ground"), width: 2 } : { show: count === 1 },
      ...(one.marks ? { paths: () => null } : {}),
    };
  }
};

Fedpg.sums = (values) => { let sum = 0; return values.map((value) => (sum += value || 0)); };

/** Put a patch of columns behind those that stay as they are. */
Fedpg.extend = (known, patch) => {
  const kept = known && known.width === patch.width ? known : { figures: {} };
  const end = Object.values(patch.figures)[0]?.length ?? 0;
  const figures = {};
  for (const name of new Set([...Object.keys(kept.figures), ...Object.keys(patch.figures)])) {
    const before = (kept.figures[name] ?? []).slice(0, patch.start);
    while (before.length < patch.start) before.push(null);
    figures[name] = [...before, ...(patch.figures[name] ?? Array(end).fill(null))];
  }
  return { width: patch.width, rounds: patch.rounds, figures };
};
