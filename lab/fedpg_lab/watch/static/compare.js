"use strict";
/* Several runs in one picture: mean and 90 % interval over seeds, with the published points. */

Fedpg.ComparePage = class {
  constructor(page, query) {
    const h = Fedpg.h;
    this.query = query;
    this.say = h("div");
    this.panels = h("div", { id: "panels" });
    this.about = h("p", { class: "faint" });
    const again = (key, value) => {
      if (value) this.query.set(key, value); else this.query.delete(key);
      history.replaceState(null, "", `?${this.query}`);
      this.load();
    };
    page.replaceChildren(h("header", null, h("a", { href: "/" }, "All runs"), h("h1", null, "Compared runs")), this.say,
      h("div", { class: "controls" },
        Fedpg.choice("trajectories counted", [["", "per participant, as published"], ["honest", "sampled by all agents and the server"]],
          query.get("axis") ?? "", (value) => again("axis", value)),
        Fedpg.choice("mean over rounds", ["1", "5", "10", "20", "50"].map((one) => [one, one]), query.get("smooth") ?? "5", (value) => again("smooth", value))),
      this.about, this.panels);
    document.title = "Compared runs – FedPG";
    this.load();
  }

  async load() {
    try {
      this.draw(await Fedpg.get(`/compare?${this.query}`));
      Fedpg.show(this.say);
    } catch (error) {
      Fedpg.show(this.say, Fedpg.h("p", { class: "say bad" }, `These runs cannot be compared: ${error.message}`));
    }
  }

  draw(found) {
    const h = Fedpg.h;
    const seeds = found.curves.some((curve) => curve.half_width);
    this.about.textContent = `Evaluation return of the greedy policy, centred mean over ${found.smooth} rounds; `
      + (seeds ? "mean over seeds, and its 90 % interval (Student's t). " : "one seed each, so without intervals. ")
      + (found.curves.some((curve) => curve.published.length) ? "Rings are published points." : "");
    const panels = [...new Set(found.curves.map((curve) => curve.task))];
    this.panels.replaceChildren(...(panels.length ? [] : [h("p", { class: "say" }, "None of these runs has ended a round yet.")]));
    for (const task of panels) {
      const curves = found.curves.filter((curve) => curve.task === task);
      const place = h("div");
      this.panels.append(h("h2", null, task), place, this.table(curves));
      this.chart(place, curves, found.honest, task);
    }
  }

  chart(place, curves, honest, task) {
    const x = [...new Set(curves.flatMap((curve) => [...curve.counts, ...curve.published.map(([count]) => count)]))].sort((a, b) => a - b);
    const spread = (counts, values) => { const at = new Map(counts.map((count, n) => [count, values[n]])); return x.map((count) => at.get(count) ?? null); };
    const [series, bands] = [[], []];
    curves.forEach((curve, number) => {
      const colour = `series-${number % 7}`;
      const name = Fedpg.curveName(curve);
      const dash = [undefined, [8, 4], [2, 3]][Math.floor(number / 7) % 3];
      series.push({ label: name, values: spread(curve.counts, curve.mean), colour, width: 2, dash });
      if (curve.half_width) {
        const at = series.length;
        series.push({ label: `${name}, high`, values: spread(curve.counts, curve.mean.map((mean, n) => mean + curve.half_width[n])), colour, width: 0.4, quiet: true });
        series.push({ label: `${name}, low`, values: spread(curve.counts, curve.mean.map((mean, n) => mean - curve.half_width[n])), colour, width: 0.4, quiet: true });
        bands.push([at, at + 1, `${Fedpg.colour(colour)}30`]);
      }
      if (curve.published.length) {
        series.push({ label: `${name}, published`, values: spread(curve.published.map(([count]) => count), curve.published.map(([, value]) => value)), colour, marks: true });
      }
    });
    new Fedpg.Chart(place, 380, `return of ${task}`).draw(
      honest ? "trajectories sampled by all agents and the server" : "trajectories per participant", x, series, bands);
  }

  table(curves) {
    const { h, number } = Fedpg;
    const line = (curve, at) => {
      const mark = h("span", { class: "mark" });
      mark.style.background = Fedpg.series(at);
      return h("tr", null, h("td", { class: "wide" }, mark, curve.label), h("td", null, curve.attack || "none"),
        h("td", null, curve.seeds.flatMap((seed, number) => [number ? ", " : "", h("a", { href: Fedpg.runAddress(curve.runs[number]) }, `${seed}`)])), h("td", { class: "figure" }, number(curve.final)));
    };
    return h("div", { class: "scroll" }, h("table", { class: "rows" },
      h("thead", null, h("tr", null, h("th", null, "federation"), h("th", null, "attack"), h("th", null, "seeds"), h("th", { class: "figure" }, "return, last 5 %"))),
      h("tbody", null, curves.map(line))));
  }
};

Fedpg.curveName = (curve) => (curve.attack ? `${curve.label}, ${curve.attack}` : curve.label);
