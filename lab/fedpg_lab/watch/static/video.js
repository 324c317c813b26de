"use strict";
/* An episode of the best policy, recorded when somebody asks for it. */

Fedpg.VIDEO_POLL_MS = 1000;

Fedpg.Video = class {
  constructor(place) {
    const h = Fedpg.h;
    this.shown = h("div");
    this.say = h("p", { class: "faint", role: "status", id: "video-say" });
    this.ask = h("button", { onclick: () => this.look(true) }, "Record an episode");
    place.append(this.shown, this.say, h("div", { class: "controls" }, this.ask));
  }

  /** `saved` is the video of a saved page, or null; undefined where a server can be asked. */
  take(run, saved) {
    if (saved !== undefined) {
      this.ask.hidden = true;
      if (saved && !this.shown.firstChild) this.show(saved, saved.address);
      return;
    }
    this.hasRounds = run.rounds > 0;
    this.ask.disabled = !run.rounds || this.isMaking;
    if (this.run === run.run) return;
    this.run = run.run;
    this.look(false);
  }

  async look(make) {
    const query = new URLSearchParams({ run: this.run, ...(make ? { make: "yes" } : {}) });
    let found;
    try { found = await Fedpg.get(`/video?${query}`); } catch (error) { found = { state: "failed", note: error.message }; }
    this.isMaking = found.state === "making";
    this.ask.disabled = this.isMaking;
    this.ask.hidden = found.state === "impossible" && this.hasRounds;
    this.ask.textContent = this.shown.firstChild || found.state === "made" ? "Record the policy as it is now" : "Record an episode";
    if (this.isMaking) {
      this.say.textContent = "The episode is being recorded.";
      setTimeout(() => this.look(false), Fedpg.VIDEO_POLL_MS);
    } else if (found.state === "made") {
      this.show(found, `/video/file?${new URLSearchParams({ run: this.run, round: found.round })}`);
    } else this.say.textContent = found.note;
  }

  show(video, address) {
    const text = `a greedy episode of the best policy, after round ${Fedpg.number(video.round)}: return ${Fedpg.number(video.return)}, ${Fedpg.number(video.steps)} steps`;
    this.shown.replaceChildren(video.type === "image/gif" ? Fedpg.h("img", { src: address, alt: text })
      : Fedpg.h("video", { src: address, controls: true, loop: true, muted: true, playsinline: true, "aria-label": text }));
    this.say.textContent = `${text[0].toUpperCase()}${text.slice(1)}.`;
  }
};
