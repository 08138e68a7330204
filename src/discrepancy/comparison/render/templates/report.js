(function () {
  "use strict";
  var root = document.documentElement, byId = function (id) { return document.getElementById(id); };

  // Theme: follows the system until the reader chooses; a page opened from disk may have no storage.
  var store = { get: function () { try { return localStorage.getItem("discrepancy-theme"); } catch (e) { return null; } },
                set: function (v) { try { localStorage.setItem("discrepancy-theme", v); } catch (e) { return; } } };
  var themes = ["system", "light", "dark"], theme = themes.indexOf(store.get()) > 0 ? store.get() : "system", button = byId("theme");
  function paint() {
    if (theme === "system") { root.removeAttribute("data-theme"); } else { root.setAttribute("data-theme", theme); }
    button.textContent = "Theme: " + theme;
  }
  button.hidden = false;
  button.addEventListener("click", function () { theme = themes[(themes.indexOf(theme) + 1) % 3]; store.set(theme); paint(); });
  paint();

  var table = byId("columns"), body = table.tBodies[0], rows = Array.prototype.slice.call(body.rows);
  var first = rows.slice();

  // Sorting: headers become buttons; empty cells stay last either way, ties keep the order of the verdict.
  var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
  heads.forEach(function (head, column) {
    var how = head.getAttribute("data-sort");
    if (!how) { return; }
    var press = document.createElement("button");
    press.type = "button"; press.textContent = head.textContent; head.textContent = ""; head.appendChild(press);
    if (!head.hasAttribute("aria-sort")) { head.setAttribute("aria-sort", "none"); }
    press.addEventListener("click", function () {
      var was = head.getAttribute("aria-sort");
      // Numbers are asked for largest first, except a verdict and a p-value, whose interesting end is the smallest.
      var rising = was === "ascending" ? false : was === "descending" ? true : how === "text" || /^(verdict|p,)/.test(press.textContent);
      heads.forEach(function (h) { if (h.hasAttribute("aria-sort")) { h.setAttribute("aria-sort", "none"); } });
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      var key = function (row) {
        var cell = row.cells[column];
        if (how === "text") { return cell.textContent.trim().toLowerCase(); }
        var text = cell.getAttribute("data-key");
        return text === null || text === "" ? null : Number(text);
      };
      var order = first.map(function (row, k) { return { row: row, key: key(row), k: k }; });
      order.sort(function (p, q) {
        if (p.key === null || q.key === null) { return (p.key === null) - (q.key === null) || p.k - q.k; }
        var d = how === "text" ? p.key.localeCompare(q.key, undefined, { numeric: true }) : p.key - q.key;
        return (rising ? d : -d) || p.k - q.k;
      });
      var piece = document.createDocumentFragment();
      order.forEach(function (entry) { piece.appendChild(entry.row); });
      body.appendChild(piece);
    });
  });

  // Filtering: by name and by verdict, on the table and on the cards below it.
  var find = byId("find"), found = byId("found"), chips = Array.prototype.slice.call(document.querySelectorAll(".chip"));
  var cards = {};
  document.querySelectorAll("details.card").forEach(function (card) { cards["#" + card.id] = card; });
  var entries = rows.map(function (row) {
    var link = row.querySelector("th a"), names = row.querySelector("th").textContent;
    if (row.cells[0].tagName === "TD") { names += " " + row.cells[0].textContent; }
    return { row: row, text: names.toLowerCase(), tone: row.getAttribute("data-tone"), card: link ? cards[link.getAttribute("href")] : null };
  });
  function filter() {
    var wanted = find.value.trim().toLowerCase(), shown = 0;
    var tones = chips.filter(function (c) { return c.getAttribute("aria-pressed") === "true"; }).map(function (c) { return c.getAttribute("data-tone"); });
    entries.forEach(function (entry) {
      var keep = entry.text.indexOf(wanted) >= 0 && (!tones.length || tones.indexOf(entry.tone) >= 0);
      entry.row.hidden = !keep;
      if (entry.card) { entry.card.hidden = !keep; }
      shown += keep;
    });
    found.textContent = shown === entries.length ? "" : shown.toLocaleString("en") + " of " + entries.length.toLocaleString("en");
  }
  find.addEventListener("input", filter);
  find.addEventListener("keydown", function (e) { if (e.key === "Escape") { find.value = ""; filter(); } });
  chips.forEach(function (chip) {
    chip.addEventListener("click", function () {
      chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") === "true" ? "false" : "true");
      filter();
    });
  });
  byId("tools").hidden = false;

  // A link to a column opens its card.
  function open() {
    var card = cards[location.hash];
    if (card) { card.hidden = false; card.open = true; card.scrollIntoView(); }
  }
  addEventListener("hashchange", open);
  document.querySelectorAll('a[href^="#c"]').forEach(function (link) {
    link.addEventListener("click", function () { var card = cards[link.getAttribute("href")]; if (card) { card.open = true; } });
  });
  open();
})();
