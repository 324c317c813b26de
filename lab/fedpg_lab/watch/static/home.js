"use strict";
/* All runs: filtered, sorted, ticked to compare. */

Fedpg.COMPARED_MAX = 100;

Fedpg.HomePage = class {
  constructor(page) {
    const h = Fedpg.h;
    this.runs = [];
    this.picked = new Set();
    this.filters = {};
    this.text = "";
    this.order = null;
    this.title = h("h1", null, "Runs");
    this.badge = h("span", { class: "link", role: "status" }, "connecting");
    this.controls = h("div", { class: "controls" });
    this.head = h("tr");
    this.body = h("tbody");
    this.sum = h("p", { class: "faint", role: "status" });
    this.go = h("button", { disabled: true, onclick: () => this.compare() }, "Compare");
    this.say = h("div");
    this.matrices = h("div", { id: "matrices" });
    const search = h("input", { type: "search", "aria-label": "part of a run's name", placeholder: "name",
      oninput: () => { this.text = search.value; this.draw(); } });
    page.replaceChildren(h("header", null, this.title, this.badge), this.say, this.matrices,
      h("div", { class: "controls" }, this.controls, h("label", null, "name", search), this.go), this.sum,
      h("div", { class: "scroll" }, h("table", { class: "rows", id: "runs" }, h("thead", null, this.head), this.body)));
    this.controls.style.display = "contents";
  }

  take(home) {
    this.runs = home.runs.map((run) => ({ ...run, attack: run.attack ?? (run.task ? "none" : null),
      algorithm: run.aggregator ? run.algorithm.replace(` + ${run.aggregator}`, "") : run.algorithm,
      aggregator: run.aggregator ?? (run.task ? "its own" : null) }));
    this.title.textContent = `Runs in ${home.folder}`;
    document.title = `Runs – FedPG`;
    Fedpg.show(this.say, ...(home.error ? [Fedpg.h("p", { class: "say bad" }, home.error)] : []),
      ...(!home.error && !home.runs.length ? [Fedpg.h("p", { class: "say" }, "There is no run here yet: one appears as soon as it starts, for example with fedpg train.")] : []));
    const links = home.matrices.map((name) => Fedpg.h("a", { href: `/matrix?matrix=${encodeURIComponent(name)}` }, name === "." ? "this folder" : name));
    Fedpg.show(this.matrices, ...(links.length ? [Fedpg.h("p", null, "Matrix of an experiment: ", links.flatMap((link, at) => (at ? [", ", link] : [link])))] : []));
    this.drawControls();
    this.draw();
  }

  drawControls() {
    const names = { state: "state", task: "task", algorithm: "algorithm", aggregator: "aggregator", attack: "attack", agents: "K" };
    const values = Object.fromEntries(Object.keys(names).map((key) =>
      [key, [...new Set(this.runs.map((run) => run[key]))].filter((value) => value !== null && value !== undefined).map(String)
        .sort((a, b) => a.localeCompare(b, "en", { numeric: true }))]));
    const known = JSON.stringify(values);
    if (known === this.knownValues) return;
    this.knownValues = known;
    this.controls.replaceChildren(...Object.entries(names).map(([key, name]) =>
      Fedpg.choice(name, [["", "all"], ...values[key].map((value) => [value, value])], this.filters[key] ?? "",
        (value) => { this.filters[key] = value; this.draw(); })));
  }

  draw() {
    const { h, number } = Fedpg;
    const fits = (run) => run.run.toLowerCase().includes(this.text.toLowerCase())
      && Object.entries(this.filters).every(([key, value]) => !value || String(run[key]) === value);
    let rows = this.runs.filter(fits);
    if (this.order) rows = [...rows].sort(Fedpg.compare(this.order));
    // What people look for stands where a narrow window shows it.
    const columns = [["run", "run"], ["state", "state"], ["return", "final_return", true], ["best", "best_return", true],
      ["trajectories", "trajectories", true], ["rounds", "rounds", true], ["task", "task"], ["algorithm", "algorithm"],
      ["aggregator", "aggregator"], ["attack", "attack"], ["K", "agents", true], ["Byzantine", "byzantine", true], ["seed", "seed", true]];
    const sort = (key) => {
      this.order = { key, down: this.order?.key === key ? !this.order.down : ["final_return", "best_return"].includes(key) };
      this.draw();
      this.head.querySelector(`[data-key=${key}]`)?.focus();
    };
    const all = h("input", { type: "checkbox", "aria-label": "all that are shown",
      checked: rows.length > 0 && rows.every((run) => this.picked.has(run.run)),
      onchange: () => { for (const run of rows) this.pick(run.run, all.checked); this.draw(); } });
    if (!this.head.contains(document.activeElement) || this.drawnOrder !== this.order) {
      this.head.replaceChildren(h("th", null, all), ...columns.map(([text, key, figure]) => Fedpg.sortable(text, key, this.order ?? {}, sort, figure)));
      this.drawnOrder = this.order;
    }
    while (this.body.children.length > rows.length) this.body.lastChild.remove();
    rows.forEach((run, place) => {
      const line = this.body.children[place] ?? this.body.appendChild(h("tr"));
      const known = JSON.stringify([run, this.picked.has(run.run)]);
      if (line.known === known) return;
      line.known = known;
      line.classList.toggle("picked", this.picked.has(run.run));
      const tick = h("input", { type: "checkbox", "aria-label": `compare ${run.run}`, checked: this.picked.has(run.run),
        disabled: !run.rounds, onchange: () => { this.pick(run.run, tick.checked); this.drawSum(rows); line.classList.toggle("picked", tick.checked); } });
      const name = run.run === "." ? "this folder" : run.run;
      const cells = [[h("a", { href: Fedpg.runAddress(run.run) }, name), run.note ? h("div", { class: "faint" }, run.note) : ""],
        [Fedpg.state(run.state)], [number(run.final_return)], [number(run.best_return)],
        [run.trajectories === null || run.trajectories === undefined ? "–" : `${number(run.trajectories)} / ${number(run.trajectories_target)}`],
        [number(run.rounds)], [run.task ?? "–"], [run.algorithm ?? "–"], [run.aggregator ?? "–"], [run.attack ?? "–"],
        [number(run.agents)], [number(run.byzantine)], [number(run.seed)]];
      const focused = [...line.querySelectorAll("a, input")].indexOf(document.activeElement);
      line.replaceChildren(h("td", null, tick), ...cells.map((cell, at) => h("td", { class: columns[at][2] ? "figure" : at ? null : "wide" }, cell)));
      line.querySelectorAll("a, input")[focused]?.focus();
    });
    this.drawSum(rows);
  }

  pick(run, isPicked) {
    if (isPicked && this.runs.find((one) => one.run === run)?.rounds) this.picked.add(run);
    else this.picked.delete(run);
  }

  drawSum(rows) {
    const hidden = rows.length < this.runs.length ? ` of ${this.runs.length}` : "";
    this.sum.textContent = `${rows.length}${hidden} ${this.runs.length === 1 ? "run" : "runs"}; tick some to compare them`;
    const count = this.picked.size;
    this.go.disabled = !count || count > Fedpg.COMPARED_MAX;
    this.go.textContent = count > Fedpg.COMPARED_MAX ? `Compare ${count}: too many, at most ${Fedpg.COMPARED_MAX}`
      : count ? `Compare ${count}` : "Compare";
  }

  compare() {
    const query = new URLSearchParams([...this.picked].map((run) => ["run", run]));
    location.href = `/compare?${query}`;
  }
};
