"use strict";
/* The grid agent × round of verdicts: one pixel per cell on a canvas that is drawn larger. */

Fedpg.RULES = { R1: "series-0", R2: "series-5", mean: "line", none: "text" };
Fedpg.OTHER_RULES = ["series-2", "series-3", "series-4", "series-1"];

Fedpg.Grid = class {
  constructor(place) {
    const h = Fedpg.h;
    this.data = null;
    this.at = [0, 0];
    this.names = h("div", { class: "names" });
    this.rules = h("canvas", { class: "rules", height: 1, "aria-hidden": "true" });
    this.canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": "verdicts, agent by round: arrow keys move, the line below tells",
      onkeydown: (event) => this.key(event), onpointermove: (event) => this.point(event), onpointerdown: (event) => this.point(event) });
    this.ends = h("div", { class: "ends" });
    this.tell = h("p", { class: "faint", "aria-live": "polite", id: "cell" }, "Point at a cell, or move with the arrow keys; a click or Enter shows its round in the plane.");
    this.legend = h("div", { class: "legend" });
    place.append(this.legend, h("div", { class: "grid" }, this.names, h("div", { class: "cells" }, this.rules, this.canvas, this.ends)), this.tell);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(place);
  }

  /** Take a patch; cells of columns before its start stay. */
  take(patch, byzantine) {
    const bytes = Uint8Array.from(atob(patch.cells), (letter) => letter.charCodeAt(0));
    const kept = this.data && this.data.width === patch.width && this.data.agents === patch.agents ? this.data : { cells: [], rules: [], selects: [] };
    const cells = new Uint8Array(patch.start * patch.agents + bytes.length);
    cells.set(kept.cells.slice(0, patch.start * patch.agents));
    cells.set(bytes, patch.start * patch.agents);
    this.data = { ...patch, cells, rules: [...kept.rules.slice(0, patch.start), ...patch.rules],
      selects: [...kept.selects.slice(0, patch.start), ...patch.selects] };
    this.byzantine = byzantine;
    this.draw();
  }

  draw() {
    const data = this.data;
    const columns = data ? data.rules.length : 0;
    if (!columns) return;
    const rows = data.agents;
    const height = rows <= 40 ? Math.max(6, Math.min(18, 420 / rows)) : Math.max(0.42, 420 / rows);
    const room = this.canvas.parentElement.clientWidth;
    const width = Math.min(room, columns * 24);
    this.size = [width / columns, height];
    for (const canvas of [this.rules, this.canvas]) { canvas.width = columns; canvas.style.width = `${width}px`; }
    this.canvas.height = rows;
    this.canvas.style.height = `${rows * height}px`;
    this.rules.style.height = "9px";
    this.ends.style.width = `${width}px`;
    this.paint(columns, rows);
    this.paintRules(columns);
    this.label(rows, height);
    Fedpg.show(this.ends, Fedpg.h("span", null, "round 1"), Fedpg.h("span", null, `${data.rounds}`));
  }

  paint(columns, rows) {
    const [accepted, voted, filtered, absent] = ["accepted", "voted", "filtered", "absent"].map((name) => Fedpg.rgb(Fedpg.colour(name)));
    const image = new ImageData(columns, rows);
    const { cells, selects } = this.data;
    for (let column = 0; column < columns; column += 1) {
      const heard = selects[column] ? accepted : voted;
      for (let row = 0; row < rows; row += 1) {
        const cell = cells[column * rows + row];
        const [f, a] = [(cell >> 4) / 15, (cell & 15) / 15];
        const rest = Math.max(0, 1 - f - a);
        const place = 4 * (row * columns + column);
        for (let part = 0; part < 3; part += 1) {
          image.data[place + part] = heard[part] * rest + filtered[part] * f + absent[part] * a;
        }
        image.data[place + 3] = 255;
      }
    }
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  paintRules(columns) {
    const colours = {};
    const others = [...Fedpg.OTHER_RULES];
    for (const rule of new Set(this.data.rules)) colours[rule] = Fedpg.RULES[rule] ?? others.shift() ?? "faint";
    const context = this.rules.getContext("2d");
    for (let column = 0; column < columns; column += 1) {
      context.fillStyle = Fedpg.colour(colours[this.data.rules[column]]);
      context.fillRect(column, 0, 1, 1);
    }
    const h = Fedpg.h;
    const rules = Object.entries(colours).map(([rule, colour]) => {
      const mark = h("span", { class: "mark" });
      mark.style.background = Fedpg.colour(colour);
      return h("span", null, mark, `rule ${rule}`);
    });
    const mixed = this.data.width > 1 ? [h("span", { class: "faint" }, `a column is ${this.data.width} rounds; colours mix by share`)] : [];
    const heard = ["accepted", "voted"].filter((name) => this.data.selects.includes(name === "accepted"));
    const verdicts = [...heard, ...(heard.includes("accepted") ? ["filtered"] : []), "absent"];
    Fedpg.show(this.legend, ...verdicts.map((name) => h("span", null, h("span", { class: `mark ${name}` }), name)),
      ...rules, ...mixed);
  }

  label(rows, height) {
    const every = Math.max(1, Math.ceil(14 / height));
    const names = [];
    for (let agent = 1; agent <= rows; agent += every) {
      const attack = rows <= 40 ? this.byzantine[agent] : undefined;
      const name = Fedpg.h("div", null, attack ? `${attack}  ${agent}` : `${agent}`);
      name.style.top = `${13 + (agent - 0.5) * height}px`;
      names.push(name);
    }
    this.names.replaceChildren(...names);
    const widest = Math.max(...names.map((name) => name.scrollWidth), 30);
    this.names.style.width = `${widest}px`;
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    this.go(Math.floor((event.clientX - box.left) / this.size[0]), Math.floor((event.clientY - box.top) / this.size[1]));
    if (event.type === "pointerdown") this.choose();
  }

  /** Tell of the round that is pointed at, a column's last. */
  choose() {
    if (this.data && this.onchoose) this.onchoose(Math.min(this.data.rounds, (this.at[0] + 1) * this.data.width));
  }

  key(event) {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.choose(); return; }
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || !this.data) return;
    event.preventDefault();
    this.go(this.at[0] + step[0], this.at[1] + step[1]);
  }

  go(column, row) {
    if (!this.data) return;
    const { rules, selects, agents, width, rounds, cells } = this.data;
    this.at = [Math.max(0, Math.min(rules.length - 1, column)), Math.max(0, Math.min(agents - 1, row))];
    const [c, r] = this.at;
    const cell = cells[c * agents + r];
    const [first, last] = [c * width + 1, Math.min(rounds, (c + 1) * width)];
    const [f, a] = [cell >> 4, cell & 15];
    const heard = selects[c] ? "accepted" : "voted";
    const shares = first === last ? (f ? "filtered" : a ? "absent" : heard)
      : [[15 - f - a, heard], [f, "filtered"], [a, "absent"]].filter(([part]) => part > 0)
        .map(([part, name]) => `${name} ${part === 15 ? "always" : `about ${Math.round((100 * part) / 15)} %`}`).join(", ");
    const attack = this.byzantine[r + 1] ? ` (${this.byzantine[r + 1]})` : "";
    this.tell.textContent = `${first === last ? `round ${first}` : `rounds ${first} to ${last}`}, agent ${r + 1}${attack}: ${shares}; rule ${rules[c]}`;
  }
};

Fedpg.rgb = (colour) => {
  const digits = parseInt(colour.slice(1), 16);
  return [digits >> 16, (digits >> 8) & 255, digits & 255];
};
