"use strict";
/* An experiment's matrix: a row for each rule, a column for each attack, the worst at the end. */

Fedpg.MATRIX_VALUES = [["mean", "final return, mean over seeds"], ["worst", "final return, worst seed"],
  ["to_threshold", "trajectories to the threshold"], ["accepted_byzantine", "Byzantine votes that were accepted"],
  ["accepted_honest", "honest votes that were accepted"]];

Fedpg.MatrixPage = class {
  constructor(page) {
    const h = Fedpg.h;
    this.value = "mean";
    this.title = h("h1", null, "Matrix");
    this.badge = h("span", { class: "link", role: "status" }, "connecting");
    this.say = h("div");
    this.panels = h("div", { id: "matrices" });
    page.replaceChildren(h("header", null, h("a", { href: "/" }, "All runs"), this.title, this.badge), this.say,
      h("div", { class: "controls" }, Fedpg.choice("shown", Fedpg.MATRIX_VALUES, "mean", (value) => { this.value = value; this.draw(); })),
      this.panels);
  }

  take(found) {
    if (found.error) { Fedpg.show(this.say, Fedpg.h("p", { class: "say bad" }, found.error)); return; }
    Fedpg.show(this.say);
    this.found = found;
    this.title.textContent = found.title;
    document.title = `${found.title} – FedPG`;
    this.draw();
  }

  draw() {
    if (!this.found) return;
    this.panels.replaceChildren(...this.found.matrices.flatMap((matrix) => this.matrix(matrix)));
  }

  matrix(matrix) {
    const { h, number } = Fedpg;
    const all = matrix.rows.flatMap((row) => [row.undisturbed, ...row.cells]).filter(Boolean);
    const [done, wanted] = [all.reduce((sum, cell) => sum + cell.done, 0), all.length * (matrix.seeds?.length ?? 0)];
    const values = all.map((cell) => cell[this.value]).filter((value) => value !== null);
    const range = [Math.min(...values), Math.max(...values)];
    const head = h("tr", null, h("th", { scope: "col" }, "rule"), h("th", { scope: "col", class: "figure" }, "no attack"),
      matrix.columns.map((name) => h("th", { scope: "col", class: "figure" }, name)), h("th", { scope: "col", class: "figure" }, "worst attack"));
    this.lone = h("abbr", { title: matrix.lone_means }, matrix.lone);
    const line = (row) => h("tr", null,
      h("th", { scope: "row" }, row.name, row.setting ? h("div", { class: "faint" }, row.setting) : ""),
      this.cell(row.undisturbed, range),
      row.cells.map((cell, at) => this.cell(cell, range, at === row.worst)),
      this.cell(row.worst === null ? null : row.cells[row.worst], range, false, row.worst === null ? "" : matrix.columns[row.worst]));
    const threshold = this.value === "to_threshold" ? ` The threshold is a return of ${number(matrix.threshold)}; a dash where a seed never got there.` : "";
    return [
      h("h2", null, `${matrix.task}, K = ${matrix.K}, ${matrix.byzantine} attackers`),
      h("p", { class: "faint" }, `${number(matrix.trajectories)} trajectories, seeds ${(matrix.seeds ?? []).join(", ")}; ${done} of ${wanted} runs are complete.${threshold} `
        + "The worst attack is the one with the least mean of final returns; its cell is framed. A cell leads to its runs."),
      ...(matrix.lone_means && this.isReturn() ? [h("p", { class: "faint" }, matrix.lone_means)] : []),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "matrix" },
        h("table", { class: "rows matrix" }, h("thead", null, head), h("tbody", null, matrix.rows.map(line)))),
    ];
  }

  isReturn() { return ["mean", "worst"].includes(this.value); }

  cell(cell, [least, most], isWorst = false, attack = "") {
    const { h } = Fedpg;
    if (!cell) return h("td", { class: "figure" }, "–");
    const value = cell[this.value];
    const shown = value === null ? "–" : this.value.startsWith("accepted") ? Fedpg.percent(value) : Fedpg.number(value, Math.abs(value) < 10 ? 1 : 0);
    const query = new URLSearchParams(cell.runs.map((run) => ["run", run]));
    const address = cell.runs.length === 1 ? Fedpg.runAddress(cell.runs[0]) : `/compare?${query}`;
    const element = h("td", { class: `figure heat${isWorst ? " worst" : ""}` },
      cell.runs.length ? h("a", { href: address }, shown) : shown,
      ...(cell.is_lone && this.isReturn() ? [" ", this.lone.cloneNode(true)] : []), attack ? h("div", { class: "small" }, attack) : "");
    if (value !== null && most > least) {
      const isBad = ["to_threshold", "accepted_byzantine"].includes(this.value);
      const share = (value - least) / (most - least);
      const good = Math.round(100 * (isBad ? 1 - share : share));
      element.style.background = `color-mix(in srgb, var(--heat-high) ${good}%, var(--heat-low))`;
    }
    return element;
  }
};
