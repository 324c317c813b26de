"use strict";
/* Which page this address is. */
(() => {
  const page = document.getElementById("page");
  const saved = document.getElementById("saved");
  if (saved) {
    Fedpg.saved = new Fedpg.RunPage(page, true);
    Fedpg.saved.take(JSON.parse(saved.textContent));
    return;
  }
  const query = new URLSearchParams(location.search);
  if (location.pathname === "/compare") {
    Fedpg.page = new Fedpg.ComparePage(page, query);
    return;
  }
  const name = location.pathname.slice(1);
  const kinds = { run: () => new Fedpg.RunPage(page, false), matrix: () => new Fedpg.MatrixPage(page) };
  Fedpg.page = kinds[name] ? kinds[name]() : new Fedpg.HomePage(page);
  const events = kinds[name] ? `/events?${name}=${encodeURIComponent(query.get(name) ?? ".")}` : "/events";
  Fedpg.listen(events, Fedpg.page.badge, (patch) => Fedpg.page.take(patch));
})();
