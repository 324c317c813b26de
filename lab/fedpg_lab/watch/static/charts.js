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
  draw(axis, x, series, bands = []) {
    this.last = [axis, x, series, bands];
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
      bands: bands.map(([upper, lower, fill]) => ({ series: [upper + 1, lower + 1], fill })),
    };
    this.plot = new uPlot(options, data, this.place);
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
