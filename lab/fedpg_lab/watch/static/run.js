"use strict";
/* A run's page, live or saved. */

Fedpg.RunPage = class {
  constructor(page, isSaved) {
    const h = Fedpg.h;
    this.isSaved = isSaved;
    this.known = { run: {}, clock: {} };
    this.curve = null;
    this.honest = false;
    this.figure = "";
    this.title = h("h1", null, "…");
    this.badge = h("span", { class: "link", role: "status" }, isSaved ? "saved page" : "connecting");
    this.parts = Object.fromEntries(["about", "say", "clock", "tiles", "worlds"].map((name) => [name, h("div", { id: name })]));
    const part = (name, id) => h("section", null, h("h2", null, name), h("div", { id }));
    const returns = part("Return", "returns");
    const figures = part("Figures of each round", "figures");
    const verdicts = part("Verdicts: each agent in each round", "verdicts");
    const agents = part("Agents", "agent-table");
    const plane = part("A round's gradients", "plane");
    const video = part("An episode of the best policy", "video");
    this.videoPart = video;
    this.events = h("tbody");
    this.eventPart = h("section", { hidden: true }, h("h2", null, "Events"), h("div", { class: "scroll short", tabindex: 0, role: "region", "aria-label": "events" },
      h("table", { class: "rows", id: "events" }, this.events)));
    this.legend = h("div", { class: "legend" });
    this.log = h("pre", { class: "log", tabindex: 0 });
    this.logPart = h("section", null, h("h2", null, "Log of the server, without its rounds"), this.log);
    this.whole = h("div", { hidden: true }, h("div", { class: "pair" }, h("div", null, verdicts, returns, figures), h("div", null, plane, video)), agents, this.eventPart, this.logPart);
    page.replaceChildren(
      h("header", null, isSaved ? "" : h("a", { href: "/" }, "All runs"), this.title, this.badge),
      ...Object.values(this.parts), this.whole);
    this.axisPlace = h("div", { class: "controls" });
    this.returnsPlace = h("div");
    returns.lastChild.append(this.axisPlace, this.legend, this.returnsPlace);
    this.figurePlace = h("div", { class: "controls" });
    this.figuresChart = h("div");
    figures.lastChild.append(this.figurePlace, this.figuresChart);
    this.returns = new Fedpg.Chart(this.returnsPlace, 300, "return against trajectories");
    this.other = new Fedpg.Chart(this.figuresChart, 200, "a figure of each round against trajectories");
    this.grid = new Fedpg.Grid(verdicts.lastChild);
    this.agents = new Fedpg.AgentTable(agents.lastChild);
    this.plane = new Fedpg.Plane(plane.lastChild, (round) => this.planeOf(round));
    this.video = new Fedpg.Video(video.lastChild);
    this.grid.onchoose = (round) => this.plane.choose(round);
    this.axisPlace.append(Fedpg.choice("trajectories counted", [["", "per participant, as published"], ["honest", "sampled by all agents and the server"]], "",
      (value) => { this.honest = value === "honest"; this.drawCurves(); }));
  }

  /** The picture of an earlier round: from the server, or the nearest that a saved page has. */
  async planeOf(round) {
    if (!this.isSaved) return Fedpg.get(`/plane?run=${encodeURIComponent(this.known.run.run)}&round=${round}`);
    const far = (plane) => Math.abs(plane.round - round);
    return (this.known.planes ?? []).reduce((best, plane) => (best && far(best) <= far(plane) ? best : plane), null);
  }

  take(patch) {
    if (patch.run) this.whole.hidden = patch.run.state === "unreadable";  // before the charts, which measure it
    if (patch.reset) this.curve = this.grid.data = null;
    Object.assign(this.known, patch);
    if (patch.events) this.drawEvents(patch.events);
    if (patch.events && !patch.curve && this.curve) this.drawCurves();
    if (patch.curve) { this.curve = Fedpg.extend(this.curve, patch.curve); this.drawCurves(); }
    if (patch.grid) this.grid.take(patch.grid, this.known.run.byzantine ?? {});
    if (patch.run) this.drawRun(patch.run);
    if (patch.run || patch.clock) this.drawClock(this.known.clock, this.known.run);
    if (patch.plane || patch.run) this.plane.take(this.known.plane?.agents ? this.known.plane : null, this.known.run.rounds ?? 0, this.known.run.byzantine ?? {});
    if (patch.run) this.video.take(patch.run, this.isSaved ? this.known.video ?? null : undefined);
    this.videoPart.hidden = this.isSaved && !this.known.video;
    if (patch.agents) this.agents.take(patch.agents, !this.isSaved && Boolean(this.known.clock.source));
    if (patch.worlds) this.drawWorlds(patch.worlds);
    if (patch.log) this.drawLog(patch.log);
  }

  drawRun(run) {
    const { h, number } = Fedpg;
    document.title = `${run.run === "." ? run.folder : run.run} – FedPG`;
    this.title.textContent = run.run === "." ? run.folder : run.run;
    if (run.state === "unreadable") {
      Fedpg.show(this.parts.say, h("p", { class: "say bad" }, run.note ?? "This run cannot be read."));
      return;
    }
    const attacks = Object.values(run.byzantine);
    const kinds = [...new Set(attacks)].join(", ");
    const facts = [run.task, run.algorithm, `K = ${run.agents}`, `seed ${run.seed}`,
      attacks.length ? `described as Byzantine: ${attacks.length} (${kinds})` : "no attackers described"];
    Fedpg.show(this.parts.about,
      h("p", null, Fedpg.state(run.state), ` ${facts.join(" · ")}`),
      h("p", { class: "faint path" }, run.folder),
      h("progress", { max: run.target, value: Math.min(run.trajectories, run.target), "aria-label": "trajectories of the run" }));
    const say = [];
    if (!run.is_read) say.push(h("p", { class: "say", role: "status" }, `Reading the run: ${number(run.rounds)} rounds so far.`));
    if (run.note) say.push(h("p", { class: "say bad" }, run.note));
    else if (run.state === "unfinished" && !this.isSaved) {
      say.push(h("p", { class: "say", id: "resume" }, "Nobody trains this run at present. What was learned is kept; this continues it: ",
        h("code", null, `fedpg train --resume ${Fedpg.quoted(run.folder)}`)));
    }
    if (run.suspects.length) {
      say.push(h("p", { class: "say", id: "suspects" }, h("b", null, `Filtered more often than not: ${Fedpg.agents(run.suspects)}`),
        ` (of the last ${Math.min(50, run.rounds)} rounds).`));
    } else if (run.rounds && !run.is_selective) {
      say.push(h("p", { class: "say", id: "suspects" }, "The rule selects nobody in particular: no vote is accepted or filtered."));
    } else if (run.rounds) say.push(h("p", { class: "say", id: "suspects" }, `In the last ${Math.min(50, run.rounds)} rounds nobody was filtered more often than accepted.`));
    const strangers = Object.entries(run.strangers).map(([why, count]) => `${why} ${number(count)}`).join(", ");
    if (strangers) say.push(h("p", { class: "say bad" }, `Refused from callers that are not members: ${strangers}.`));
    Fedpg.show(this.parts.say, ...say);
    const tile = (value, name) => h("div", { class: "tile" }, h("b", null, value), h("span", null, name));
    Fedpg.show(this.parts.tiles, h("div", { class: "tiles" },
      tile(number(run.latest), "return, last round"), tile(number(run.final), "return, last 5 %"), tile(number(run.best), "best return"),
      tile(number(run.rounds), "rounds"), tile(`${number(run.trajectories)} / ${number(run.target)}`, "trajectories"),
      tile(number(run.speed, 0), "steps per second"),
      ...(run.starts > 1 ? [tile(number(run.starts - 1), run.starts === 2 ? "restart of the server" : "restarts of the server")] : []),
      ...(run.extended_after.length ? [tile(run.extended_after.map((one) => number(one)).join(", "), "extended after round")] : [])));
  }

  drawWorlds(worlds) {
    const { h, number } = Fedpg;
    if (!worlds.round) { Fedpg.show(this.parts.worlds); return; }
    const tile = (value, name) => h("div", { class: "tile" }, h("b", null, value), h("span", null, name));
    Fedpg.show(this.parts.worlds,
      h("p", { class: "faint" }, `The policy after round ${number(worlds.round)} in the worlds of ${worlds.worlds === 1 ? "the agent" : `the ${number(worlds.worlds)} agents`}:`),
      h("div", { class: "tiles" },
        tile(number(worlds.nominal), "return in the server's world"), tile(number(worlds.mean), "mean over the worlds"),
        tile(number(worlds.worst), `worst world, agent ${worlds.worst_agent}`), tile(number(worlds.spread), "best less worst")));
  }

  drawClock(clock, run) {
    const { h } = Fedpg;
    if (this.isSaved || !clock.source) { Fedpg.show(this.parts.clock); return; }
    const until = clock.deadline_in_s === null ? "" : ` · deadline in ${Fedpg.duration(clock.deadline_in_s)}`;
    const waiting = clock.waiting_for.length && clock.votes < clock.agents ? `waiting for ${Fedpg.agents(clock.waiting_for)}` : "";
    const phase = clock.phase ?? (run.state === "live" ? "as the store says; the server was not asked" : "");
    Fedpg.show(this.parts.clock, h("div", { class: "say" },
      h("p", null, h("b", null, `Round ${clock.round}`), ` · ${phase} · votes ${clock.votes} of ${clock.agents}, quorum ${clock.quorum}${until}`),
      h("progress", { max: clock.agents, value: clock.votes, "aria-label": "votes of the open round" }),
      h("p", null, clock.message, waiting && !clock.message.includes("waiting") ? ` · ${waiting}` : ""),
      ...(clock.intrusions ? [h("p", null, `${clock.intrusions} calls from strangers or with another's identity were refused`)] : [])));
  }

  drawCurves() {
    const { figures, width } = this.curve ?? { figures: {} };
    if (!figures.trajectories) return;
    const x = this.honest ? Fedpg.sums(figures.sampled) : figures.trajectories;
    const axis = this.honest ? "trajectories sampled by all agents and the server" : "trajectories per participant";
    const each = width > 1 ? `mean of ${width} rounds` : "each round";
    this.returns.draw(axis, x, [
      { label: `evaluation, ${each}`, values: figures.evaluation, colour: "series-4", width: 1 },
      { label: "evaluation, mean of the last 10 rounds", values: figures.smoothed, colour: "series-0", width: 2.5 },
      { label: "training, mean of the agents", values: figures.training, colour: "faint", dash: [4, 4], width: 1.2 },
      ...(figures["worst world"] ? [
        { label: "mean over the agents' worlds", values: figures["mean over the worlds"], colour: "series-2", width: 1.6 },
        { label: "worst of these worlds", values: figures["worst world"], colour: "series-1", dash: [8, 3], width: 1.6 },
      ] : []),
    ], [], this.shades(x));
    this.drawFigure(axis, x, figures);
  }

  /** The faults along the axis: from the end of the round before to the end of the last one. */
  shades(x) {
    const at = (round) => (round < 1 ? x[0] : x[Math.min(x.length, Math.ceil(round / this.curve.width)) - 1]);
    return (this.known.events ?? []).map((event) => (["fault", "late"].includes(event.kind)
      ? [at(event.first - 1), at(event.last), event.kind] : [at(event.first), at(event.first), event.kind]));
  }

  drawEvents(events) {
    const { h } = Fedpg;
    const kinds = { fault: "fault of the scenario", late: "beyond the deadline", restart: "restart of the server", extension: "another end" };
    const found = [...new Set(events.map((event) => event.kind))];
    Fedpg.show(this.legend, ...found.map((kind) => h("span", null, h("span", { class: `mark span-${kind}` }), kinds[kind])));
    this.eventPart.hidden = !events.length;
    const when = (event) => (["restart", "extension"].includes(event.kind) ? `after round ${event.first}`
      : event.first === event.last ? `round ${event.first}` : `rounds ${event.first} to ${event.last}`);
    Fedpg.show(this.events, ...events.slice(-200).reverse().map((event) => h("tr", null, h("td", null, h("span", { class: `mark span-${event.kind}` }), when(event)), h("td", { class: "wide" }, event.label))));
  }

  drawFigure(axis, x, figures) {
    const shown = { ...figures, "steps per second": figures.steps.map((steps, place) => (figures.seconds[place] ? steps / figures.seconds[place] : null)) };
    const names = Object.keys(shown).filter((name) => !["trajectories", "sampled", "evaluation", "smoothed", "training", "steps"].includes(name));
    const known = JSON.stringify(names);
    if (known !== this.figureNames) {
      this.figureNames = known;
      if (!names.includes(this.figure)) this.figure = names.includes("radius") ? "radius" : names[0];
      this.figurePlace.replaceChildren(Fedpg.choice("figure", names.map((name) => [name, name.replaceAll("_", " ")]), this.figure,
        (value) => { this.figure = value; this.drawCurves(); }));
    }
    this.other.draw(axis, x, [{ label: this.figure.replaceAll("_", " "), values: shown[this.figure], colour: "series-2" }], [], this.shades(x));
  }

  drawLog(log) {
    const isAtEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 8;
    this.logPart.hidden = !log.lines.length;
    this.log.textContent = log.lines.join("\n");
    if (isAtEnd) this.log.scrollTop = this.log.scrollHeight;
  }
};
