"use strict";
/* A round's gradients in the plane: circles are the rule's, a mark is an agent's gradient. */

Fedpg.svg = (name, properties, ...children) => {
  const element = document.createElementNS(document.getElementById("svg").namespaceURI, name);
  for (const [key, value] of Object.entries(properties || {})) if (value !== null && value !== undefined) element.setAttribute(key, String(value));
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
};

/** Distances up to two units as they are, farther ones by their logarithm. */
Fedpg.bent = (units) => (units <= 2 ? units : 2 * (1 + Math.log(units / 2)));

Fedpg.Plane = class {
  /** `fetch(round)` brings the picture of an earlier round, or null. */
  constructor(place, fetch) {
    const h = Fedpg.h;
    this.fetch = fetch;
    this.chosen = null; // follows the latest round
    this.way = "radial";
    this.rounds = 0;
    this.slider = h("input", { type: "range", min: 1, max: 1, value: 1, step: 1, "aria-label": "round", oninput: () => this.choose(Number(this.slider.value)) });
    this.number = h("output");
    this.follow = h("button", { onclick: () => this.choose(null) }, "latest");
    this.drawing = h("div", { class: "plane" });
    this.tell = h("p", { class: "faint", "aria-live": "polite", id: "plane-tell" });
    this.about = h("p", { class: "faint" });
    place.append(
      h("div", { class: "controls" },
        h("label", { class: "line" }, "round", this.slider, this.number), this.follow,
        Fedpg.choice("placed by", [["radial", "distance from the centre, exact"], ["classical", "all distances, classical scaling"]], "radial",
          (value) => { this.way = value; this.draw(); })),
      h("div", { class: "legend" },
        h("span", null, this.key("accepted"), this.legendOfHeard = h("span", null, "accepted")),
        this.legendOfFiltered = h("span", null, this.key("filtered"), "filtered"),
        this.legendOfAttack = h("span", { hidden: true }, this.key("accepted", true), "described as an attacker")),
      this.drawing, this.tell, this.about);
  }

  key(verdict, isAttacker = false) {
    return Fedpg.svg("svg", { width: 18, height: 18, viewBox: "-9 -9 18 18", "aria-hidden": "true" }, this.mark(verdict, 5, isAttacker));
  }

  /** The latest picture, and of how many rounds; null where there is none. */
  take(latest, rounds, byzantine) {
    this.latest = latest;
    this.rounds = rounds;
    this.byzantine = byzantine;
    this.legendOfAttack.hidden = !Object.keys(byzantine).length;
    this.slider.max = Math.max(1, rounds);
    if (this.chosen === null) { this.plane = latest; this.slider.value = rounds; }
    this.draw();
  }

  async choose(round) {
    this.chosen = round === null || round >= this.rounds ? null : Math.max(1, round);
    this.slider.value = this.chosen ?? this.rounds;
    this.number.textContent = Fedpg.number(this.chosen ?? this.rounds);
    if (this.chosen === null) { this.plane = this.latest; this.draw(); return; }
    if (this.isAsking) return; // the answer leads to the round that is chosen by then
    this.isAsking = true;
    try {
      let asked;
      do {
        asked = this.chosen;
        if (asked !== null) this.plane = await this.fetch(asked);
      } while (asked !== this.chosen && this.chosen !== null);
    } catch (error) {
      this.tell.textContent = `This round cannot be shown: ${error.message}`;
      return;
    } finally { this.isAsking = false; }
    if (this.chosen === null) this.plane = this.latest;
    this.draw();
  }

  draw() {
    const plane = this.plane;
    this.number.textContent = Fedpg.number(this.chosen ?? this.rounds);
    this.follow.disabled = this.chosen === null;
    if (!plane) {
      this.drawing.replaceChildren(Fedpg.h("p", { class: "say" }, this.rounds ? "The distances of this round were not kept: they are kept where at most 50 agents voted." : "No round has ended yet."));
      this.about.textContent = "";
      return;
    }
    const decided = plane.circles.find((circle) => circle.decided) ?? plane.circles[0];
    const ascending = plane.distance.filter((value) => value > 0).sort((a, b) => a - b);
    this.unit = decided?.radius ?? ascending[Math.floor(ascending.length / 2)] ?? 1;
    const places = plane[this.way].map(([x, y]) => {
      const far = Math.hypot(x, y);
      const bent = far ? Fedpg.bent(far / this.unit) / far : 0;
      return [x * bent, -y * bent];
    });
    const circles = plane.circles.map((circle) => [circle, Fedpg.bent(circle.radius / this.unit)]);
    const reach = 1.14 * Math.max(1, ...circles.map(([, radius]) => radius), ...places.map(([x, y]) => Math.hypot(x, y)));
    this.drawing.replaceChildren(this.picture(plane, places, circles, reach));
    this.say(plane);
  }

  picture(plane, places, circles, reach) {
    const [size, svg] = [460, Fedpg.svg];
    const scale = size / (2 * reach);
    const rings = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1e4, 1e5].filter((units) => Fedpg.bent(units) < reach
      && (!circles.length ? true : units > 2));
    const ring = (radius, text, kind) => [svg("circle", { r: radius * scale, class: kind }),
      svg("text", { y: kind.includes("decided") ? radius * scale + 11 : -radius * scale - 3, class: `${kind} name` }, text)];
    const parts = [
      ...rings.map((units) => ring(Fedpg.bent(units), circles.length ? `${units} × radius` : Fedpg.brief(Number((units * this.unit).toPrecision(2))), "ring")),
      ...circles.map(([circle, radius]) => ring(radius, `${circle.name}: ${Fedpg.brief(circle.radius)}`, circle.decided ? "radius decided" : "radius")),
      svg("path", { d: "M-6 0H6M0 -6V6", class: "centre" }),
    ];
    const groups = new Map(); // agents in one place share a mark's label
    plane.agents.forEach((agent, at) => {
      const key = `${places[at].map((value) => (value * scale / 3).toFixed(0))} ${plane.verdicts[at]}`;
      groups.set(key, [...(groups.get(key) ?? []), at]);
    });
    for (const members of groups.values()) {
      const [x, y] = places[members[0]].map((value) => value * scale);
      const isAttacker = members.some((at) => this.byzantine[plane.agents[at]]);
      const weight = plane.weights ? plane.weights[members[0]] : 1;
      const size = plane.verdicts[members[0]] !== "filtered" ? 3 + 3 * Math.sqrt(Math.min(1, weight)) : 6;
      const text = members.map((at) => this.tale(plane, at)).join("; ");
      parts.push(svg("g", { transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, class: "agent" },
        svg("title", null, text), this.mark(plane.verdicts[members[0]], size, isAttacker),
        svg("text", { x: isAttacker ? 12 : 9, y: 4 }, this.names(members.map((at) => plane.agents[at])))));
    }
    return svg("svg", { viewBox: `${-size / 2} ${-size / 2} ${size} ${size}`, role: "img", "aria-label": this.summary(plane) }, parts);
  }

  names(agents) {
    const runs = [];
    for (const agent of agents) {
      const last = runs[runs.length - 1];
      if (last && last[1] === agent - 1) last[1] = agent; else runs.push([agent, agent]);
    }
    return runs.map(([from, to]) => (from === to ? `${from}` : to === from + 1 ? `${from}, ${to}` : `${from}–${to}`)).join(", ");
  }

  mark(verdict, size, isAttacker) {
    const shape = verdict !== "filtered" ? Fedpg.svg("circle", { r: size, class: "dot accepted" })
      : Fedpg.svg("path", { d: `M${-size} ${-size}L${size} ${size}M${-size} ${size}L${size} ${-size}`, class: "dot filtered" });
    return Fedpg.svg("g", null, shape, isAttacker ? Fedpg.svg("rect", { x: -9, y: -9, width: 18, height: 18, class: "liar" }) : null);
  }

  tale(plane, at) {
    const agent = plane.agents[at];
    const attack = this.byzantine[agent] ? ` (${this.byzantine[agent]})` : "";
    const weight = plane.weights && plane.weights.some((value) => value !== 0 && value !== 1) ? `, weight ${Fedpg.number(plane.weights[at], 3)}` : "";
    return `agent ${agent}${attack}: ${plane.verdicts[at]}, distance ${Fedpg.brief(plane.distance[at])}${weight}`;
  }

  summary(plane) {
    const those = (verdict) => plane.agents.filter((_, at) => plane.verdicts[at] === verdict);
    const [filtered, voted] = [those("filtered"), those("voted")];
    const beyond = plane.circles.find((circle) => circle.decided);
    return `Round ${plane.round}, rule ${plane.rule}: ${voted.length ? `${voted.length} ${voted.length === 1 ? "vote" : "votes"}` : `${those("accepted").length} accepted, `}`
      + (voted.length ? "" : filtered.length ? `filtered ${Fedpg.agents(filtered, 50)}` : "nobody filtered")
      + (plane.alike.length ? `; the same gradient from ${plane.alike.map((group) => Fedpg.agents(group, 50)).join(", and from ")}` : "")
      + (beyond ? `; radius ${Fedpg.brief(beyond.radius)} about the gradient of agent ${plane.centre}` : "") + ".";
  }

  say(plane) {
    this.tell.textContent = this.summary(plane);
    const isVoted = plane.verdicts.includes("voted");
    this.legendOfHeard.textContent = isVoted ? "voted" : "accepted";
    this.legendOfFiltered.hidden = isVoted;
    const centre = plane.centre === null ? "The cross is the mean of the gradients that counted" : `The cross is the gradient of agent ${plane.centre}, the median`;
    this.about.textContent = `${centre}. ` + (this.way === "radial"
      ? "Distances from it are exact, so within the circle is within the radius; directions are close where the gradients point alike."
      : `The plane shows ${plane.shown === null ? "nothing" : Fedpg.percent(plane.shown)} of the squared distances from it; it shortens distances, so that a gradient beyond the radius may lie within the circle.`)
      + " Beyond twice the unit, distances are drawn by their logarithm.";
  }
};
