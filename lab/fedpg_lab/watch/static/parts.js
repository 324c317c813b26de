"use strict";
/* What all pages share. Text from runs becomes text nodes and attributes only, never markup. */
const Fedpg = {};

/** An element; properties by name ("class", "on…" listeners, attributes), children as text or nodes. */
Fedpg.h = (name, properties, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && typeof value === "boolean") element[key] = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
};

Fedpg.number = (value, digits = 1) =>
  value === null || value === undefined || !Number.isFinite(value) ? "–"
    : value.toLocaleString("en", { maximumFractionDigits: Number.isInteger(value) ? 0 : digits });

Fedpg.brief = (value) => {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  return size && (size < 0.001 || size >= 1e7) ? value.toExponential(2)
    : value.toLocaleString("en", { maximumSignificantDigits: 5 });
};

Fedpg.percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`);

Fedpg.duration = (seconds) => {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
};

Fedpg.agents = (list, most = 12) =>
  (list.length === 1 ? "agent " : "agents ") + list.slice(0, most).join(", ")
  + (list.length > most ? ` and ${list.length - most} more` : "");

Fedpg.colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
Fedpg.series = (place) => Fedpg.colour(`series-${place % 7}`);

Fedpg.state = (state) => Fedpg.h("span", { class: `state ${state}` }, state);
Fedpg.runAddress = (run) => `/run?run=${encodeURIComponent(run)}`;

/** Replace the children of an element only where they differ from what it shows. */
Fedpg.show = (element, ...children) => {
  const fresh = Fedpg.h("div", null, ...children);
  if (fresh.innerHTML !== element.innerHTML) element.replaceChildren(...fresh.childNodes);
};

Fedpg.get = async (address) => {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || `${answer.status}`);
  return content;
};

/** A path as a shell takes it. */
Fedpg.quoted = (path) => (/^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\"'\"'")}'`);

/** Listen to a page's events: again after the server was away, and not while nobody looks. */
Fedpg.listen = (address, badge, take) => {
  let source = null;
  let again = 0;
  const say = (text, lost) => { badge.textContent = text; badge.classList.toggle("lost", lost); };
  const close = () => { if (source) source.close(); source = null; clearTimeout(again); };
  const open = () => {
    close();
    source = new EventSource(address);
    let isOpen = false;
    source.onopen = () => { isOpen = true; say("connected", false); };
    source.onmessage = (event) => take(JSON.parse(event.data));
    source.onerror = () => {
      say("the page's server is away: trying again", true);
      close(); // a browser gives up by itself after some answers, so this decides
      again = setTimeout(open, 1500);
      if (!isOpen) Fedpg.refusal(address).then((why) => { if (why) say(why, true); });
    };
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
};

/** Why the server refuses an address, or nothing if it does not, or is away. */
Fedpg.refusal = async (address) => {
  try {
    const answer = await fetch(address, { method: "HEAD" });
    return answer.ok ? null : (await (await fetch(address)).json()).error;
  } catch {
    return null;
  }
};

/** A select with a label; calls back with what is chosen. */
Fedpg.choice = (label, options, chosen, change) => {
  const select = Fedpg.h("select", { onchange: () => change(select.value) },
    options.map(([value, text]) => Fedpg.h("option", { value, selected: value === chosen }, text)));
  return Fedpg.h("label", null, label, select);
};

/** A header cell that sorts its table. */
Fedpg.sortable = (text, key, order, sort, figure) => {
  const sorted = order.key === key;
  const arrow = sorted ? (order.down ? " ▾" : " ▴") : "";
  return Fedpg.h("th", { scope: "col", class: figure ? "figure" : null,
    "aria-sort": sorted ? (order.down ? "descending" : "ascending") : null },
    Fedpg.h("button", { onclick: () => sort(key), "data-key": key }, text + arrow));
};

Fedpg.compare = (order) => (one, other) => {
  const [a, b] = [one[order.key], other[order.key]];
  const isMissing = (value) => value === null || value === undefined;
  if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
  const sign = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  return order.down ? -sign : sign;
};
