"use strict";
// Sort: a header becomes a button; numbers by value, words by alphabet, missing values always last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  for (const head of table.querySelectorAll("th[data-col]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.dataset.first === "desc" ? "descending" : "ascending";
      const second = first === "descending" ? "ascending" : "descending";
      const order = { [first]: second, [second]: null }[head.getAttribute("aria-sort")];
      const next = order === undefined ? first : order;
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      if (next === null) { body.append(...original); return; }
      head.setAttribute("aria-sort", next);
      const column = Number(head.dataset.col);
      const sign = next === "ascending" ? 1 : -1;
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
      };
      const compare = (a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const numbers = x !== "" && y !== "" && isFinite(x) && isFinite(y);
        return sign * (numbers ? Number(x) - Number(y) : x.localeCompare(y));
      };
      body.append(...[...original].sort(compare));
    });
  }
}
// Filter: each select matches a data attribute of the row, the search box its words.
for (const form of document.querySelectorAll("form.filters")) {
  const rows = [...document.getElementById(form.dataset.for).tBodies[0].rows];
  const apply = () => {
    const words = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const selects = [...form.querySelectorAll("select")].filter((s) => s.value !== "");
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(selects.every((s) => row.dataset[s.dataset.key] === s.value) && words.every((w) => text.includes(w)));
      shown += !row.hidden;
    }
    form.querySelector("output").textContent = `${shown} of ${rows.length} rows`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
// Fold: of many scores the best of each family, until all are asked for; searching or printing shows all.
for (const table of document.querySelectorAll("table")) {
  const count = table.querySelectorAll("tr.fold").length;
  if (!count) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "unfold";
  const show = (all) => {
    table.classList.toggle("folded", !all);
    button.setAttribute("aria-expanded", String(all));
    button.textContent = all ? "Show the best of each family" : `Show all ${table.tBodies[0].rows.length} rows`;
  };
  button.addEventListener("click", () => show(table.classList.contains("folded")));
  table.closest(".scroll").before(button);
  show(false);
}
