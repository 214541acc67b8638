"use strict";
// The table of reports can be filtered by words and sorted by a column; the filter stands in the address.
(() => {
  document.documentElement.classList.add("script");
  const table = document.getElementById("list"), body = table.tBodies[0], search = document.getElementById("q"), said = document.getElementById("shown");
  const rows = Array.from(body.rows);
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const filter = () => {
    const parts = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !parts.every((part) => words.get(row).includes(part));
      shown += !row.hidden;
    }
    said.textContent = shown + " of " + rows.length + " reports";
    history.replaceState(null, "", search.value ? "#q=" + encodeURIComponent(search.value) : location.pathname + location.search);
  };
  search.addEventListener("input", filter);
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      body.append(...rows.toSorted((a, b) => way * compare(a.cells[column].textContent, b.cells[column].textContent)));
    });
    head.replaceChildren(button);
  });
  if (location.hash.startsWith("#q=")) try { search.value = decodeURIComponent(location.hash.slice(3)); } catch { /* no such address */ }
  filter();
})();
