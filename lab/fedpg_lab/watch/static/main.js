"use strict";
/* Which page this address is. */
(() => {
  const page = document.getElementById("page");
  const saved = document.getElementById("saved");
  if (saved) {
    new Fedpg.RunPage(page, true).take(JSON.parse(saved.textContent));
    return;
  }
  const query = new URLSearchParams(location.search);
  if (location.pathname === "/compare") {
    Fedpg.page = new Fedpg.ComparePage(page, query);
    return;
  }
  const isRun = location.pathname === "/run";
  Fedpg.page = isRun ? new Fedpg.RunPage(page, false) : new Fedpg.HomePage(page);
  const events = isRun ? `/events?run=${encodeURIComponent(query.get("run") ?? ".")}` : "/events";
  Fedpg.listen(events, Fedpg.page.badge, (patch) => Fedpg.page.take(patch));
})();
