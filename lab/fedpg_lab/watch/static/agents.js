"use strict";
/* The table of agents. */

Fedpg.AGENT_ROWS = 200;

Fedpg.AgentTable = class {
  constructor(place) {
    this.rows = [];
    this.order = { key: "agent", down: false };
    this.all = false;
    this.head = Fedpg.h("tr");
    this.body = Fedpg.h("tbody");
    this.more = Fedpg.h("p");
    place.append(
      Fedpg.h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "agents" },
        Fedpg.h("table", { class: "rows", id: "agents" }, Fedpg.h("thead", null, this.head), this.body)),
      this.more);
  }

  take(rows, isLive) {
    this.rows = rows;
    this.isLive = isLive;
    this.draw();
  }

  columns() {
    const any = (key) => this.rows.some((row) => row[key] !== null && row[key] !== undefined);
    const { number, percent, h } = Fedpg;
    const verdict = (row) => (row.verdict ? [h("span", { class: `mark ${row.verdict}` }), row.verdict] : ["–"]);
    const lately = (row) => {
      if (row.lately === null) return ["–"];
      const part = h("i");
      part.style.width = `${100 * row.lately}%`;
      return [h("span", { class: "bar", "aria-hidden": "true" }, part), percent(row.lately)];
    };
    const refused = (row) => Object.entries(row.refused).map(([why, count]) => `${why} ${number(count)}`).join(", ");
    const heard = this.rows.some((row) => row.heard);
    const selects = !heard || this.rows.some((row) => row.accepted || row.filtered);
    return [
      ["agent", "agent", true, (row) => [`${row.agent}`]],
      any("attack") && ["described as", "attack", false, (row) => (row.attack ? [h("span", { class: "attack" }, row.attack)] : ["honest"])],
      any("presence") && ["state", "presence", false, (row) => [row.presence ?? "–"]],
      this.isLive && ["open round", "voted", false, (row) => [row.voted ? "voted" : "awaited"]],
      ["last verdict", "verdict", false, verdict],
      selects && ["accepted, last 50", "lately", false, lately],
      selects && ["accepted", "accepted", true, (row) => [number(row.accepted)]],
      selects && ["filtered", "filtered", true, (row) => [number(row.filtered)]],
      heard && ["votes", "heard", true, (row) => [number(row.heard)]],
      ["absent", "absent", true, (row) => [number(row.absent)]],
      any("distance") && ["distance ÷ radius", "distance", true, (row) => [number(row.distance, 2)]],
      any("weight") && ["weight", "weight", true, (row) => [number(row.weight, 4)]],
      any("trajectories") && ["trajectories", "trajectories", true, (row) => [number(row.trajectories)]],
      any("world_return") && ["return in its world", "world_return", true, (row) => [number(row.world_return)]],
      ["last vote", "last_vote", true, (row) => [row.last_vote ? `round ${number(row.last_vote)}` : "none"]],
      any("last_seen_s") && ["last seen", "last_seen_s", true, (row) => [row.last_seen_s === null ? "never" : `${Fedpg.duration(row.last_seen_s)} ago`]],
      any("world") && ["its world", "world", false, (row) => [row.world ?? "–"], "wide"],
      this.rows.some((row) => Object.keys(row.refused).length) && ["refused", "refused_count", false, (row) => [refused(row) || "–"], "wide"],
      any("note") && ["it says", "note", false, (row) => [row.note ?? ""], "wide"],
    ].filter(Boolean);
  }

  draw() {
    for (const row of this.rows) row.refused_count = Object.values(row.refused).reduce((sum, one) => sum + one, 0);
    const columns = this.columns();
    const sort = (key) => {
      this.order = { key, down: this.order.key === key ? !this.order.down : ["filtered", "absent", "refused_count"].includes(key) };
      this.draw();
      this.head.querySelector(`[data-key=${key}]`)?.focus();
    };
    const mark = JSON.stringify([columns.map((column) => column[1]), this.order]);
    if (mark !== this.mark) {
      this.head.replaceChildren(...columns.map(([text, key, figure]) => Fedpg.sortable(text, key, this.order, sort, figure)));
      this.body.replaceChildren();
      this.mark = mark;
    }
    const rows = [...this.rows].sort(Fedpg.compare(this.order)).slice(0, this.all ? undefined : Fedpg.AGENT_ROWS);
    while (this.body.children.length > rows.length) this.body.lastChild.remove();
    rows.forEach((row, place) => this.drawRow(row, columns, place));
    const hidden = this.rows.length - rows.length;
    Fedpg.show(this.more, ...(hidden ? [`${hidden} more agents; `] : []));
    if (hidden) this.more.append(Fedpg.h("button", { onclick: () => { this.all = true; this.draw(); } }, "show all"));
  }

  drawRow(row, columns, place) {
    const known = JSON.stringify(row);
    const line = this.body.children[place] ?? this.body.appendChild(Fedpg.h("tr"));
    if (line.known === known) return;
    line.known = known;
    line.replaceChildren(...columns.map(([, , figure, cells, kind]) => Fedpg.h("td", { class: figure ? "figure" : kind ?? null }, cells(row))));
  }
};
